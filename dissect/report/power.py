"""How small a difference can be and still be seen: by the interval over test sessions, and by the t-test across seeds.

Both answer for a difference that is really there: it is found by a two-sided test at `level` with probability `power`.
They rest on the spread that the runs show, never on the difference that they show: the power to find that one would be
its p-value in other words (Hoenig & Heisey, The American Statistician 55, 2001).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dissect.report.statistics import Floats, t_test

#: Chance to see the difference, and size of the two-sided test.
POWER, LEVEL = 0.8, 0.05


def least_visible(error: ArrayLike, power: float = POWER, level: float = LEVEL) -> Floats:
    """The smallest difference that an estimate with this standard error shows to be one.

    Parameters
    ----------
    error : array, (M,)
        Standard errors, such as `dissect.report.statistics.Interval.error`.
    power, level : float
        Chance that the interval of ``1 - level`` leaves out 0.

    Returns
    -------
    array, (M,)
        ``(z(1 - level / 2) + z(power)) error``, 2.80 standard errors by default (Bloom, Evaluation Review 19, 1995);
        NaN where the error is NaN or 0: runs that agree on every example say nothing of others.
    """
    from scipy import stats

    normal: Any = stats.norm
    errors = np.asarray(error, np.float64)
    return np.where(errors > 0, (normal.ppf(1 - level / 2) + normal.ppf(power)) * errors, np.nan)


def least_visible_across_seeds(
    a: ArrayLike, b: ArrayLike, paired: bool, power: float = POWER, level: float = LEVEL
) -> float:
    """The smallest difference of means over seeds that `t_test` finds, if seeds spread as these do.

    Parameters
    ----------
    a, b : array, (seeds,)
    paired : bool
        As for `dissect.report.statistics.t_test`.
    power, level : float

    Returns
    -------
    float
        Standard error times the noncentrality at which the noncentral t distribution exceeds the test's critical value
        with chance `power` (Cohen, Statistical Power Analysis, 1988, chapter 2); Welch's degrees of freedom without
        pairs. NaN where `t_test` is NaN.
    """
    if math.isnan(t_test(a, b, paired)):
        return float("nan")
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if paired:
        free, error = len(x) - 1.0, float((x - y).std(ddof=1)) / math.sqrt(len(x))
    else:
        parts = [float(v.var(ddof=1)) / len(v) for v in (x, y)]
        free = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (x, y), strict=True))
        error = math.sqrt(sum(parts))
    return error * _noncentrality(free, power, level)


def _noncentrality(free: float, power: float, level: float) -> float:
    from scipy import optimize, stats

    bound = float(stats.t.ppf(1 - level / 2, free))
    noncentral: Any = stats.nct

    def excess(shift: float) -> float:
        return float(noncentral.sf(bound, free, shift)) - power  # a result beyond the other end is as good as excluded

    # With one degree of freedom 12.7 is critical and the answer 16.3; both fall with more of them.
    found: Any = optimize.brentq(excess, 0, 2 * bound + 2)
    return float(found)
