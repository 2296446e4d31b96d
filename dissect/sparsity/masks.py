"""Masks on a dense model: set, held while it trains, swapped between parts.

A mask is a bool tensor by the full name of its parameter, true where a weight is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from dissect.errors import DissectError

Masks = Mapping[str, Tensor]


def listed(names: Iterable[str]) -> str:
    """Names for an error."""
    return ", ".join(names) or "none"


def shape_of(tensor: Tensor) -> str:
    """A shape for an error."""
    return str(tuple(tensor.shape))


def find_parameters(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Parameters by full name, each at most once."""
    known = dict(model.named_parameters(remove_duplicate=False))
    found: dict[str, nn.Parameter] = {}
    first: dict[int, str] = {}
    for name in names:
        if name not in known:
            raise DissectError(f"{name!r} is no parameter of the model; parameters: {listed(known)}")
        if id(known[name]) in first:
            raise DissectError(f"parameter {name!r} is named twice; its first name is {first[id(known[name])]!r}")
        first[id(known[name])] = name
        found[name] = known[name]
    return found


def _dropped(model: nn.Module, masks: Masks) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Each masked parameter and where it is to be zero."""
    pairs = []
    for name, parameter in find_parameters(model, masks).items():
        mask = masks[name]
        if mask.dtype != torch.bool or mask.shape != parameter.shape:
            raise DissectError(
                f"the mask of {name!r} is {mask.dtype} of shape {shape_of(mask)}; torch.bool of shape "
                f"{shape_of(parameter)} is needed"
            )
        pairs.append((parameter, ~mask.to(parameter.device)))
    return iter(pairs)


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set the masked-out weights of a dense model to zero, in place.

    Raises
    ------
    DissectError
        For a name that is no parameter, two names of one parameter, and a mask of another shape or type; the model is
        unchanged then.
    """
    for parameter, dropped in _dropped(model, masks):
        parameter.masked_fill_(dropped, 0)


class MaskHold:
    """Keeps masked-out weights at zero until it is removed; made by `hold_masks`."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self._pairs = list(_dropped(model, masks))
        # Without gradient, dropped weights count neither in a norm that is clipped nor in moments. That alone doesn't
        # hold them: an optimizer may bring momentum from before. So they are also set to zero after each step.
        self._handles: list[Any] = [
            parameter.register_hook(partial(_without, dropped))
            for parameter, dropped in self._pairs
            if parameter.requires_grad
        ]
        self._handles.append(register_optimizer_step_post_hook(lambda *_: self.reapply()))
        self.reapply()

    @torch.no_grad()
    def reapply(self) -> None:
        """Set the masked-out weights to zero.

        Every torch.optim.Optimizer does this after its step; call it where weights change by other means.
        """
        for parameter, dropped in self._pairs:
            parameter.masked_fill_(dropped, 0)

    def remove(self) -> None:
        """Let go: all hooks are gone, the weights stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> MaskHold:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _without(dropped: Tensor, grad: Tensor) -> Tensor:
    return grad.masked_fill(dropped, 0)


def hold_masks(model: nn.Module, masks: Masks) -> MaskHold:
    """Set the masked-out weights to zero and keep them there while the model trains.

    Use it as a context, ``with hold_masks(model, masks): ...``, or call `MaskHold.remove` at the end. Errors are those
    of `apply_masks`.
    """
    return MaskHold(model, masks)


def swap_masks(masks_by_part: Mapping[str, Masks], first: str, second: str, common: bool = False) -> dict[str, Tensor]:
    """Masks of all parts by name, with those of two parts exchanged.

    Matrices are paired by shape: the n-th of a shape in one part goes with the n-th of that shape in the other. Kept
    numbers travel with the masks.

    Parameters
    ----------
    masks_by_part : mapping of str to mapping of str to Tensor
        Part -> parameter name -> mask.
    first, second : str
        The two parts.
    common : bool
        Whether matrices without a partner keep their masks; else they are an error.

    Raises
    ------
    DissectError
        For an unknown part, a name in two parts, and parts whose shapes don't match.
    """
    for part in (first, second):
        if part not in masks_by_part:
            raise DissectError(f"unknown part {part!r}; parts: {listed(masks_by_part)}")
    swapped: dict[str, Tensor] = {}
    for part, masks in masks_by_part.items():
        for name, mask in masks.items():
            if name in swapped:
                raise DissectError(f"parameter {name!r} of part {part!r} is named twice")
            swapped[name] = mask
    ours, theirs = masks_by_part[first], masks_by_part[second]
    shapes = [", ".join(sorted(shape_of(mask) for mask in side.values())) or "none" for side in (ours, theirs)]
    if not common and shapes[0] != shapes[1]:
        raise DissectError(f"masks can't be swapped: part {first!r} has shapes {shapes[0]}, {second!r} {shapes[1]}")
    left = dict(theirs)
    for name, mask in ours.items():
        other = next((n for n, m in left.items() if m.shape == mask.shape), None)
        if other is not None:
            swapped[name], swapped[other] = left.pop(other), mask
    return swapped
