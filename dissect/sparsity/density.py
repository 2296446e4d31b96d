"""Which weights count as kept: four named rules, their thresholds, and whether a density still moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dissect.errors import DissectError
from dissect.sparsity.penalty import log_alpha

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """A score per weight, and the side of a threshold on which a weight is kept (strictly)."""

    score: Score
    threshold: float
    """The default threshold."""
    below: bool
    """Kept where score < threshold if true, where score > threshold if false."""
    grid: tuple[float, ...]
    """Default thresholds of a curve."""


_POWERS = tuple(10.0 ** (k / 4) for k in range(-16, 9))
RULES: dict[str, Rule] = {
    # Molchanov et al. 2017 (arXiv 1701.05369), Section 4: dropout rate alpha / (1 + alpha) above 0.95.
    "log-alpha": Rule(log_alpha, 3.0, True, tuple(k / 2 for k in range(-20, 21))),
    "magnitude": Rule(lambda theta, s: theta.abs(), 0.1, False, (0.0, *_POWERS)),
    # Eq. 3 of the paper as printed: every negative weight is dropped.
    "signed": Rule(lambda theta, s: theta, 0.1, False, (0.0, *_POWERS)),
    # A mean one standard deviation from zero, which is log alpha < 0: stricter than log alpha < 3 (snr
    # 0.223).
    "snr": Rule(lambda theta, s: theta.abs() * torch.exp(-0.5 * s), 1.0, False, (0.0, *_POWERS)),
}


def get_rule(rule: str, threshold: float | None = None) -> tuple[Rule, float]:
    """The rule of that name and the threshold to use with it.

    Raises
    ------
    DissectError
        If there is no rule of that name, with the choices; if the threshold is not finite.
    """
    if rule not in RULES:
        raise DissectError(f"unknown rule {rule!r}; choose from {', '.join(RULES)}")
    found = RULES[rule]
    limit = found.threshold if threshold is None else float(threshold)
    if not math.isfinite(limit):  # nothing is above or below nan: every weight would be dropped
        raise DissectError(f"the threshold of rule {rule!r} is {limit}; it must be a finite number")
    return found, limit


@torch.no_grad()
def keep_mask(theta: Tensor, s: Tensor, rule: str = "log-alpha", threshold: float | None = None) -> Tensor:
    """True where a weight is kept.

    Parameters
    ----------
    theta, s : Tensor, any common shape
        Means and log variances.
    rule : {'log-alpha', 'magnitude', 'signed', 'snr'}
        log alpha < t (3), abs(theta) > t (0.1), theta > t (0.1), abs(theta) / sigma > t (1.0).
    threshold : float, optional
        t; the figure in brackets where it is left out.

    Returns
    -------
    Tensor of bool, same shape
    """
    found, limit = get_rule(rule, threshold)
    score = found.score(theta, s)
    return score < limit if found.below else score > limit


@torch.no_grad()
def kept_curve(
    theta: Tensor, s: Tensor, rule: str = "log-alpha", thresholds: Sequence[float] | None = None
) -> tuple[list[float], list[int]]:
    """Kept weights at each of many thresholds: (thresholds, counts). Counts match `keep_mask` exactly."""
    found, _ = get_rule(rule)
    grid = list(found.grid if thresholds is None else thresholds)
    score = found.score(theta, s).flatten().sort().values
    limits = torch.tensor(grid, dtype=score.dtype, device=score.device)
    if found.below:
        kept = torch.searchsorted(score, limits, right=False)
    else:
        kept = score.numel() - torch.searchsorted(score, limits, right=True)
    return grid, [int(k) for k in kept]


def settled(
    history: Sequence[tuple[float, float | None]],
    lr_budget: float,
    warmup_end_budget: float,
    nats: float = 3.0,
    tolerance: float = 0.01,
) -> bool:
    """Whether a density has come to rest: it moved by less than `tolerance` over the last `nats` of budget.

    Adam moves s by at most about its learning rate per step, so the sum of that learning rate (the budget, in
    nats) bounds how far log alpha can have come; steps or epochs say nothing by themselves.

    Parameters
    ----------
    history : sequence of (lr_budget, density)
        In any order. Density is kept / total, None where a part has no weights.
    lr_budget : float
        Sum of the learning rate of s so far, in nats.
    warmup_end_budget : float
        The same sum at the end of the warm-up of the KL weight.

    Returns
    -------
    bool
        False also where the record doesn't yet span `nats` of budget after the warm-up.
    """
    slack = 1e-9 * max(1.0, abs(lr_budget))  # budgets are sums of floats
    start = lr_budget - nats
    record = sorted((b, d) for b, d in history if d is not None and warmup_end_budget - slack <= b <= lr_budget + slack)
    before = [i for i, (b, _) in enumerate(record) if b <= start + slack]
    if start < warmup_end_budget - slack or not before or before[-1] == len(record) - 1:
        return False
    window = [d for _, d in record[before[-1] :]]
    return max(window) - min(window) < tolerance


def moved(history: Sequence[tuple[float, float | None]], lr_budget: float, share: float = 0.25) -> float | None:
    """What a density changed by over the last `share` of the budget.

    `settled` looks at the last few nats; a part may pass it and still empty slowly, as its means move.

    Parameters
    ----------
    history : sequence of (lr_budget, density)
        As `settled` takes it.
    lr_budget : float
        Sum of the learning rate of s so far, in nats.
    share : float, in (0, 1)

    Returns
    -------
    float or None
        The last density less the last one recorded before that share began; None without either.
    """
    record = sorted((b, d) for b, d in history if d is not None)
    before = [d for b, d in record if b <= (1 - share) * lr_budget * (1 + 1e-9)]
    return record[-1][1] - before[-1] if before and lr_budget > 0 else None
