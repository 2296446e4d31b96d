"""Runs against a baseline: the same test examples, several metrics, intervals over sessions and tests across seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dissect.report.groups import Group
from dissect.report.power import least_visible, least_visible_across_seeds
from dissect.report.rows import Rows, find_baseline, read_rows
from dissect.report.statistics import Floats, Interval, bootstrap_of_sums, cluster_sums, holm, improvement, t_test

#: Level of the intervals.
LEVEL = 0.95


@dataclass(frozen=True)
class Line:
    """One row of a comparison, over M metrics.

    Attributes
    ----------
    label : str
    group : Group
    pruned : bool
        Whether by the kept weights alone; else by the mean weights.
    values : array, (seeds, M)
        Percent, from the ranks.
    difference : Interval, optional
        To the baseline's, in points of percent, each end (M,); None in the baseline's own line.
    improvement : array, (M,)
        The same in percent of the baseline's mean.
    paired : bool
        Whether the test across seeds was of pairs: the same seeds on both sides.
    p, p_holm : array, (M,)
        Of the test, as it is and corrected for all tests of the comparison; NaN where none could be made.
    least_seeds : array, (M,)
        The smallest difference that this test would find; see `dissect.report.power`.
    """

    label: str
    group: Group
    pruned: bool
    values: Floats
    difference: Interval | None
    improvement: Floats
    paired: bool
    p: Floats
    p_holm: Floats
    least_seeds: Floats

    @property
    def least_sessions(self) -> Floats:
        """The smallest difference to the baseline that the interval over sessions would find, (M,)."""
        nothing = np.full(self.values.shape[1], np.nan)
        return nothing if self.difference is None else least_visible(self.difference.error)

    @property
    def mean(self) -> Floats:
        """Mean over seeds, (M,)."""
        return self.values.mean(0)

    @property
    def sd(self) -> Floats:
        """Standard deviation over seeds with n - 1, (M,); NaN for one seed."""
        return self.values.std(0, ddof=1) if len(self.values) > 1 else np.full(self.values.shape[1], np.nan)


@dataclass(frozen=True)
class Comparison:
    """Lines, the baseline's among them, on `examples` test examples of `sessions` sessions."""

    lines: tuple[Line, ...]
    baseline: int
    metrics: tuple[str, ...]
    examples: int
    sessions: int
    resamples: int
    warnings: tuple[str, ...]

    @property
    def groups(self) -> list[Group]:
        """The groups of runs, each once though it may have two lines."""
        return [line.group for line in self.lines if not line.pruned]

    @property
    def tests(self) -> int:
        """How many tests across seeds were made."""
        return int(sum((~np.isnan(line.p)).sum() for line in self.lines))


def compare(
    runs: Sequence[Path | str] | Mapping[str, Sequence[Path | str]],
    baseline: Path | str | None = None,
    metrics: Sequence[str] = ("hr@20", "mrr@20"),
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare finished runs on one data set under one protocol.

    Parameters
    ----------
    runs : paths of run folders, or mapping of label to paths
        As in `dissect.report.groups.group_runs`. A run with wrapped parts has two lines: mean weights, and pruned.
    baseline : path or str, optional
        One of the runs, or the label of a line; the first line by default.
    metrics : sequence of str
        hr@K, mrr@K or ndcg@K, any K.
    resamples, seed : int
        Of the bootstrap.

    Raises
    ------
    DissectError
        For an unknown metric or baseline, runs that can't be compared, and records that miss or damaged their ranks.
    """
    found = read_rows(runs, metrics)
    base = find_baseline(baseline, found.rows)
    lines, sessions = _against(found, base, resamples, seed)
    return Comparison(tuple(lines), base, tuple(metrics), len(found.clusters), sessions, resamples, found.warnings)


def _against(found: Rows, base: int, resamples: int, seed: int) -> tuple[list[Line], int]:
    """The lines with their differences to row `base`, one bootstrap for them all; and how many sessions there are."""
    reference = found.rows[base]
    count = reference.values.shape[1]
    columns = np.concatenate([row.gains - reference.gains for row in found.rows], axis=1)  # (N, rows * M)
    sums, sizes = cluster_sums(columns, found.clusters)
    drawn = bootstrap_of_sums(sums, sizes, resamples, LEVEL, seed)
    lines = []
    for number, row in enumerate(found.rows):
        values, nothing = row.values, np.full(count, np.nan)
        paired = row.group.seeds == reference.group.seeds
        line = Line(row.label, row.group, row.pruned, values, None, nothing, paired, nothing, nothing, nothing)
        if number != base:
            mine, other = slice(number * count, (number + 1) * count), reference.values
            line = replace(
                line,
                difference=Interval(*(part[mine] for part in drawn)),
                improvement=np.array([improvement(*pair) for pair in zip(values.mean(0), other.mean(0), strict=True)]),
                p=np.array([t_test(values[:, m], other[:, m], paired) for m in range(count)]),
                least_seeds=np.array(
                    [least_visible_across_seeds(values[:, m], other[:, m], paired) for m in range(count)]
                ),
            )
        lines.append(line)
    adjusted = holm(np.concatenate([line.p for line in lines])).reshape(len(lines), count)
    return [replace(line, p_holm=adjusted[number]) for number, line in enumerate(lines)], len(sizes)
