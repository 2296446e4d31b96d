"""Intervals cover what they claim, tests agree with scipy, and bounds find what can't be true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from dissect.errors import DissectError
from dissect.report.statistics import (
    bootstrap_of_sums,
    bound_violations,
    cluster_sums,
    gains,
    holm,
    improvement,
    paired_bootstrap,
    t_test,
)  # fmt: skip
from dissect.training.evaluate import metrics

stats: Any = scipy_stats  # its stubs know the names of one version only
PUBLISHED = Path(__file__).resolve().parents[2] / "analyses" / "published" / "atten_mixer_wsdm23.json"


def test_gains_by_hand() -> None:
    ranks = [1, 1.5, 4, 5, 5.5, np.inf]
    assert gains(ranks, "hr@5").tolist() == [100, 100, 100, 100, 0, 0]
    np.testing.assert_allclose(gains(ranks, "mrr@5"), [100, 200 / 3, 25, 20, 0, 0])
    np.testing.assert_allclose(gains([1, 3, 7, 8], "ndcg@7"), [100, 50, 100 / 3, 0])


def test_gains_agree_with_the_evaluator() -> None:
    rng = np.random.default_rng(0)
    ranks = (rng.integers(2, 80, 500) / 2).astype(np.float32)
    ranks[::17] = np.inf
    for name, value in metrics(ranks).items():
        assert gains(ranks, name).mean() == pytest.approx(value, abs=5.1e-5)


@pytest.mark.parametrize("metric", ["hr", "hr@0", "HR@20", "hr@2.5", "recall@20", "hr@-1", ""])
def test_an_unknown_metric_lists_the_choices(metric: str) -> None:
    with pytest.raises(DissectError, match=r"valid: hr@K, mrr@K, ndcg@K"):
        gains([1.0], metric)


def test_cluster_sums_by_hand() -> None:
    sums, sizes = cluster_sums(np.array([[1.0, 10], [2, 20], [4, 40]]), np.array([7, 3, 7]))
    assert sums.tolist() == [[2, 20], [5, 50]]  # in the order of the ids 3, 7
    assert sizes.tolist() == [1, 2]


def test_bootstrap_of_two_sessions_is_worked_out() -> None:
    # Sessions of 1 and 3 examples with sums 0 and 6: a resample is (A, A), (A, B) in two orders, or (B, B), with
    # values 0, 6/4 and 12/6 at chances 1/4, 1/2, 1/4. The estimate is the mean per example, not per session.
    values, sessions = np.array([[0.0], [1], [2], [3]]), np.array([0, 1, 1, 1])
    found = paired_bootstrap(values, sessions, resamples=4000, level=0.9)
    assert [float(part[0]) for part in found[:3]] == [1.5, 0, 2]
    # Variance of 0, 1.5, 1.5, 2 with those chances: (0 + 2 x 2.25 + 4) / 4 - 1.25^2.
    assert found.error[0] == pytest.approx((8.5 / 4 - 1.25**2) ** 0.5, rel=0.03)
    middle = paired_bootstrap(values, sessions, resamples=4000, level=0.4)  # the quantiles 0.3 and 0.7
    assert [float(part[0]) for part in middle[:3]] == [1.5, 1.5, 1.5]


def test_bootstrap_agrees_with_scipy_where_sessions_are_single() -> None:
    x = np.random.default_rng(1).exponential(size=200)
    ours = paired_bootstrap(x[:, None], np.arange(200), resamples=20_000, seed=3)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", random_state=2).confidence_interval
    assert ours.low[0] == pytest.approx(theirs.low, abs=0.01)
    assert ours.high[0] == pytest.approx(theirs.high, abs=0.01)


def sessions_of(rng: np.random.Generator, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Differences with mean 1 whose examples share their session's part, and the sessions; longer ones differ more."""
    sizes = rng.integers(1, 9, count)
    clusters = np.repeat(np.arange(count), sizes)
    own = rng.normal(size=count)[clusters]
    return (1 + own + 0.5 * rng.normal(size=len(clusters)))[:, None], clusters


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered, naive, narrower = 0, 0, 0
    for number in range(300):
        values, clusters = sessions_of(rng)
        right = paired_bootstrap(values, clusters, resamples=400, seed=number)
        wrong = paired_bootstrap(values, np.arange(len(values)), resamples=400, seed=number)
        covered += int(right.low[0] <= 1 <= right.high[0])
        naive += int(wrong.low[0] <= 1 <= wrong.high[0])
        narrower += int(wrong.high[0] - wrong.low[0] < right.high[0] - right.low[0])
    # 300 trials at 0.95 have a standard deviation of 1.3%; three of them, and the percentile's own shortfall of about
    # one per cent with 120 sessions.
    assert 0.90 < covered / 300 < 0.99
    assert naive / 300 < 0.80
    assert narrower == 300


def test_columns_share_their_draws_and_their_blocks() -> None:
    rng = np.random.default_rng(0)
    values, clusters = sessions_of(rng)
    both = paired_bootstrap(np.column_stack([values, 2 * values, 0 * values]), clusters, resamples=500)
    alone = paired_bootstrap(values, clusters, resamples=500)
    assert both.low[0] == pytest.approx(alone.low[0])
    assert both.high[1] == pytest.approx(2 * alone.high[0])
    assert [float(part[2]) for part in both] == [0, 0, 0, 0]
    assert paired_bootstrap(values, clusters, resamples=500, seed=1).low[0] != alone.low[0]


def test_blocks_are_of_whole_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    from dissect.report import statistics

    values, clusters = sessions_of(np.random.default_rng(0))
    whole = paired_bootstrap(values, clusters, resamples=101)
    monkeypatch.setattr(statistics, "_BLOCK", 250)  # two resamples of 120 sessions at a time, and one at the end
    parts = paired_bootstrap(values, clusters, resamples=101)
    assert [float(p[0]) for p in parts] == pytest.approx([float(p[0]) for p in whole])


def test_one_session_has_no_interval_and_shapes_must_agree() -> None:
    found = paired_bootstrap(np.ones((3, 1)), np.zeros(3))
    assert found.estimate[0] == 1
    assert np.isnan([found.low[0], found.high[0], found.error[0]]).all()
    for difference, clusters in ((np.ones(3), np.ones(3)), (np.ones((3, 1)), np.ones(2)), (np.ones((0, 1)), [])):
        with pytest.raises(ValueError, match=r"must be \(N, M\)"):
            paired_bootstrap(difference, clusters)
    with pytest.raises(ValueError, match="level"):
        bootstrap_of_sums(np.ones((2, 1)), np.ones(2), level=1.0)


def test_t_test_by_hand_and_by_scipy() -> None:
    a, b = np.array([3.0, 5, 7]), np.array([1.0, 4, 4])
    # Differences 2, 1, 3: mean 2, sd 1, t = 2 sqrt(3) with 2 degrees of freedom; then p = 1 - t / sqrt(2 + t^2).
    assert t_test(a, b, paired=True) == pytest.approx(1 - 2 * 3**0.5 / 14**0.5)
    # Welch: variances 4 and 3 of 3 values each: t = 2 / sqrt(7/3), df = (7/3)^2 / ((4/3)^2 / 2 + 1 / 2).
    t, df = 2 / (7 / 3) ** 0.5, (7 / 3) ** 2 / ((4 / 3) ** 2 / 2 + 1 / 2)
    assert t_test(a, b, paired=False) == pytest.approx(2 * stats.t.sf(t, df))
    assert t_test(a, b[:2], paired=False) == pytest.approx(float(stats.ttest_ind(a, b[:2], equal_var=False).pvalue))


@pytest.mark.parametrize(
    ("a", "b", "paired"),
    [
        ([1.0], [2.0], True),
        ([1.0, 2.0], [2.0], False),
        ([1.1, 2.1, 3.1], [1.0, 2.0, 3.0], True),  # differences of 0.1, but for rounding
        ([5.0, 5.0], [5.0, 5.0], True),
        ([5.0, 5.0], [6.0, 6.0], False),
    ],
)
def test_no_p_where_nothing_can_be_said(a: list[float], b: list[float], paired: bool) -> None:
    assert np.isnan(t_test(a, b, paired))


def test_pairs_need_partners() -> None:
    with pytest.raises(ValueError, match="paired test of 3 and 2"):
        t_test([1, 2, 3], [1, 2], paired=True)


def test_holm_by_hand() -> None:
    # Sorted 0.01 x 4, 0.015 x 3, 0.03 x 2 and 0.04 x 1, none below the one before it.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.015]), [0.04, 0.06, 0.06, 0.045])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])  # NaN is no test
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert np.isnan(holm([np.nan])).all()
    assert not len(holm([]))


def test_improvement_is_table_3s() -> None:
    for model in json.loads(PUBLISHED.read_text())["table3"].values():
        for row in model.values():
            for metric, printed in row["improvement"].items():
                new, old = row["with"][metric], row["without"][metric]
                # Both numbers are rounded to 0.005, and so is the result; 10.3% has one decimal only.
                slack = 100 * 0.005 * (1 / old + new / old**2) + (
                    0.05 if 10 * printed == round(10 * printed) else 0.005
                )
                assert improvement(new, old) == pytest.approx(printed, abs=slack)
    assert np.isnan(improvement(1, 0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 40), st.just(np.inf)), min_size=1, max_size=30), st.booleans())
def test_true_ranks_never_break_the_bounds(ranks: list[float], ties: bool) -> None:
    array = np.array(ranks) + 0.5 * ties
    names = [f"{m}@{k}" for m in ("hr", "mrr") for k in (1, 3, 5, 10, 20)]
    exact = {name: float(gains(array, name).mean()) for name in names}
    assert not bound_violations(exact, rounding=0, half_ranks=ties)
    assert not bound_violations({k: round(v, 2) for k, v in exact.items()}, half_ranks=ties)


def test_half_ranks_need_their_own_bound() -> None:
    values = {m: float(gains([5.5], m).mean()) for m in ("hr@5", "mrr@5", "hr@10", "mrr@10")}
    assert not bound_violations(values, half_ranks=True)
    assert bound_violations(values) == ["MRR@10 - MRR@5 = 18.18 is above (HR@10 - HR@5) / 6 = 16.67"]


def test_slack_is_that_of_rounding() -> None:
    # A hit at rank 20: 1/20 of HR. The bound below is met exactly; rounding may take 2 x 0.005 x (1 + 1/20) from it.
    base = {"hr@10": 40.0, "mrr@10": 20.0, "hr@20": 50.0}
    assert not bound_violations({**base, "mrr@20": 20.5 - 0.0104})
    assert bound_violations({**base, "mrr@20": 20.5 - 0.0106}) == [
        "MRR@20 - MRR@10 = 0.49 is below (HR@20 - HR@10) / 20 = 0.50"
    ]
    assert bound_violations({**base, "mrr@20": 20.5 - 0.001}, rounding=0)
    # Held against no cutoff, two numbers are rounded, not four: 0.005 x (1 + 1/20).
    assert not bound_violations({"hr@20": 50.0, "mrr@20": 2.5 - 0.0052})
    assert bound_violations({"hr@20": 50.0, "mrr@20": 2.5 - 0.0053})


def test_one_cutoff_is_held_against_none() -> None:
    assert bound_violations({"hr@20": 50, "mrr@20": 2.4}) == ["MRR@20 = 2.40 is below (HR@20) / 20 = 2.50"]
    assert bound_violations({"hr@20": 50, "mrr@20": 51}) == ["MRR@20 = 51.00 is above (HR@20) / 1 = 50.00"]
    assert not bound_violations({"hr@20": 50, "mrr@10": 51, "ndcg@20": 70})  # no cutoff with both


def test_table_3_of_the_paper_breaks_the_bounds_three_times() -> None:
    found = [
        (model, data, side, line)
        for model, rows in json.loads(PUBLISHED.read_text())["table3"].items()
        for data, row in rows.items()
        for side in ("without", "with")
        for line in bound_violations(row[side])
    ]
    assert found == [
        ("SR-GNN", "lastfm", "with", "MRR@10 - MRR@5 = 0.29 is below (HR@10 - HR@5) / 10 = 0.46"),
        ("SGNN-HN", "diginetica", "without", "MRR@20 - MRR@10 = 2.37 is above (HR@20 - HR@10) / 11 = 1.37"),
        ("SGNN-HN", "gowalla", "without", "MRR@20 - MRR@10 = 1.91 is above (HR@20 - HR@10) / 11 = 0.70"),
    ]


def test_published_tables_hang_together() -> None:
    data = json.loads(PUBLISHED.read_text())
    shape = {name: {len(rows) for rows in data[name].values()} for name in ("table2", "table3", "table4")}
    assert all(each == {3} for each in shape.values())  # data sets
    assert [len(data[name]) for name in shape] == [10, 2, 5]
    for dataset, row in data["table4"]["Atten-Mixer"].items():
        assert data["table2"]["Atten-Mixer"][dataset] | row == data["table2"]["Atten-Mixer"][dataset]
    # The two tables differ in what the file's notes say, and in nothing else.
    differ = [
        (model, dataset, metric, data["table2"][model][dataset][metric], row["without"][metric])
        for model, rows in data["table3"].items()
        for dataset, row in rows.items()
        for metric in ("hr@20", "mrr@20")
        if data["table2"][model][dataset][metric] != row["without"][metric]
    ]
    assert differ == [("SR-GNN", "lastfm", "mrr@20", 8.3, 8.8), ("SGNN-HN", "lastfm", "mrr@20", 8.34, 8.84)]
    assert all(f"{number:.2f}" in data["notes"][0] for _, _, _, *two in differ for number in two)
