"""Wrapping the chosen parts of a model by name, in place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from dissect.errors import DissectError
from dissect.sparsity.density import get_rule
from dissect.sparsity.instrument import Instrument
from dissect.sparsity.layers import to_variational
from dissect.sparsity.noise import check_noise
from dissect.sparsity.parts import ALIASES, Parts, resolve_parts
from dissect.sparsity.penalty import check_prior, warmup_weight
from dissect.sparsity.raw import to_variational_parameter
from dissect.sparsity.receipt import Receipt, Row
from dissect.sparsity.variational import Variational


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
    shadows: int = 0,
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
        Any model with nn.Linear, nn.GRUCell or nn.Conv1d modules, or parameters of its own.
    parts : mapping of str to sequence of str
        Part -> module names or patterns; see `parts.resolve_parts`.
    which : 'all', or name(s) of parts or aliases
    examples : int
        Number of training examples N, after augmentation: the KL is divided by it.
    steps : int
        Planned optimizer steps, for the warm-up.
    noise : {'local', 'row', 'weight'}
        See `noise`. Raw parameters need 'weight'.
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
    shadows : int
        Shadow columns of each wrapped layer, the null that its density is judged against; see
        `Variational.add_shadows`. GRU cells, grouped convolutions and raw parameters have none.
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
    if shadows < 0:
        raise DissectError(f"shadows must be at least 0, got {shadows}")
    check_noise(noise)
    check_prior(prior)
    get_rule(rule, threshold)
    warmup_weight(0, steps, *warmup)
    resolved = resolve_parts(model, parts, which, aliases)
    if not resolved:
        raise DissectError("there are no parts: name the modules or parameters of at least one")
    layers = dict(model.named_modules(remove_duplicate=False))
    raw = [name for names in resolved.values() for name in names if name not in layers]
    if raw and noise != "weight":
        raise DissectError(
            f"parameter {raw[0]!r} is read by its module's own code, where {noise!r} noise can't reach it; use noise "
            f"'weight', or leave it out"
        )
    modules: dict[str, dict[str, Variational]] = {part: {} for part in resolved}
    receipt = Receipt()
    first: dict[int, tuple[str, nn.Parameter]] = {}  # id of a mean -> its first name and its log variance
    for part, names in resolved.items():
        for name in names:
            owner, _, own = name.rpartition(".")
            dense = layers.get(name) or layers[owner]
            old = type(dense).__name__ if name in layers else "Parameter"
            if name in layers:
                module = to_variational(dense, noise, log_sigma2)
                module.named = name
                means = [mean for mean, _ in module.PAIRS]
            else:
                module, means = to_variational_parameter(dense, own, noise, log_sigma2), [own]
            modules[part][name] = module
            weights, parameters, notes = 0, [], []
            for mean, theta, s in [pair for pair in module.pairs() if pair[0] in means]:
                full = name if name not in layers else f"{name}.{mean}" if name else mean
                parameters.append(full)
                if id(theta) in first:  # one weight has one variance, and counts once
                    setattr(module, dict(module.PAIRS)[mean], first[id(theta)][1])
                    notes.append(f"{mean} tied to {first[id(theta)][0]}")
                else:
                    first[id(theta)] = (full, s)
                    weights += theta.numel()
            if shadows:
                added = module.add_shadows(shadows, seed=len(receipt))
                notes.append(f"{len(module.columns)} shadow columns" if added else "no shadow columns")
            new = type(module).__name__ if name in layers else "noisy"
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
