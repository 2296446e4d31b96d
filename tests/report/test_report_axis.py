"""A metric against one choice: the points, their mean and its interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dissect.report.axis import Series, axis_figure, describe, interval
from dissect.report.runs import Run


def run_of(seed: int, trained: int) -> Run:
    result = {
        "dataset": {"name": "toy", "max_train": 9, "train_examples": trained, "test_examples": 2000},
        "protocol": {"name": "honest", "refit": True, "ties": "half"},
        "seed": seed,
    }
    return Run(Path("x"), {"dim": 64, "batch_size": 512, "lr": 0.002, "epochs": 4}, result, [], [], [])


def test_the_interval_is_students() -> None:
    values = [3.0, 5.0, 7.0]
    low, high = stats.t.interval(0.95, 2, loc=5, scale=stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    assert interval([3.0]) == 0


def test_the_figure_shows_means_and_leaves_out_what_is_not_there() -> None:
    series = [Series("a", "attenmixer", {1: [1.0, 3.0], 2: [], 4: [5.0]})]
    figure = axis_figure(
        {"HR@20 (%)": (series, {"control": ("meanlast", [2.0, 2.0]), "none": ("meanpool", [])})},
        [1, 2, 4], xlabel="levels", title="t", caption="c " * 200,
    )  # fmt: skip
    axes = figure.axes[0]
    line = axes.containers[0].lines[0]  # type: ignore[attr-defined]
    assert np.asarray(line.get_ydata()).tolist() == [2, 5]
    assert np.round(np.asarray(line.get_xdata())).tolist() == [0, 2]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "4"]
    assert axes.get_legend_handles_labels()[1] == ["control", "a"]


def test_a_caption_names_the_denominators() -> None:
    text = describe([run_of(1, 1000), run_of(0, 1100)])
    for part in (
        "toy", "9 training sessions drawn anew for each seed", "1,000 to 1,100 training examples", "honest, refit",
        "N = 2,000", "d 64, batch 512, lr 0.002, epochs at most 4", "seeds 0, 1",
    ):  # fmt: skip
        assert part in text
    assert describe([]) == "not run"
    stepped = replace(run_of(1, 1000), spec={"dim": 64, "batch_size": 512, "lr": 0.002, "epochs": 10, "steps": 8000})
    assert "lr 0.002, 8,000 steps" in describe([stepped])  # its epochs count for nothing
    assert "epochs at most 4, 8,000 steps" in describe([stepped, run_of(0, 1000)])


def test_given_bars_outrank_students() -> None:
    series = [Series("a", "attenmixer", {1: [1.0, 3.0]}, {1: (1.5, 2.25)})]
    figure = axis_figure({"d": (series, {})}, [1], xlabel="x", title="t", caption="c")
    container = figure.axes[0].containers[0]
    (segment,) = container.lines[2][0].get_segments()  # type: ignore[attr-defined]
    assert segment[:, 1].tolist() == [1.5, 2.25]
