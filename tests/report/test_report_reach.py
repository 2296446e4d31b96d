"""The table of what is recommended: means over seeds, a dash for older records, no table where none knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dissect.report.reach import reach_of, reach_tables


def result(coverage: float | None, pruned: bool = False) -> dict[str, Any]:
    reach = {
        "coverage@20": coverage, "recommended": coverage, "items": 100, "popularity@20": 2 * (coverage or 0),
        "most_popular": 70, "target_popularity": 9.5,
    }  # fmt: skip
    own = {"reach": reach} if coverage is not None else {}
    return {"dataset": {"name": "toy"}, **own, "pruned": {"reach": {**reach, "coverage@20": 1.0}} if pruned else None}


def line(label: str, *results: Any, pruned: bool = False) -> Any:
    return SimpleNamespace(label=label, pruned=pruned, group=SimpleNamespace(results=list(results)))


def found(*lines: Any) -> Any:
    return SimpleNamespace(lines=lines, groups=[each.group for each in lines], examples=1234)


def test_means_over_seeds() -> None:
    a, old = line("a", result(40.0), result(50.0)), line("old", result(40.0), result(None))
    assert reach_of(a) == {"coverage@20": 45, "recommended": 45, "popularity@20": 90}
    assert reach_of(old) is None
    assert reach_of(line("b", result(40.0, pruned=True), pruned=True)) == {
        "coverage@20": 1, "recommended": 40, "popularity@20": 80,
    }  # fmt: skip
    (table,) = reach_tables(found(a, old))
    assert table.rows == [["a", "45.0%", "45", "90.0"], ["old", "–", "–", "–"]]
    for part in ("of 100, those", "1,234 test examples", "targets 9.5", "most popular item 70", "–: an older record"):
        assert part in table.notes[0]


def test_no_table_where_no_record_knows() -> None:
    assert reach_tables(found(line("old", result(None)))) == []
