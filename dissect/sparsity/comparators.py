"""Comparators of a sparsity: masks at the same number of kept weights, by other means than the instrument's.

A density says little before other masks of the same size have been tried: by magnitude, by chance, by iterative
magnitude pruning with rewinding (Frankle, Carbin 2019, arXiv 1803.03635; Frankle et al. 2020, arXiv 1912.05671), and
those of another part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity.density import RULES
from dissect.sparsity.masks import apply_masks, find_parameters, hold_masks, listed, shape_of

METHODS = ("magnitude", "magnitude-global", "random", "snr", "log-alpha")


@torch.no_grad()
def select_masks(
    tensors: Iterable[tuple[str, str, Tensor, Tensor]],
    keep: Mapping[str, int],
    method: str = "magnitude",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Masks that keep exactly as many weights as they are told to.

    Parameters
    ----------
    tensors : iterable of (part, name, theta, s)
        As from `Instrument.tensors`: mean and log variance of each matrix.
    keep : mapping of str to int
        Part -> number of weights to keep.
    method : {'magnitude', 'magnitude-global', 'random', 'snr', 'log-alpha'}
        The largest abs(theta) of each part; the largest over all parts, as many as `keep` has in total; by chance in
        each part; the largest abs(theta) / sigma; the smallest log alpha. The last two rank alike but for weights
        below about 1e-4, where the 1e-8 in log alpha is felt.
    generator : torch.Generator
        Needed by 'random', not used by the others.

    Returns
    -------
    dict of str to Tensor
        Name -> mask of its shape and on its device. Of equal weights, the first in order are kept.

    Raises
    ------
    DissectError
        For an unknown method or part, a name given twice, a number of weights that a part doesn't have, weights that
        are not finite, and 'random' without a generator.
    """
    if method not in METHODS:
        raise DissectError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    parts: dict[str, dict[str, tuple[Tensor, Tensor]]] = {part: {} for part in keep}
    devices: dict[str, torch.device] = {}
    for part, name, theta, s in tensors:
        if name in devices:
            raise DissectError(f"parameter {name!r} is given twice")
        if part not in keep:
            raise DissectError(f"{name!r} is in part {part!r}, which keep lacks; parts of keep: {listed(keep)}")
        if theta.shape != s.shape:
            raise DissectError(f"{name!r}: theta is {shape_of(theta)} and s {shape_of(s)}; they need one shape")
        if not (theta.isfinite().all() and s.isfinite().all()):
            raise DissectError(f"{name!r} holds values that are not finite; they have no order")
        devices[name] = theta.device
        parts[part][name] = theta.detach().cpu(), s.detach().cpu()  # so that order is the same on any device
    for part, held in parts.items():
        _check_count(part, keep[part], sum(theta.numel() for theta, _ in held.values()))
    groups = [(parts[part], keep[part]) for part in parts]
    if method == "magnitude-global":
        groups = [({name: pair for held in parts.values() for name, pair in held.items()}, sum(keep.values()))]
    masks: dict[str, Tensor] = {}
    for held, count in groups:
        masks |= _largest({name: _score(method, *pair, generator) for name, pair in held.items()}, count)
    return {name: masks[name].to(device) for name, device in devices.items()}


def _score(method: str, theta: Tensor, s: Tensor, generator: torch.Generator | None) -> Tensor:
    if method == "random":
        if generator is None:
            raise DissectError("method 'random' needs a torch.Generator, so that its masks can be drawn again")
        # Ranks of 53-bit uniforms: every subset is equally likely but for ties, of probability about n^2 / 2^54.
        uniform = torch.rand(theta.shape, generator=generator, dtype=torch.float64, device=generator.device)
        return uniform.cpu()
    rule = RULES[method.removesuffix("-global")]
    return -rule.score(theta, s) if rule.below else rule.score(theta, s)


def _largest(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Masks of the `count` largest scores over all tensors together; of equal ones, the first."""
    if not scores:
        return {}
    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
    kept[flat.argsort(descending=True, stable=True)[:count]] = True
    pieces = kept.split([score.numel() for score in scores.values()])
    return {name: piece.view(score.shape) for (name, score), piece in zip(scores.items(), pieces, strict=True)}


def _check_count(part: str, count: int, total: int) -> None:
    if not isinstance(count, int) or not 0 <= count <= total:
        raise DissectError(f"part {part!r}: {count!r} weights to keep; a whole number from 0 to {total} is needed")


def imp_schedule(total: int, keep: int, rounds: int) -> list[int]:
    """Kept weights after each round of iterative pruning: the same fraction of the survivors goes in every round.

    The last is `keep`. Zero is in no geometric sequence: for `keep` 0 the rounds go towards 1, and the last one drops
    what is left.

    Raises
    ------
    DissectError
        If there is no round, or `keep` is not between 0 and `total`.
    """
    if rounds < 1:
        raise DissectError(f"rounds is {rounds}; at least 1 is needed")
    if not 0 <= keep <= total:
        raise DissectError(f"{keep} weights to keep; a number from 0 to {total} is needed")
    ratio = max(keep, 1) / max(total, 1)
    return [*(round(total * ratio ** (i / rounds)) for i in range(1, rounds)), keep]


def iterative_magnitude(
    model: nn.Module,
    names_by_part: Mapping[str, Sequence[str]],
    keep: Mapping[str, int],
    rounds: int,
    train: Callable[[nn.Module, dict[str, Tensor]], Any],
    rewind_state: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Iterative magnitude pruning with rewinding (arXiv 1803.03635; arXiv 1912.05671).

    Every round trains from the rewind state, cuts the smallest of each part's surviving weights, and goes back to that
    state. `train` is called `rounds` times; training the ticket that comes out is left to the caller.

    Parameters
    ----------
    model : nn.Module
        A dense model; left at the rewind state with the final masks applied.
    names_by_part : mapping of str to sequence of str
        Part -> full parameter names.
    keep : mapping of str to int
        Part -> weights to keep in the end.
    rounds : int
    train : callable of (model, masks)
        Trains the model in place; the masks are held meanwhile, see `hold_masks`.
    rewind_state : mapping of str to Tensor
        The model's state at an early step, as from `state_dict`.

    Returns
    -------
    dict of str to Tensor
        Name -> mask, exactly `keep` weights kept in each part.

    Raises
    ------
    DissectError
        For unknown or repeated names, parts or numbers that don't fit, and a state of another model.
    """
    if set(keep) != set(names_by_part):
        raise DissectError(f"keep has the parts {listed(keep)}, the names {listed(names_by_part)}; they must agree")
    parameters = find_parameters(model, [name for names in names_by_part.values() for name in names])
    schedules: dict[str, list[int]] = {}
    for part, names in names_by_part.items():
        total = sum(parameters[name].numel() for name in names)
        _check_count(part, keep[part], total)
        schedules[part] = imp_schedule(total, keep[part], rounds)
    unlike = set(rewind_state) ^ set(model.state_dict())
    if unlike:
        raise DissectError(f"rewind_state is of another model: only one of the two has {listed(sorted(unlike))}")
    # A state dict holds the live tensors, which training would change.
    start = {name: value.detach().clone() for name, value in rewind_state.items()}
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in parameters.items()}
    for i in range(rounds):
        model.load_state_dict(start)
        with hold_masks(model, masks):
            train(model, dict(masks))
        for part, names in names_by_part.items():
            # Dropped weights are zero, and so may survivors be: -1 keeps them apart.
            scores = {n: parameters[n].detach().abs().masked_fill(~masks[n], -1) for n in names}
            masks |= _largest(scores, schedules[part][i])
    model.load_state_dict(start)
    apply_masks(model, masks)
    return masks
