"""What came out of many runs, row by row, from their results alone: for grids too large to keep every rank of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dissect.errors import DissectError
from dissect.report.formats import NONE, Table
from dissect.report.runs import read_run


def outcomes(title: str, rows: Mapping[str, Sequence[Path]], metrics: Sequence[str]) -> Table:
    """A table of test metrics and densities by part, each a mean over a row's seeds, without intervals.

    Parameters
    ----------
    title : str
    rows : mapping
        Label to finished runs, which differ in their seed alone; none where it has not been run.
    metrics : sequence of str
        Of those that a result holds, such as hr@20.

    Returns
    -------
    Table
        Its notes say of what the numbers are, and what has not been run.

    Raises
    ------
    DissectError
        For a metric that the results do not hold, and where nothing has been run.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for label, paths in rows.items():
        results = [run.result for run in map(read_run, paths)]
        if results:
            found[label] = [result for result in results if result is not None]
    if not found:
        raise DissectError(f"{title}: nothing has been run")
    first = next(iter(found.values()))[0]
    for metric in metrics:
        if metric not in first["test"]:
            raise DissectError(f"{metric}: results hold {', '.join(first['test'])}")
    parts = list(dict.fromkeys(part for some in found.values() for result in some for part in result["density"]))
    table = [
        [
            label,
            str(len(some)),
            *(f"{_mean([result['test'][metric] for result in some]):.2f}" for metric in metrics),
            *(_density([result["density"].get(part) for result in some]) for part in parts),
        ]
        for label, some in found.items()
    ]
    data = first["dataset"]
    notes = [
        f"{data['name']}: {data['test_examples']:,} test examples, ranked among {data['items']:,} items. Accuracy is "
        "that of the mean weights, in percent; density: kept / total; both are means over seeds. Results alone are "
        "kept of these runs, so there are no paired intervals."
    ]
    missing = [label for label, paths in rows.items() if not paths]
    if missing:
        notes.append(f"not run: {', '.join(missing)}")
    return Table(title, ("run", "seeds", *(metric.upper() for metric in metrics), *parts), table, notes)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _density(rows: Sequence[Mapping[str, Any] | None]) -> str:
    """Mean density, with the weights it is of; a dash for a part that is not wrapped or has no weights."""
    there = [row for row in rows if row is not None and row["total"]]
    if not there:
        return NONE
    return f"{_mean([row['kept'] / row['total'] for row in there]):.3f} of {there[0]['total']:,}"
