"""Wrapping the chosen parts of a model by name, in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from dissect.errors import DissectError
from dissect.sparsity.density import get_rule
from dissect.sparsity.instrument import Instrument, Receipt, Row
from dissect.sparsity.parts import ALIASES, Parts, resolve_parts
from dissect.sparsity.penalty import check_prior, warmup_weight
from dissect.sparsity.variational import Variational, to_variational


def wrap(
    model: nn.Module,
    parts: Parts,
    which: str | Iterable[str] = "all",
    *,
    examples: int,
    steps: int,
    noise: str = "local",
    prior: str = "log-uniform",
    log_sigma2: float = -8.0,
    kl_scale: float = 1.0,
    warmup: tuple[float, float] = (0.1, 0.4),
    rule: str = "log-alpha",
    threshold: float | None = None,
    aliases: Mapping[str, Sequence[str]] = ALIASES,
) -> Instrument:
    """Give the weights of the chosen parts a variance each, in place, and return the instrument that reads
    them.

    The dense modules change class and keep their Parameters, so weights are the same bit by bit, ties hold,
    dense checkpoints load, and no random number is drawn. Build the optimizer afterwards, from
    `Instrument.param_groups`.

    Parameters
    ----------
    model : nn.Module
        Any model with nn.Linear or nn.GRUCell modules.
    parts : mapping of str to sequence of str
        Part -> module names or patterns; see `parts.resolve_parts`.
    which : 'all', or name(s) of parts or aliases
    examples : int
        Number of training examples N, after augmentation: the KL is divided by it.
    steps : int
        Planned optimizer steps, for the warm-up.
    noise : {'local', 'weight'}
    prior : {'log-uniform', 'ard', 'normal'}
        'normal' is no sparsity-inducing prior; see `penalty.kl_normal`.
    log_sigma2 : float
        Initial log variance.
    kl_scale : float
        Factor on the KL; acts like a significance level. 1 is the evidence lower bound.
    warmup : (float, float)
        Fractions of `steps` between which the KL weight rises from 0 to 1.
    rule, threshold
        What counts as kept; see `density.keep_mask`.
    aliases : mapping of str to sequence of str

    Raises
    ------
    DissectError
        For unknown names, modules that can't be wrapped, and figures out of range.

    References
    ----------
    Molchanov, Ashukha, Vetrov 2017, arXiv 1701.05369.
    """
    if examples < 1 or steps < 1:
        raise DissectError(f"examples and steps must be at least 1, got {examples} and {steps}")
    if not 0 <= kl_scale < math.inf:
        raise DissectError(f"kl_scale must be a finite number of at least 0, got {kl_scale}")
    if not math.isfinite(log_sigma2):
        raise DissectError(f"log_sigma2 must be a finite number, got {log_sigma2}")
    check_prior(prior)
    get_rule(rule, threshold)
    warmup_weight(0, steps, *warmup)
    resolved = resolve_parts(model, parts, which, aliases)
    modules: dict[str, dict[str, Variational]] = {part: {} for part in resolved}
    receipt = Receipt()
    first: dict[int, tuple[str, nn.Parameter]] = {}  # id of a mean -> its first name and its log variance
    for part, names in resolved.items():
        for name in names:
            dense = model.get_submodule(name)
            old = type(dense).__name__
            modules[part][name] = module = to_variational(dense, noise, log_sigma2)
            weights, parameters, notes = 0, [], []
            for (mean, log_variance), (_, theta, s) in zip(module.PAIRS, list(module.pairs()), strict=True):
                full = f"{name}.{mean}" if name else mean
                parameters.append(full)
                if id(theta) in first:  # one weight has one variance, and counts once
                    setattr(module, log_variance, first[id(theta)][1])
                    notes.append(f"{mean} tied to {first[id(theta)][0]}")
                else:
                    first[id(theta)] = (full, s)
                    weights += theta.numel()
            new = type(module).__name__
            receipt.append(Row(part, name, old, new, tuple(parameters), weights, "; ".join(notes)))
    return Instrument(
        model,
        modules,
        receipt,
        examples=examples,
        steps=steps,
        prior=prior,
        kl_scale=kl_scale,
        warmup=warmup,
        rule=rule,
        threshold=threshold,
    )
