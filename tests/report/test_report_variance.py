"""The split of a grid's variance: by hand, and against simulated grids whose shares are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dissect.errors import DissectError
from dissect.report.runs import Run
from dissect.report.variance import SOURCES, grid_of, split_variance


def test_a_grid_by_hand() -> None:
    # Rows differ by 2 (effects -1, 1), columns by 4 (-2, 2), nothing together; seeds by +-0.1.
    grid = np.array([[[0.0], [4.0]], [[2.0], [6.0]]]) + np.array([-0.1, 0.1])
    found = split_variance(grid, resamples=50)
    noise = 0.02  # (0.1^2 + 0.1^2) / 1
    assert found.variance["seed"] == pytest.approx(noise)
    assert found.variance["rows"] == pytest.approx(1 - noise / 4 / 2)
    assert found.variance["columns"] == pytest.approx(4 - noise / 4 / 2)
    assert found.variance["interaction"] == 0
    assert sum(found.share.values()) == pytest.approx(1)
    assert all(found.low[name] <= found.share[name] <= found.high[name] for name in SOURCES)


def test_shares_are_found_on_average_and_covered() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=6), 2 * rng.normal(size=5)
    rows, columns = rows - rows.mean(), columns - columns.mean()
    means = rows[:, None] + columns[None]
    truth = np.array([(rows**2).mean(), (columns**2).mean(), 0, 0.25])
    truth = truth / truth.sum()
    shares, covered = [], 0
    for k in range(100):
        found = split_variance(means[..., None] + 0.5 * rng.normal(size=(6, 5, 3)), resamples=200, seed=k)
        shares.append([found.share[name] for name in SOURCES])
        covered += found.low["columns"] <= truth[1] <= found.high["columns"]
    assert np.mean(shares, 0) == pytest.approx(truth, abs=0.01)
    assert covered >= 88


@pytest.mark.parametrize(
    ("shape", "hole", "says"), [((2, 3, 1), False, "2 x 3 x 1"), ((2, 2, 2), True, "1 runs of the grid are missing")]
)
def test_bad_grids(shape: tuple[int, ...], hole: bool, says: str) -> None:
    grid = np.random.default_rng(0).normal(size=shape)
    if hole:
        grid[0, 1, 0] = np.nan
    with pytest.raises(DissectError, match=says):
        split_variance(grid)


def test_runs_are_laid_out_by_halves_and_seed() -> None:
    def run(encoder: str, readout: str, seed: int, value: float) -> Run:
        return Run(
            Path("run"), {"encoder": encoder, "readout": readout, "seed": seed}, {"test": {"hr@20": value}}, [], [], []
        )

    grid = grid_of(
        [run("b", "x", 1, 4.0), run("b", "y", 0, 2.0), run("b", "x", 0, 1.0), run("a", "x", 0, 3.0)], "hr@20"
    )
    assert (grid.encoders, grid.readouts, grid.seeds) == (("b", "a"), ("x", "y"), (0, 1))
    np.testing.assert_array_equal(grid.values, [[[1, 4], [2, np.nan]], [[3, np.nan], [np.nan, np.nan]]])
    assert grid.whole.shape == (2, 2, 0)
    with pytest.raises(DissectError, match="two runs of a, x, seed 0"):
        grid_of([run("a", "x", 0, 1.0), run("a", "x", 0, 2.0)], "hr@20")
