"""Rules by hand, curves against single thresholds, and when a density has settled."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dissect.errors import DissectError
from dissect.sparsity import RULES, keep_mask, kept_curve, moved, settled

THETA = torch.tensor([0.5, -0.5, 0.05, 0.0])
S = torch.tensor([-8.0, 0.0, -8.0, -8.0])


@pytest.mark.parametrize(
    ("rule", "threshold", "kept"),
    [
        ("log-alpha", None, [1, 1, 1, 0]),  # log alpha: -6.6, 1.4, -2.0, 10.4
        ("log-alpha", 0.0, [1, 0, 1, 0]),
        ("magnitude", None, [1, 1, 0, 0]),
        ("signed", None, [1, 0, 0, 0]),
        ("snr", None, [1, 0, 1, 0]),  # sigma: 0.018, 1, 0.018, 0.018
    ],
)
def test_rules_by_hand(rule: str, threshold: float | None, kept: list[int]):
    assert keep_mask(THETA, S, rule, threshold).int().tolist() == kept


def test_unknown_rule_lists_the_choices():
    with pytest.raises(DissectError, match="log-alpha, magnitude, signed, snr"):
        keep_mask(THETA, S, "l0")


@given(
    st.sampled_from(list(RULES)),
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8),
    st.integers(0, 9),
)
def test_curve_equals_single_thresholds(rule: str, thresholds: list[float], seed: int):
    generator = torch.Generator().manual_seed(seed)
    theta, s = torch.randn(20, generator=generator), torch.randn(20, generator=generator) * 3
    theta[:3] = theta[3]  # ties
    grid, kept = kept_curve(theta, s, rule, thresholds)
    assert grid == thresholds
    assert kept == [int(keep_mask(theta, s, rule, t).sum()) for t in thresholds]


def falling(until: float, step: float = 0.5) -> list[tuple[float, float | None]]:
    """Density 1 - budget / 10 until a budget, level from there to budget 10."""
    budgets = [k * step for k in range(int(10 / step) + 1)]
    return [(b, 1 - min(b, until) / 10) for b in budgets]


def test_settled_needs_three_level_nats_after_warmup():
    assert settled(falling(6.0), 10.0, 4.0)
    assert not settled(falling(8.0), 10.0, 4.0)
    assert settled(falling(8.0), 10.0, 4.0, tolerance=0.2)
    assert settled(falling(8.0), 10.0, 4.0, nats=1.0)
    assert not settled(falling(2.0), 10.0, 8.0)  # only two nats after the warm-up
    assert settled(falling(2.0), 10.0, 7.0)
    assert not settled([], 10.0, 0.0)
    assert not settled([(10.0, 0.5)], 10.0, 0.0)
    assert not settled([(b, None) for b, _ in falling(2.0)], 10.0, 0.0)


def test_settled_counts_the_record_before_the_window():
    # Between 6 and 9 the density fell, though both later records agree.
    assert not settled([(5.0, 0.9), (6.0, 0.9), (9.0, 0.5), (10.0, 0.5)], 10.0, 0.0)


def test_moved_is_the_change_over_the_last_quarter():
    history = falling(9.0)  # 0.25 at budget 7.5, 0.1 from 9 on
    assert moved(history, 10.0) == pytest.approx(0.1 - 0.25)
    assert moved(history, 10.0, share=0.1) == pytest.approx(0.0)
    assert moved(list(reversed(history)), 10.0) == pytest.approx(-0.15)  # in any order
    slow = [(b, 1 - b / 1000) for b, _ in history]
    assert settled(slow, 10.0, 4.0)
    assert moved(slow, 10.0) == pytest.approx(-0.0025)  # what `settled` lets pass
    assert moved([(9.0, 0.5), (10.0, 0.4)], 10.0) is None  # nothing from before the last quarter
    assert moved([(b, None) for b, _ in history], 10.0) is None
    assert moved([(0.0, 0.9)], 0.0) is None
