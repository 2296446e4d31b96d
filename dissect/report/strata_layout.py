"""How a comparison by strata is read: a table for each metric, and the same as plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dissect.report.compare import LEVEL
from dissect.report.formats import NONE, Table, number, plain, signed
from dissect.report.notes import about
from dissect.report.power import least_visible
from dissect.report.statistics import Interval
from dissect.report.strata import FEWEST_SESSIONS, STRATA, Strata


def strata_tables(found: Strata) -> list[Table]:
    """A table for each metric: strata, and the rows within each."""
    return [_table(found, m) for m in range(len(found.metrics))]


def _table(found: Strata, m: int) -> Table:
    metric = found.metrics[m].upper()
    rows, breaks = [], []
    for stratum in found.strata:
        breaks.append(len(rows))
        for n, row in enumerate(found.rows):
            head = [stratum.label, f"{stratum.examples:,}", f"{stratum.sessions:,}"] if n == 0 else ["", "", ""]
            difference = stratum.differences[n]
            other = ["baseline", ""]
            if difference is not None:
                other = [_shown(difference, m, signed), number(float(least_visible(difference.error)[m]))]
            value = stratum.values[n]
            rows.append([head[0], row.label, *head[1:], _shown(value, m, number), *other])
    columns = (found.by, "model", "examples", "sessions", metric, "difference", "visible from")
    title = f"{metric} by {found.by} on {about(found.rows[0].group.results[0], found.examples, found.sessions)}"
    return Table(title, columns, rows, _notes(found), left=2, breaks=breaks[1:])


def _shown(value: Interval, m: int, form: Callable[[float], str]) -> str:
    """An estimate with its interval, where there is one."""
    estimate, low, high = (form(float(part[m])) for part in value[:3])
    return estimate if low == NONE else f"{estimate} [{low}, {high}]"


def _notes(found: Strata) -> list[str]:
    seeds = sorted({len(row.values) for row in found.rows})
    base = found.rows[found.baseline].label
    notes = [
        f"{found.by}: {STRATA[found.by][2]}. examples, sessions: of the {found.examples:,} test examples those in the "
        f"stratum, and their sessions. Percent of them, mean over {' or '.join(map(str, seeds))} "
        f"seed{'s' * (seeds != [1])}; in brackets the {LEVEL:.0%} interval, its sessions drawn whole "
        f"{found.resamples:,} times: it covers which sessions were tested, not seeds; none with fewer than "
        f"{FEWEST_SESSIONS} sessions."
    ]
    if len(found.rows) > 1:
        intervals = len(found.strata) * (len(found.rows) - 1)
        notes.append(
            f"difference: to {base}, in points of percent, paired. visible from: the smallest difference that its "
            f"interval would find four times in five. Each of the {intervals} intervals is at {LEVEL:.0%} by itself: "
            "where nothing differs one in twenty leaves out 0."
        )
    return [*notes, *(f"Warning: {text}" for text in found.warnings)]


def strata_json(found: Strata) -> dict[str, Any]:
    """The comparison by strata as plain data, NaN as None."""
    result = found.rows[0].group.results[0]
    data = {name: result["dataset"].get(name) for name in ("name", "sha256", "items", "max_train")}
    strata = []
    for stratum in found.strata:
        lines = []
        for row, value, difference in zip(found.rows, stratum.values, stratum.differences, strict=True):
            cells = {}
            for m, metric in enumerate(found.metrics):
                cells[metric] = {"mean": plain(value.estimate[m]), "interval": _ends(value, m)}
                if difference is not None:
                    cells[metric] |= {
                        "difference": plain(difference.estimate[m]),
                        "difference_interval": _ends(difference, m),
                        "least_visible": plain(float(least_visible(difference.error)[m])),
                    }
            lines.append({"label": row.label, "seeds": list(row.group.seeds), "metrics": cells})
        strata.append(
            {"label": stratum.label, "examples": stratum.examples, "sessions": stratum.sessions, "lines": lines}
        )
    return {
        "by": found.by, "about": STRATA[found.by][2],
        "dataset": {**data, "test_examples": found.examples, "test_sessions": found.sessions},
        "protocol": result["protocol"], "baseline": found.rows[found.baseline].label, "level": LEVEL,
        "resamples": found.resamples, "strata": strata, "warnings": list(found.warnings),
    }  # fmt: skip


def _ends(value: Interval, m: int) -> list[float | None]:
    return [plain(value.low[m]), plain(value.high[m])]
