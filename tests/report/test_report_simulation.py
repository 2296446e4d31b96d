"""Runs simulated with a known difference: intervals cover it as often as they say, tests err as often as they say."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats as scipy_stats

from dissect.report.power import least_visible
from dissect.report.statistics import Interval, gains, holm, paired_bootstrap, t_test

stats: Any = scipy_stats  # its stubs know the names of one version only
SESSIONS = 500
#: So few do where the ends are the (R + 1) p-th of them.
RESAMPLES = 199
#: Chance of a hit of either model.
FIRST, SECOND = 0.30, 0.34


class Pair(NamedTuple):
    """Ranks of two models on the same test examples, each (N,), and the examples' sessions."""

    a: np.ndarray
    b: np.ndarray
    session: np.ndarray


def simulate(rng: np.random.Generator, second: float = SECOND) -> Pair:
    """Two models that hit at rank 1 or miss, with the chances `FIRST` and `second`.

    An example is a hit where a standard normal number lies below the chance's quantile, so the difference in HR@20 is
    known. The number is the sum of the session's part, which both models share, of what the model makes of the session,
    and of the example's own; examples of one session are thus alike, and so are their differences.
    """
    sizes = rng.integers(1, 12, SESSIONS)
    session = np.repeat(np.arange(SESSIONS), sizes)
    shared = rng.normal(size=SESSIONS)[session]
    ranks = []
    for chance in (FIRST, second):
        own, rest = rng.normal(size=SESSIONS)[session], rng.normal(size=len(session))
        latent = np.sqrt(0.3) * shared + np.sqrt(0.5) * own + np.sqrt(0.2) * rest
        ranks.append(np.where(latent < stats.norm.ppf(chance), 1.0, 50.0))
    return Pair(ranks[0], ranks[1], session)


def interval(pair: Pair, seed: int, clustered: bool = True) -> Interval:
    lost = (gains(pair.b, "hr@20") - gains(pair.a, "hr@20"))[:, None]
    return paired_bootstrap(lost, pair.session if clustered else np.arange(len(lost)), resamples=RESAMPLES, seed=seed)


def agrees(count: int, trials: int, chance: float) -> bool:
    """Whether `count` of `trials` is within what `chance` gives in all but two of a thousand cases."""
    low, high = stats.binom.ppf([1e-3, 1 - 1e-3], trials, chance)
    return bool(low <= count <= high)


def test_clustered_intervals_cover_the_difference_at_their_level_and_naive_ones_do_not() -> None:
    rng, trials, truth = np.random.default_rng(11), 2000, 100 * (SECOND - FIRST)
    few, covered, naive, wider, errors, estimates = 200, 0, 0, 0, [], []  # for the naive ones few trials are enough
    for number in range(trials):
        pair = simulate(rng)
        right = interval(pair, number)
        covered += int(right.low[0] <= truth <= right.high[0])
        errors.append(right.error[0])
        estimates.append(right.estimate[0])
        if number >= few:
            continue
        wrong = interval(pair, number, clustered=False)
        naive += int(wrong.low[0] <= truth <= wrong.high[0])
        wider += int(right.high[0] - right.low[0] > wrong.high[0] - wrong.low[0])
    assert agrees(covered, trials, 0.95), covered
    assert stats.binom.cdf(naive, few, 0.95) < 1e-9, naive
    assert wider == few
    # The estimates centre on the truth and spread as their standard errors say.
    assert abs(np.mean(estimates) - truth) < 3 * np.std(estimates) / np.sqrt(trials)
    assert np.mean(errors) == pytest.approx(np.std(estimates, ddof=1), rel=0.06)  # sd of an sd: 1 / sqrt(4000) = 1.6%


def test_where_sessions_do_not_repeat_both_intervals_are_the_same() -> None:
    pair = simulate(np.random.default_rng(0))
    once = np.unique(pair.session, return_index=True)[1]
    alone = Pair(pair.a[once], pair.b[once], pair.session[once])
    for right, wrong in zip(interval(alone, 1), interval(alone, 1, clustered=False), strict=True):
        np.testing.assert_allclose(right, wrong)


def test_the_smallest_visible_difference_is_seen_four_times_in_five() -> None:
    """What one test set says can be seen is then there, in others like it, or is not."""
    rng, trials = np.random.default_rng(7), 400
    least = float(least_visible(np.mean([interval(simulate(rng), n).error for n in range(30)], axis=0))[0])
    seen, false = 0, 0
    for number in range(trials):
        there = interval(simulate(rng, FIRST + least / 100), number)
        absent = interval(simulate(rng, FIRST), number)
        seen += int(there.low[0] > 0)
        false += int(not absent.low[0] <= 0 <= absent.high[0])
    assert agrees(seen, trials, 0.8), seen
    assert agrees(false, trials, 0.05), false


def test_the_t_test_across_seeds_errs_one_time_in_twenty() -> None:
    rng, trials = np.random.default_rng(2), 1000
    for paired, counts in ((True, (5, 5)), (False, (5, 8))):
        wrong = 0
        for _ in range(trials):
            data = rng.normal()  # what a test set adds to every seed of both models
            a, b = (50 + data + rng.normal(size=n) for n in counts)
            wrong += int(t_test(a, b, paired) < 0.05)
        assert agrees(wrong, trials, 0.05), (paired, wrong)


def test_holm_keeps_any_false_finding_to_one_time_in_twenty() -> None:
    """Four rows against one baseline, so that the tests share its seeds, none of them different."""
    rng, trials, any_raw, any_holm = np.random.default_rng(4), 600, 0, 0
    for _ in range(trials):
        base, *rows = rng.normal(size=(5, 5))
        p = np.array([t_test(row, base, paired=True) for row in rows])
        any_raw += int((p < 0.05).any())
        any_holm += int((holm(p) < 0.05).any())
    assert stats.binom.sf(any_raw - 1, trials, 0.05) < 1e-6, any_raw  # without it there are more
    assert any_holm <= stats.binom.ppf(1 - 1e-3, trials, 0.05), any_holm


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_bonferroni_s_closed_test(seed: int) -> None:
    """An adjusted p is the largest Bonferroni p of all sets of hypotheses that hold it (Marcus et al. 1976)."""
    p = np.random.default_rng(seed).uniform(0, 0.2, 5)
    sets = [s for n in range(1, 6) for s in itertools.combinations(range(5), n)]
    expected = [max(min(1.0, len(s) * p[list(s)].min()) for s in sets if i in s) for i in range(5)]
    np.testing.assert_allclose(holm(p), expected)
