"""Runs against a baseline: the same test examples, several metrics, intervals over sessions and tests across seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dissect.errors import DissectError
from dissect.report.groups import Group, finished, group_runs
from dissect.report.runs import Run, read_ranks
from dissect.report.statistics import (
    Floats,
    Interval,
    bootstrap_of_sums,
    bound_violations,
    cluster_sums,
    gains,
    holm,
    improvement,
    parse_metric,
    t_test,
)  # fmt: skip

#: Level of the intervals.
LEVEL = 0.95
#: By how much a record's own metrics (four decimals) may be off those of its ranks.
_EXACT = 2e-4


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
    for metric in metrics:
        parse_metric(metric)
    if not metrics or len(set(metrics)) < len(metrics):
        raise DissectError(f"metrics must be named once each, at least one: {', '.join(metrics) or 'none'}")
    groups = group_runs(runs)
    bare: list[tuple[str, Group, bool, Floats]] = []
    totals: list[Floats] = []  # each line's gains, averaged over seeds, summed within each session: (C, M)
    sizes, clusters = np.empty(0), None
    warnings: list[str] = []
    for group in groups:
        pruned = [result.get("pruned") is not None for result in group.results]
        for name in ("rank", "rank_pruned")[: 1 + any(pruned)]:
            values, total = [], np.empty(0)
            for run in group.runs:
                ranks = read_ranks(run)
                clusters = ranks["session"] if clusters is None else clusters
                if not np.array_equal(clusters, ranks["session"]):
                    first = groups[0].runs[0]
                    raise DissectError(f"can't compare {first.path} with {run.path}: their test sessions differ")
                if name not in ranks:
                    raise DissectError(f"{run.path}/ranks.npz has no ranks of the pruned weights")
                gain = np.stack([gains(ranks[name], metric) for metric in metrics], axis=1)  # (N, M)
                values.append(gain.mean(0))
                sums, sizes = cluster_sums(gain, clusters)
                total = sums if not len(total) else total + sums
                warnings += _doubts(run, ranks[name], name == "rank_pruned")
            totals.append(total / len(group.runs))
            label = f"{group.label}, pruned" if name == "rank_pruned" else group.label
            bare.append((label, group, name == "rank_pruned", np.stack(values)))
    assert clusters is not None
    base = _find(baseline, bare)
    lines = _against(bare, totals, sizes, base, resamples, seed)
    return Comparison(
        tuple(lines), base, tuple(metrics), len(clusters), len(sizes), resamples, tuple(dict.fromkeys(warnings))
    )


def _find(baseline: Path | str | None, bare: Sequence[tuple[str, Group, bool, Floats]]) -> int:
    """Index of the baseline's line, by label or by one of its runs."""
    if baseline is None:
        return 0
    for number, (label, group, pruned, _) in enumerate(bare):
        if str(baseline) == label:
            return number
        if not pruned and any(run.path.resolve() == Path(baseline).resolve() for run in group.runs):
            return number
    labels = "; ".join(label for label, *_ in bare)
    raise DissectError(f"baseline {baseline} is none of the runs compared; valid: one of their folders, or {labels}")


def _against(
    bare: Sequence[tuple[str, Group, bool, Floats]],
    totals: Sequence[Floats],
    sizes: Floats,
    base: int,
    resamples: int,
    seed: int,
) -> list[Line]:
    """The lines with their differences to line `base`; one bootstrap serves them all."""
    count = totals[base].shape[1]
    columns = np.concatenate([total - totals[base] for total in totals], axis=1)  # (C, lines * M)
    found = bootstrap_of_sums(columns, sizes, resamples, LEVEL, seed)
    reference, seeds = bare[base][3], bare[base][1].seeds
    lines = []
    for number, (label, group, pruned, values) in enumerate(bare):
        paired, nothing = group.seeds == seeds, np.full(count, np.nan)
        if number == base:
            lines.append(Line(label, group, pruned, values, None, nothing, paired, nothing, nothing))
            continue
        mine = slice(number * count, (number + 1) * count)
        gain = [improvement(a, b) for a, b in zip(values.mean(0), reference.mean(0), strict=True)]
        p = [t_test(values[:, m], reference[:, m], paired) for m in range(count)]
        lines.append(
            Line(
                label, group, pruned, values, Interval(*(part[mine] for part in found)), np.array(gain), paired,
                np.array(p), nothing,
            )
        )  # fmt: skip
    adjusted = holm(np.concatenate([line.p for line in lines])).reshape(len(lines), count)
    return [replace(line, p_holm=adjusted[number]) for number, line in enumerate(lines)]


def _doubts(run: Run, ranks: Any, pruned: bool) -> list[str]:
    """What a reader of this run's numbers should know: impossible ones, and others than those of its ranks."""
    result = finished(run)
    recorded = result["pruned"]["test"] if pruned else result["test"]
    name = f"{run.name}{', pruned' if pruned else ''}"
    half = result["protocol"]["ties"] == "half"
    lines = [
        f"{name}: result.json can't be of one list of ranks: {line}"
        for line in bound_violations(recorded, rounding=5e-5, half_ranks=half)
    ]
    actual = {metric: float(gains(ranks, metric).mean()) for metric in recorded}
    off = [metric for metric in recorded if abs(recorded[metric] - actual[metric]) > _EXACT]
    if off:
        # The released habit: each metric's own best epoch on the test set, where the ranks are of one epoch.
        why = "each metric is of its own best epoch there" if result["protocol"]["optimistic"] else "a damaged record"
        texts = ", ".join(f"{metric} {recorded[metric]:.2f} (ranks: {actual[metric]:.2f})" for metric in off)
        lines.append(f"{name}: result.json says otherwise than the ranks, which count here: {texts}; {why}")
    return lines
