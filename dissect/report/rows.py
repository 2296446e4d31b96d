"""The rows of a comparison before anything is compared: each one's gains on the same test examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dissect.errors import DissectError
from dissect.report.groups import Group, finished, group_runs
from dissect.report.runs import Run, read_ranks
from dissect.report.statistics import Floats, bound_violations, gains, parse_metric

#: By how much a record's own metrics (four decimals) may be off those of its ranks.
_EXACT = 2e-4


class Row(NamedTuple):
    """One row: a group of runs, by its mean weights or by the kept ones alone.

    Attributes
    ----------
    label : str
    group : Group
    pruned : bool
    values : array, (seeds, M)
        Each metric of each seed, in percent.
    gains : array, (N, M)
        What each test example adds, in percent, mean over the seeds.
    """

    label: str
    group: Group
    pruned: bool
    values: Floats
    gains: Floats


@dataclass(frozen=True)
class Rows:
    """Rows on the same N test examples.

    Attributes
    ----------
    rows : tuple of Row
    examples : dict
        What the first run's ranks.npz says of each example: ``session``, ``length`` and others, each (N,).
    warnings : tuple of str
    """

    rows: tuple[Row, ...]
    examples: dict[str, NDArray[Any]]
    warnings: tuple[str, ...]

    @property
    def clusters(self) -> NDArray[Any]:
        """The session of each example, (N,)."""
        return self.examples["session"]


def read_rows(runs: Sequence[Path | str] | Mapping[str, Sequence[Path | str]], metrics: Sequence[str]) -> Rows:
    """Read finished runs and gather them in rows; see `dissect.report.compare.compare`.

    Raises
    ------
    DissectError
        For an unknown metric, runs that can't be compared, and records that miss or damaged their ranks.
    """
    for metric in metrics:
        parse_metric(metric)
    if not metrics or len(set(metrics)) < len(metrics):
        raise DissectError(f"metrics must be named once each, at least one: {', '.join(metrics) or 'none'}")
    groups = group_runs(runs)
    first, examples = groups[0].runs[0], dict[str, NDArray[Any]]()
    rows: list[Row] = []
    warnings: list[str] = []
    for group in groups:
        pruned = [result.get("pruned") is not None for result in group.results]
        for name in ("rank", "rank_pruned")[: 1 + any(pruned)]:
            values, total = [], np.zeros(())
            for run in group.runs:
                ranks = read_ranks(run)
                examples = examples or {key: array for key, array in ranks.items() if not key.startswith("rank")}
                if not np.array_equal(examples["session"], ranks["session"]):
                    raise DissectError(f"can't compare {first.path} with {run.path}: their test sessions differ")
                if name not in ranks:
                    raise DissectError(f"{run.path}/ranks.npz has no ranks of the pruned weights")
                gain = np.stack([gains(ranks[name], metric) for metric in metrics], axis=1)
                values.append(gain.mean(0))
                total = total + gain
                warnings += _doubts(run, ranks[name], name == "rank_pruned")
            label = f"{group.label}, pruned" if name == "rank_pruned" else group.label
            rows.append(Row(label, group, name == "rank_pruned", np.stack(values), total / len(group.runs)))
    return Rows(tuple(rows), examples, tuple(dict.fromkeys(warnings)))


def find_baseline(baseline: Path | str | None, rows: Sequence[Row]) -> int:
    """Index of the baseline's row, by label or by one of its runs; the first where none is named.

    Raises
    ------
    DissectError
        If it is none of the rows.
    """
    if baseline is None:
        return 0
    for number, row in enumerate(rows):
        if str(baseline) == row.label:
            return number
        if not row.pruned and any(run.path.resolve() == Path(baseline).resolve() for run in row.group.runs):
            return number
    labels = "; ".join(row.label for row in rows)
    raise DissectError(f"baseline {baseline} is none of the runs compared; valid: one of their folders, or {labels}")


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
