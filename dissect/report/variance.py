"""How much of the spread between runs of a grid is the encoder's, the readout's, of both together, and the seed's."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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


def grid_of(runs: Iterable[Run], metric: str, rates: Collection[float] = ()) -> Grid:
    """Lay finished runs out by encoder, readout and seed, each in the order of its first run.

    Of runs that differ in their learning rate alone the best by `on_validation` counts: a rate that suits one half and
    not another would pass for a merit of it.

    Parameters
    ----------
    runs : runs
    metric : str
        Of the test set, such as ``hr@20``.
    rates : collection of float
        A value is there once all of these have been run; where it is empty, all that any of the runs has.

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
    wanted = set(rates) or {rate for cell in found.values() for rate in cell}
    values = np.full((len(encoders), len(readouts), len(seeds)), np.nan)
    for (encoder, readout, seed), cell in found.items():
        if cell.keys() >= wanted:
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
    difference : tuple of float
        Share of the rows less that of the columns, and the ends of its interval, from the same draws: the two shares
        move together, so that their own intervals may overlap where this one excludes 0.
    """

    share: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    variance: dict[str, float]
    seeds: int
    difference: tuple[float, float, float]


def split_variance(values: ArrayLike, level: float = 0.95, resamples: int = 20_000, seed: int = 0) -> Split:
    """Split the variance of a grid of runs into rows, columns, their interaction and the seed.

    Parameters
    ----------
    values : array, (rows, columns, seeds)
        A metric of each run; every cell with every seed.
    level : float
        Of the intervals.
    resamples, seed : int
        Of the draws behind the intervals.

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

    The interval is a generalised confidence interval (Weerahandi 1993, JASA 88): each sum of squares over its expected
    mean square is chi-squared, central for noise and seed, noncentral for the three of the cells; a draw of these is
    turned into components, and the components into shares. In 80 simulated grids of 6 x 5 cells and three seeds it
    covers the truth of encoder, readout and their difference in 87 of 100 or more, one row with three times the noise
    of the others included (`tests/report/test_report_variance.py`). It takes a seed to do the same to all
    rows and columns but for noise, which `seed_by_half` tests. It knows of seeds, few as they are, not of other test
    sets.
    """
    grid = _checked(values)
    parts = _squares(grid)
    found = parts.components()
    own = _shares(found)
    drawn = parts.draw(resamples, np.random.default_rng(seed))
    shares = np.stack([_shares(one) for one in drawn])
    shares = np.column_stack([shares, shares[:, 0] - shares[:, 1]])
    own = np.append(own, own[0] - own[1])
    ends = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = np.minimum(ends[0], own), np.maximum(ends[1], own)
    named = lambda row: {name: float(value) for name, value in zip(SOURCES, row, strict=True)}  # noqa: E731
    difference = float(own[4]), float(low[4]), float(high[4])
    return Split(named(own[:4]), named(low[:4]), named(high[:4]), named(found), grid.shape[2], difference)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    grid = np.asarray(values, dtype=float)
    if grid.ndim != 3 or min(grid.shape) < 2:
        raise DissectError(
            f"a grid of {' x '.join(map(str, grid.shape))}: it takes two rows, columns and seeds or more"
        )
    if not np.isfinite(grid).all():
        raise DissectError(f"{int((~np.isfinite(grid)).sum())} runs of the grid are missing")
    return grid


def seed_by_half(values: ArrayLike) -> dict[str, float]:
    """Whether seeds favour some rows, or some columns: p-values of F tests against what is left.

    `split_variance` takes such a thing for noise of single cells; were there any, its intervals would be too short.

    Parameters
    ----------
    values : array, (rows, columns, seeds)
        As for `split_variance`.

    Returns
    -------
    dict
        ``rows`` and ``columns`` -> p-value. With few seeds only a large interaction shows, and where some cells are
        noisier than others the test is not exact.

    Raises
    ------
    DissectError
        As for `split_variance`.
    """
    from scipy.stats import f

    grid = _checked(values)
    rows, columns, seeds = grid.shape
    left = grid - grid.mean(2, keepdims=True) - (grid.mean((0, 1)) - grid.mean())  # what a seed does to single cells
    of = {"rows": columns * (left.mean(1) ** 2).sum(), "columns": rows * (left.mean(0) ** 2).sum()}
    df = {"rows": (rows - 1) * (seeds - 1), "columns": (columns - 1) * (seeds - 1)}
    rest, rest_df = (left**2).sum() - sum(of.values()), (rows - 1) * (columns - 1) * (seeds - 1)
    return {name: float(f.sf(of[name] / df[name] / (rest / rest_df), df[name], rest_df)) for name in of}


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
    shares = np.stack([_shares(_squares(one).components()) for one in left])
    return {
        name: (float(low), float(high)) for name, low, high in zip(SOURCES, shares.min(0), shares.max(0), strict=True)
    }


@dataclass(frozen=True)
class _Squares:
    """Sums of squares of a grid: of rows, columns and interaction, of the seeds, and of what is left.

    `noise_df` is of the residual variance as the noise has it, which may differ from row to row (Satterthwaite 1946).
    """

    cells: NDArray[np.float64]
    cells_df: NDArray[np.float64]
    of_seed: float
    noise: float
    noise_df: float
    shape: tuple[int, int, int]

    def components(self) -> NDArray[np.float64]:
        """The four variances, none below 0."""
        count = self.shape[0] * self.shape[1]
        between = self.of_seed / (self.shape[2] - 1)
        common = max((between - self.noise) / count, 0.0)
        # Less what noise alone would put there.
        cells = np.maximum(self.cells - self.cells_df * self.noise, 0) / (count * self.shape[2])
        return np.append(cells, self.noise + common)

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Draws of the four variances, (count, 4)."""
        pairs = self.shape[0] * self.shape[1]
        noise = self.noise * self.noise_df / generator.chisquare(self.noise_df, count)
        between = self.of_seed / generator.chisquare(self.shape[2] - 1, count)
        levels = generator.random((3, count))
        cells = []
        for squares, df, level in zip(self.cells, self.cells_df, levels, strict=True):
            if self.noise > 1e-12 * self.cells.sum():
                cells.append(_noncentrality(squares / noise, df, level) * noise)
            else:  # nothing to disturb them
                cells.append(np.full(count, squares))
        return np.stack(
            [*(c / (pairs * self.shape[2]) for c in cells), noise + np.maximum(between - noise, 0) / pairs], 1
        )


def _squares(grid: NDArray[np.float64]) -> _Squares:
    rows, columns, seeds = grid.shape
    mean, cell, of_seed = grid.mean(), grid.mean(2), grid.mean((0, 1))
    noise = grid - cell[:, :, None] - (of_seed - mean)
    pairs = rows * columns
    df = (pairs - 1) * (seeds - 1)
    residual = float((noise**2).sum() / df)
    # A row's residuals have lost a degree of freedom for each cell, and a share of those for the seeds.
    in_row, row_df = (noise**2).sum((1, 2)), df / rows
    spread = float(((in_row / row_df) ** 2).sum())
    noise_df = min(df, (in_row.sum() / row_df) ** 2 * row_df / spread) if spread else df
    of_row, of_column = cell.mean(1) - mean, cell.mean(0) - mean
    together = cell - mean - of_row[:, None] - of_column[None]
    squares = [columns * (of_row**2).sum(), rows * (of_column**2).sum(), (together**2).sum()]
    cells_df = np.array([rows - 1, columns - 1, (rows - 1) * (columns - 1)], dtype=float)
    between = float(pairs * ((of_seed - mean) ** 2).sum())
    return _Squares(seeds * np.array(squares), cells_df, between, residual, noise_df, (rows, columns, seeds))


def _noncentrality(x: NDArray[np.float64], df: float, level: NDArray[np.float64]) -> NDArray[np.float64]:
    """The noncentrality at which a noncentral chi-squared lies below `x` with probability `level`; 0 where none is."""
    from scipy.special import chndtr, ndtri

    far = x > 1e4  # the square of a normal, to one part in x
    low, high = np.zeros_like(x), x + 20 * np.sqrt(x) + 50
    near = np.where(far, 1.0, x)
    for _ in range(45):
        middle = (low + high) / 2
        below = chndtr(near, df, middle) > level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found = np.where(chndtr(near, df, 0) > level, (low + high) / 2, 0)
    return np.where(far, (np.sqrt(x) - ndtri(level)) ** 2, found)


def _shares(components: NDArray[np.float64]) -> NDArray[np.float64]:
    total = components.sum()
    return components / total if total else np.zeros_like(components)
