"""What each line of a comparison recommends: how much of the catalogue, and how popular it is."""

from __future__ import annotations

from dissect.report.compare import Comparison, Line
from dissect.report.formats import NONE, Table

_MEANS = ("coverage@20", "recommended", "popularity@20")


def reach_of(line: Line) -> dict[str, float] | None:
    """Mean over seeds of coverage, items recommended and their popularity, of `dissect.training.recommended.reach`.

    None where a record does not say: an older version wrote it, or there are fewer than 20 items.
    """
    sources = [result["pruned"] if line.pruned else result for result in line.group.results]
    found = [source["reach"] for source in sources if "coverage@20" in (source.get("reach") or {})]
    if len(found) < len(sources):
        return None
    return {name: sum(one[name] for one in found) / len(found) for name in _MEANS}


def reach_tables(found: Comparison) -> list[Table]:
    """One table, or none where no record holds what it shows."""
    rows = []
    for line in found.lines:
        mean = reach_of(line)
        if mean is None:
            rows.append([line.label, *[NONE] * 3])
        else:
            shown = f"{mean['coverage@20']:.1f}%", f"{mean['recommended']:,.0f}", f"{mean['popularity@20']:,.1f}"
            rows.append([line.label, *shown])
    known = [
        result["reach"]
        for group in found.groups
        for result in group.results
        if "coverage@20" in (result.get("reach") or {})
    ]
    if not known:
        return []
    first = known[0]
    notes = [
        f"items recommended: of {first['items']:,}, those among the best 20 of any of the {found.examples:,} test "
        "examples; coverage@20 is their share. popularity@20: mean training clicks on what is recommended; on the "
        f"targets {first['target_popularity']:,.1f}, on the most popular item {first['most_popular']:,}. Clicks are of "
        "the data set's whole training part; means over seeds."
        + f" {NONE}: an older record."
        * any(row[1] == NONE for row in rows)
    ]
    title = f"What is recommended on {found.lines[0].group.results[0]['dataset']['name']}"
    return [Table(title, ("model", "coverage@20", "items recommended", "popularity@20"), rows, notes)]
