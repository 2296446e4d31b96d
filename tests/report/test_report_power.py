"""How small a difference can be seen: against published values, against simulation, and as a sentence of the table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dissect.report.power import least_visible, least_visible_across_seeds
from dissect.report.statistics import t_test


def test_of_a_normal_estimate_it_is_2_80_standard_errors() -> None:
    # Bloom (1995): 2.80 for 80% power at 5% two-sided, 2.49 at 5% one-sided (which is 10% two-sided).
    np.testing.assert_allclose(least_visible([1.0, 10.0]), [2.80, 28.0], atol=0.02)
    assert least_visible([1.0], level=0.1)[0] == pytest.approx(2.49, abs=0.005)
    assert np.isnan(least_visible([0.0, np.nan])).all()


@pytest.mark.parametrize(("pairs", "size"), [(10, 0.996), (20, 0.660), (34, 0.495)])
def test_of_pairs_it_is_cohen_s(pairs: int, size: float) -> None:
    """Effect sizes d of a paired t-test with 80% power at 5% two-sided, as G*Power and statsmodels give them."""
    b = np.zeros(pairs)
    a = np.arange(pairs) - (pairs - 1) / 2
    found = least_visible_across_seeds(a + 7, b, paired=True)
    assert found == pytest.approx(size * a.std(ddof=1), rel=2e-3)


@pytest.mark.parametrize(("counts", "paired"), [((3, 3), True), ((5, 5), True), ((3, 5), False)])
def test_the_t_test_finds_it_four_times_in_five(counts: tuple[int, int], paired: bool) -> None:
    """Where seeds spread as they are said to: a standard deviation of 1 on each side, of pairs on one side alone."""
    rng = np.random.default_rng(3)
    one, other = (stats.norm.ppf((np.arange(n) + 0.5) / n) for n in counts)
    spread = 0.0 if paired else 1.0
    one, other = one / one.std(ddof=1), spread * other / other.std(ddof=1)
    least = least_visible_across_seeds(one, other, paired)
    trials = 600
    found = 0
    for _ in range(trials):
        a, b = rng.normal(size=counts[0]), spread * rng.normal(size=counts[1])
        found += int(t_test(a + least, b, paired) < 0.05)
    assert stats.binom.cdf(found, trials, 0.8) > 1e-3
    assert stats.binom.sf(found - 1, trials, 0.8) > 1e-3


def test_nothing_is_said_where_no_test_is_made() -> None:
    assert np.isnan(least_visible_across_seeds([1.0], [2.0], paired=True))
    assert np.isnan(least_visible_across_seeds([1.0, 2.0], [2.0, 3.0], paired=True))
