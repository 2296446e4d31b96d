"""How much of the spread between runs of a grid is the encoder's, the readout's, of both together, and the seed's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dissect.errors import DissectError
from dissect.report.groups import finished, on_validation
from dissect.report.runs import Run

SOURCES = ("rows", "columns", "interaction", "seed")


@dataclass(frozen=True)
class Grid:
    """A metric of every pair of halves and seed.

    Attributes
    ----------
    encoders, readouts : tuple of str
    seeds : tuple of int
    values : array, (encoders, readouts, seeds)
        In percent; nan where a run is missing.
    """

    encoders: tuple[str, ...]
    readouts: tuple[str, ...]
    seeds: tuple[int, ...]
    values: NDArray[np.float64]

    @property
    def whole(self) -> NDArray[np.float64]:
        """The seeds that every pair was run with: (encoders, readouts, those)."""
        return self.values[:, :, np.isfinite(self.values).all((0, 1))]

    @property
    def whole_seeds(self) -> tuple[int, ...]:
        """Those seeds."""
        there = np.asarray(np.isfinite(self.values).all((0, 1)))
        return tuple(seed for seed, whole in zip(self.seeds, there, strict=True) if whole)


def grid_of(runs: Iterable[Run], metric: str) -> Grid:
    """Lay finished runs out by encoder, readout and seed, each in the order of its first run.

    Of runs that differ in their learning rate alone the best by `on_validation` counts: a rate that suits one half and
    not another would pass for a merit of it. A value is there once all rates have been run.

    Raises
    ------
    DissectError
        If two runs have the same three and the same rate.
    """
    found: dict[tuple[str, str, int], dict[float, Run]] = {}
    for run in runs:
        key = (run.spec["encoder"], run.spec["readout"], run.spec["seed"])
        cell, rate = found.setdefault(key, {}), run.spec["lr"]
        if rate in cell:
            raise DissectError(f"two runs of {key[0]}, {key[1]}, seed {key[2]}: {run.path} and another")
        cell[rate] = run
    encoders = tuple(dict.fromkeys(key[0] for key in found))
    readouts = tuple(dict.fromkeys(key[1] for key in found))
    seeds = tuple(sorted({key[2] for key in found}))
    rates = {rate for cell in found.values() for rate in cell}
    values = np.full((len(encoders), len(readouts), len(seeds)), np.nan)
    for (encoder, readout, seed), cell in found.items():
        if cell.keys() == rates:
            best = finished(max(cell.values(), key=on_validation))
            values[encoders.index(encoder), readouts.index(readout), seeds.index(seed)] = best["test"][metric]
    return Grid(encoders, readouts, seeds, values)


@dataclass(frozen=True)
class Split:
    """Shares of the variance of one run drawn at random from the grid.

    Attributes
    ----------
    share : dict
        Source -> share; of `SOURCES`, summing to 1.
    low, high : dict
        Source -> ends of its interval.
    variance : dict
        Source -> variance component, in the measure's units squared; never below 0.
    seeds : int
    """

    share: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    variance: dict[str, float]
    seeds: int


def split_variance(values: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Split:
    """Split the variance of a grid of runs into rows, columns, their interaction and the seed.

    Parameters
    ----------
    values : array, (rows, columns, seeds)
        A metric of each run; every cell with every seed.
    level : float
        Of the intervals.
    resamples, seed : int
        Of the parametric bootstrap.

    Returns
    -------
    Split

    Raises
    ------
    DissectError
        If a value is missing, or there are fewer than two rows, columns or seeds.

    Notes
    -----
    Rows and columns are the ones of interest, not a sample of others: the components are those of fixed effects, the
    mean squared effect of each (two-way analysis of variance with replication), less what the noise alone would make
    of it: ``sum of effects^2 / n - MS_noise (df / n) / seeds``, cut at 0. The seed's is the variance of what it does to
    all cells alike (it may draw the data) plus that of the noise, what it does to one cell.

    The interval is approximate: the grid's own cell means with normal seeds and noise, of each row's own standard
    deviation, split again and again; percentiles, moved by as much as the mean of those splits differs from the split
    that they were drawn from. It knows of seeds, few as they are, not of other test sets.
    """
    grid = np.asarray(values, dtype=float)
    if grid.ndim != 3 or min(grid.shape) < 2:
        raise DissectError(
            f"a grid of {' x '.join(map(str, grid.shape))}: it takes two rows, columns and seeds or more"
        )
    if not np.isfinite(grid).all():
        raise DissectError(f"{int((~np.isfinite(grid)).sum())} runs of the grid are missing")
    found, common = _components(grid)
    rows, columns, seeds = grid.shape
    means = grid.mean(2, keepdims=True)
    noise = grid - means - (grid.mean((0, 1)) - grid.mean())
    # A row's residuals have lost a degree of freedom for each cell, and a share of those for the seeds.
    free = columns * (seeds - 1) * (1 - 1 / (rows * columns))
    spread = np.sqrt((noise**2).sum((1, 2)) / free)[:, None, None]
    generator = np.random.default_rng(seed)
    drawn = means + spread * generator.standard_normal((resamples, *grid.shape))
    drawn += np.sqrt(common) * generator.standard_normal((resamples, 1, 1, seeds))
    shares = np.stack([_shares(_components(one)[0]) for one in drawn])
    own = _shares(found)
    centred = shares - shares.mean(0) + own
    ends = np.clip(np.quantile(centred, [(1 - level) / 2, (1 + level) / 2], axis=0), 0, 1)
    named = lambda row: {name: float(value) for name, value in zip(SOURCES, row, strict=True)}  # noqa: E731
    return Split(named(own), named(ends[0]), named(ends[1]), named(found), grid.shape[2])


def without_one(values: ArrayLike) -> dict[str, tuple[float, float]]:
    """Least and largest share of each source when a row or a column is left out: whether one half makes the picture.

    Parameters
    ----------
    values : array, (rows, columns, seeds)
        As for `split_variance`; at least three rows and columns, so that two are left.

    Returns
    -------
    dict
        Source -> (least, largest).

    Raises
    ------
    DissectError
        If there are fewer.
    """
    grid = np.asarray(values, dtype=float)
    if grid.ndim != 3 or min(grid.shape[:2]) < 3:
        raise DissectError(
            f"a grid of {' x '.join(map(str, grid.shape))}: leaving one out takes three rows and columns"
        )
    left = [np.delete(grid, i, axis) for axis in (0, 1) for i in range(grid.shape[axis])]
    shares = np.stack([_shares(_components(one)[0]) for one in left])
    return {
        name: (float(low), float(high)) for name, low, high in zip(SOURCES, shares.min(0), shares.max(0), strict=True)
    }


def _components(grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The four variances, and what of the seed's is common to all cells."""
    rows, columns, seeds = grid.shape
    cell, of_seed = grid.mean(2), grid.mean((0, 1))
    noise = grid - cell[:, :, None] - (of_seed - grid.mean())
    residual = float((noise**2).sum() / ((rows * columns - 1) * (seeds - 1)))
    common = max(float(of_seed.var(ddof=1)) - residual / (rows * columns), 0.0)
    mean, of_row, of_column = cell.mean(), cell.mean(1), cell.mean(0)
    together = cell - of_row[:, None] - of_column[None] + mean
    raw = np.array([((of_row - mean) ** 2).mean(), ((of_column - mean) ** 2).mean(), (together**2).mean()])
    # What noise alone would put there: its variance over the seeds' mean, times the share of free numbers.
    free = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)]) / (rows * columns)
    return np.append(np.maximum(raw - free * residual / seeds, 0), residual + common), common


def _shares(components: NDArray[np.float64]) -> NDArray[np.float64]:
    total = components.sum()
    return components / total if total else np.zeros_like(components)
