"""Statistics of a comparison: gains of single examples, intervals over sessions, tests across seeds, bounds of tables.

Two kinds of chance are kept apart. Which sessions happened to fall into the test set: `paired_bootstrap`, given the
trained models. Which seed happened to be drawn: `t_test`, given the test set. Neither covers the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dissect.errors import DissectError

Floats = NDArray[np.float64]

_METRIC = re.compile(r"(hr|mrr|ndcg)@([1-9][0-9]{0,8})")
#: Counts of drawn clusters held at a time: 16 MB.
_BLOCK = 1 << 21
#: Differences that spread by less than this share of the values are equal but for rounding in float arithmetic.
_EQUAL = 1e-9


class Interval(NamedTuple):
    """An estimate, the ends of its interval, and its standard error, each of shape (M,)."""

    estimate: Floats
    low: Floats
    high: Floats
    error: Floats


def parse_metric(metric: str) -> tuple[str, int]:
    """``"hr@20"`` -> ``("hr", 20)``.

    Raises
    ------
    DissectError
        If it is not hr@K, mrr@K or ndcg@K with a whole K of at least 1.
    """
    found = _METRIC.fullmatch(metric)
    if not found:
        raise DissectError(f"no metric {metric!r}; valid: hr@K, mrr@K, ndcg@K with a whole K >= 1, such as hr@20")
    return found[1], int(found[2])


def gains(ranks: ArrayLike, metric: str) -> Floats:
    """What each example adds to a metric, in percent; the metric is their mean.

    Parameters
    ----------
    ranks : array, (N,)
        From 1; may be half-integers (ties) and infinite (a miss).
    metric : str
        ``hr@K``, ``mrr@K`` or ``ndcg@K``; with one relevant item NDCG@K is 1 / log2(1 + rank) within the first K.

    Returns
    -------
    array, (N,) float64

    Raises
    ------
    DissectError
        If there is no such metric.
    """
    name, k = parse_metric(metric)
    rank = np.asarray(ranks, np.float64)
    if name == "hr":
        gain = np.ones_like(rank)
    else:
        gain = 1 / rank if name == "mrr" else 1 / np.log2(1 + rank)
    return 100 * np.where(rank <= k, gain, 0.0)


def cluster_sums(values: NDArray[Any], clusters: NDArray[Any]) -> tuple[Floats, Floats]:
    """Sums of `values` (N, M) within each cluster, (C, M), and the clusters' sizes, (C,); in the order of their ids."""
    inverse = np.unique(clusters, return_inverse=True)[1].ravel()
    sums = [np.bincount(inverse, weights=column) for column in np.asarray(values, np.float64).T]
    return np.asarray(np.stack(sums, axis=1), np.float64), np.bincount(inverse).astype(np.float64)


def bootstrap_of_sums(
    sums: Floats, sizes: Floats, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """`paired_bootstrap` from the clusters' sums (C, M) and sizes (C,); all columns see the same draws."""
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} must lie in (0, 1) and resamples {resamples} be at least 1")
    count = len(sizes)
    estimate = sums.sum(0) / sizes.sum()
    if count < 2:  # one session resampled is that session: no spread to speak of
        nothing = np.full_like(estimate, np.nan)
        return Interval(estimate, nothing, nothing, nothing)
    rng = np.random.default_rng(seed)
    both = np.column_stack([sums, sizes])
    drawn = np.empty((resamples, sums.shape[1]))
    step = max(1, _BLOCK // count)
    for i in range(0, resamples, step):
        rows = min(step, resamples - i)
        # How often each cluster is drawn; one product with the counts then serves every column.
        draws = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count)
        total = times.astype(np.float64) @ both  # (rows, M + 1)
        drawn[i : i + rows] = total[:, :-1] / total[:, -1:]
    # Ends at the (R + 1) p-th of R resamples (Davison & Hinkley, section 5.2.1): else few of them give short intervals.
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
    return Interval(estimate, low, high, drawn.std(0, ddof=1) if resamples > 1 else np.full_like(estimate, np.nan))


def differences(
    found: Any, base: Any, clusters: Any, metrics: Sequence[str], resamples: int = 2000
) -> dict[str, tuple[float, float, float]]:
    """What ranks gain over other ranks of the same examples, by metric: estimate, low and high end, in points.

    Parameters
    ----------
    found, base : array, (N,)
        Ranks.
    clusters : array, (N,)
        The session of each example.
    metrics : sequence of str
        As for `gains`.
    resamples : int
        Of the sessions; see `paired_bootstrap`.
    """
    gained = np.column_stack([gains(found, metric) - gains(base, metric) for metric in metrics])
    drawn = paired_bootstrap(gained, clusters, resamples)
    return {m: (float(drawn.estimate[i]), float(drawn.low[i]), float(drawn.high[i])) for i, m in enumerate(metrics)}


def paired_bootstrap(
    difference: ArrayLike, clusters: ArrayLike, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean difference per example, with a percentile interval over resampled sessions.

    Examples of one session are prefixes of each other, so whole sessions are drawn with replacement; a resample's
    value is the ratio of two sums, of differences and of examples, since sessions differ in length (Davison & Hinkley,
    Bootstrap Methods and their Application, 1997, sections 2.4 and 3.8).

    Parameters
    ----------
    difference : array, (N, M)
        Per example, one model's gain minus the other's; a column for each thing compared.
    clusters : array, (N,)
        The session of each example.
    resamples : int
    level : float
        Of the interval.
    seed : int
        Of the draws; the same seed gives the same interval.

    Returns
    -------
    Interval
        Arrays (M,), in the units of `difference`; ends and standard error (the standard deviation of the resamples) are
        NaN where there is one session only.

    Raises
    ------
    ValueError
        If shapes don't agree or there are no examples.
    """
    values, ids = np.asarray(difference, np.float64), np.asarray(clusters)
    if values.ndim != 2 or ids.shape != values.shape[:1] or not len(ids):
        raise ValueError(f"difference {values.shape} must be (N, M) and clusters {ids.shape} be (N,), N at least 1")
    return bootstrap_of_sums(*cluster_sums(values, ids), resamples, level, seed)


def t_test(a: ArrayLike, b: ArrayLike, paired: bool) -> float:
    """Two-sided p that the means over seeds are equal.

    Parameters
    ----------
    a, b : array, (seeds,)
        One value for each seed; in the same order of the same seeds where `paired`.
    paired : bool
        Student's test of the differences, as in the paper; else Welch's of two samples.

    Returns
    -------
    float
        NaN with fewer than two seeds on a side. NaN too where nothing varies (all differences equal, or under Welch
        all values of each side): the statistic is then 0/0 or infinite, and equal runs prove nothing about seeds.

    Raises
    ------
    ValueError
        If `paired` and there are not as many values on each side.
    """
    from scipy import stats

    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if paired and x.shape != y.shape:
        raise ValueError(f"a paired test of {len(x)} and {len(y)} values")
    if min(len(x), len(y)) < 2:
        return float("nan")
    scale = _EQUAL * max(float(np.abs(x).max()), float(np.abs(y).max()))
    if (np.ptp(x - y) if paired else max(np.ptp(x), np.ptp(y))) <= scale:
        return float("nan")
    if paired:
        test: Any = stats.ttest_rel(x, y)
    else:  # from means and deviations: from values scipy warns where one side alone doesn't vary, which is no fault
        one, other = ((v.mean(), v.std(ddof=1), len(v)) for v in (x, y))
        test = stats.ttest_ind_from_stats(*one, *other, equal_var=False)
    return float(test.pvalue)


def holm(p: ArrayLike) -> Floats:
    """Holm's adjusted p-values, in the order given.

    The i-th smallest of m is multiplied by m - i + 1, is at least the one before it and at most 1 (Holm 1979). NaN
    stays NaN and is not counted: no test was made.
    """
    values = np.asarray(p, np.float64)
    out = np.full(values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return out


def improvement(new: float, old: float) -> float:
    """By how many percent of `old` the new value is above it, as in the paper's Table 3; NaN where `old` is 0."""
    return 100 * (new - old) / old if old else float("nan")


def bound_violations(values: Mapping[str, float], rounding: float = 0.005, half_ranks: bool = False) -> list[str]:
    """Where HR and MRR at several cutoffs can't come from one list of ranks.

    A rank in (K1, K2] adds between 1/K2 and 1/(K1 + 1) to MRR for each unit that it adds to HR, so
    ``(HR@K2 - HR@K1) / K2 <= MRR@K2 - MRR@K1 <= (HR@K2 - HR@K1) / (K1 + 1)``. K1 = 0, where both are 0, is a cutoff
    too: HR@K / K <= MRR@K <= HR@K.

    Parameters
    ----------
    values : mapping
        ``{"hr@5": ..., "mrr@5": ...}`` in percent; a cutoff counts where both are there, other entries don't.
    rounding : float
        How far each value may be from the unrounded one: 0.005 for two decimals. Each difference of two printed
        values is then within 2 roundings, that of HR divided as HR is: the slack is 2 r (1 + 1/K2) below and
        2 r (1 + 1/(K1 + 1)) above, half of it where K1 = 0.
    half_ranks : bool
        Ties counted half allow a rank of K1 + 1/2, and 1/(K1 + 1/2) above.

    Returns
    -------
    list of str
        One line for each violation. Bounds of a wide pair of cutoffs follow from those of the pairs inside it, so a
        wide one is reported only where no pair inside it fails in the same way.
    """
    known = {k for name, k in map(parse_metric, values) if f"hr@{k}" in values and f"mrr@{k}" in values}
    cutoffs = [0, *sorted(known)]
    found: list[tuple[str, int, int]] = []
    lines = []
    pairs = [(i, i + width) for width in range(1, len(cutoffs)) for i in range(len(cutoffs) - width)]
    for i, j in pairs:
        k1, k2 = cutoffs[i], cutoffs[j]
        hr, mrr = (_rise(values, name, k1, k2) for name in ("hr", "mrr"))
        first = k1 + 0.5 if half_ranks and k1 else k1 + 1
        error = rounding * (2 if k1 else 1)
        for side, divisor, excess in (("below", k2, hr / k2 - mrr), ("above", first, mrr - hr / first)):
            inside = any(side == other and i <= a and b <= j for other, a, b in found)
            if excess > error * (1 + 1 / divisor) + 1e-9 and not inside:
                found.append((side, i, j))
                left, right = (f"{m}@{k2} - {m}@{k1}" if k1 else f"{m}@{k2}" for m in ("MRR", "HR"))
                lines.append(f"{left} = {mrr:.2f} is {side} ({right}) / {divisor:g} = {hr / divisor:.2f}")
    return lines


def _rise(values: Mapping[str, float], name: str, k1: int, k2: int) -> float:
    return values[f"{name}@{k2}"] - (values[f"{name}@{k1}"] if k1 else 0.0)
