"""The split of a grid's variance: by hand, and against simulated grids whose shares are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dissect.errors import DissectError
from dissect.report.runs import Run
from dissect.report.variance import SOURCES, grid_of, seed_by_half, split_variance, without_one


def test_a_grid_by_hand() -> None:
    # Rows differ by 2 (effects -1, 1), columns by 4 (-2, 2), nothing together; seeds by +-0.1 in all cells alike.
    grid = np.array([[[0.0], [4.0]], [[2.0], [6.0]]]) + np.array([-0.1, 0.1])
    found = split_variance(grid, resamples=50)
    assert found.variance == pytest.approx({"rows": 1, "columns": 4, "interaction": 0, "seed": 0.02})
    assert sum(found.share.values()) == pytest.approx(1)
    assert all(found.low[name] <= found.share[name] <= found.high[name] for name in SOURCES)
    # The same in one cell, and the other way round in another: noise, not a seed's own effect.
    grid = np.array([[[0.0], [4.0]], [[2.0], [6.0]]]) + np.zeros(2)
    grid[0, 0] += (-0.1, 0.1)
    grid[1, 1] += (0.1, -0.1)
    found = split_variance(grid, resamples=50)
    noise = 0.04 / 3  # squares sum to 0.04; 3 degrees of freedom
    expected = {"rows": 1 - noise / 8, "columns": 4 - noise / 8, "interaction": 0, "seed": noise}
    assert found.variance == pytest.approx(expected)


@pytest.mark.parametrize("common", [0.0, 1.0])
@pytest.mark.parametrize("loud", [1.0, 3.0])  # noise of one row over that of the others
def test_shares_are_found_on_average_and_covered(common: float, loud: float) -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=6), 2 * rng.normal(size=5)
    rows, columns = rows - rows.mean(), columns - columns.mean()
    means = rows[:, None] + columns[None]
    spread = 0.5 * np.array([loud, 1, 1, 1, 1, 1])[:, None, None]
    truth = np.array([(rows**2).mean(), (columns**2).mean(), 0, (spread**2).mean() + common**2])
    components, covered = [], np.zeros(3)
    for k in range(80):
        noise = spread * rng.normal(size=(6, 5, 3)) + common * rng.normal(size=3)
        found = split_variance(means[..., None] + noise, resamples=120, seed=k)
        components.append([found.variance[name] for name in SOURCES])
        shares = truth / truth.sum()
        _, low, high = found.difference
        inside = [found.low[n] <= shares[i] <= found.high[n] for i, n in ((0, "rows"), (1, "columns"))]
        covered += [*inside, low <= shares[0] - shares[1] <= high]
    error = 4 * np.std(components, 0) / np.sqrt(len(components)) + (0, 0, 0.03, 0)  # cut at 0, a nothing is above it
    assert (np.abs(np.mean(components, 0) - truth) < error).all()
    assert (covered / len(components) > 0.87).all(), covered  # of 0.95, less three standard errors


def test_shares_are_compared_draw_by_draw() -> None:
    rng = np.random.default_rng(1)
    rows, columns = 1.2 * rng.normal(size=6), rng.normal(size=5)
    grid = (rows[:, None] + columns)[..., None] + 0.1 * rng.normal(size=(6, 5, 2)) + np.array([-1.0, 1.0])
    found = split_variance(grid)
    assert found.difference[0] == pytest.approx(found.share["rows"] - found.share["columns"])
    assert found.low["rows"] < found.high["columns"], "one by one they overlap: how much is the seed's is unknown"
    assert found.difference[1] > 0


def test_seeds_that_favour_a_row_are_found() -> None:
    rng = np.random.default_rng(0)
    plain = np.array([list(seed_by_half(rng.normal(size=(6, 5, 3))).values()) for _ in range(400)])
    assert ((plain < 0.1).mean(0) < 0.16).all()  # of 0.1, and four standard errors
    assert ((plain < 0.1).mean(0) > 0.04).all()
    grid = rng.normal(size=(6, 5, 3)) + 3 * rng.normal(size=(6, 1, 3))
    found = seed_by_half(grid)
    assert found["rows"] < 1e-4 < 0.01 < found["columns"]


@pytest.mark.parametrize(
    ("shape", "hole", "says"), [((2, 3, 1), False, "2 x 3 x 1"), ((2, 2, 2), True, "1 runs of the grid are missing")]
)
def test_bad_grids(shape: tuple[int, ...], hole: bool, says: str) -> None:
    grid = np.random.default_rng(0).normal(size=shape)
    if hole:
        grid[0, 1, 0] = np.nan
    for what in (split_variance, seed_by_half):
        with pytest.raises(DissectError, match=says):
            what(grid)


def _run(encoder: str, readout: str, seed: int, value: float, lr: float = 1e-3, valid: float = 1.0) -> Run:
    spec = {"encoder": encoder, "readout": readout, "seed": seed, "lr": lr}
    result = {"test": {"hr@20": value}, "valid": {"hr@20": valid, "mrr@20": 1.0}}
    return Run(Path("run"), spec, result, [], [], [])


def test_runs_are_laid_out_by_halves_and_seed() -> None:
    runs = [_run("b", "x", 1, 4.0), _run("b", "y", 0, 2.0), _run("b", "x", 0, 1.0), _run("a", "x", 0, 3.0)]
    grid = grid_of(runs, "hr@20")
    assert (grid.encoders, grid.readouts, grid.seeds) == (("b", "a"), ("x", "y"), (0, 1))
    np.testing.assert_array_equal(grid.values, [[[1, 4], [2, np.nan]], [[3, np.nan], [np.nan, np.nan]]])
    assert grid.whole.shape == (2, 2, 0)
    with pytest.raises(DissectError, match="two runs of a, x, seed 0"):
        grid_of([_run("a", "x", 0, 1.0), _run("a", "x", 0, 2.0)], "hr@20")


def test_of_several_rates_the_best_on_validation_counts() -> None:
    runs = [
        _run("a", "x", 0, 5.0, 1e-3, valid=2.0), _run("a", "x", 0, 9.0, 1e-2, valid=1.0), _run("a", "y", 0, 7.0, 1e-3),
    ]  # fmt: skip
    values = grid_of(runs, "hr@20").values
    np.testing.assert_array_equal(values, [[[5], [np.nan]]], "one rate of two is missing")
    values = grid_of([run for run in runs if run.spec["lr"] == 1e-3], "hr@20", rates=(1e-3, 1e-2)).values
    assert np.isnan(values).all(), "one rate of two is missing everywhere"


def test_one_half_that_makes_the_picture_is_found_out() -> None:
    generator = np.random.default_rng(0)
    grid = 0.1 * generator.standard_normal((4, 5, 3))
    grid[:, 2] -= 5  # one readout is bad, and all others are alike
    assert split_variance(grid).share["columns"] > 0.95
    least, most = without_one(grid)["columns"]
    assert least < 0.3 < 0.95 < most
    with pytest.raises(DissectError, match="leaving one out takes three"):
        without_one(grid[:, :2])
