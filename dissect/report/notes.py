"""Sentences that tables share: what was compared on what, and how small a difference could have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dissect.report.compare import Comparison, Line
from dissect.report.power import LEVEL, POWER
from dissect.report.statistics import Floats


def about(result: dict[str, Any], examples: int, sessions: int) -> str:
    """Data set, test examples and sessions, items and protocol of a result, as a title says them."""
    data, protocol = result["dataset"], result["protocol"]
    subset = f", {data['max_train']:,} training sessions drawn" if data.get("max_train") else ""
    stamp = "; OPTIMISTIC: the test set was evaluated after every epoch" if protocol["optimistic"] else ""
    refit = "refit on training + validation" if protocol["refit"] else "no refit"
    return (
        f"{data['name']}: {examples:,} test examples of {sessions:,} sessions, ranked among {data['items']:,} items; "
        f"protocol {protocol['name']}, {refit}, ties {protocol['ties']}{subset}{stamp}"
    )


def precision_note(found: Comparison) -> list[str]:
    """Which rows were trained with products of bfloat16 factors, where not all were."""
    rounded = {line.label: line.group.runs[0].spec.get("precision") == "bf16" for line in found.lines}
    if len(set(rounded.values())) == 1:
        return []
    named = ", ".join(label for label, was in rounded.items() if was)
    return [f"Products of bfloat16 factors: {named}; of fp32 factors: the others."]


def power_notes(found: Comparison) -> list[str]:
    """The smallest differences to the baseline that the interval, and the test across seeds, would find."""
    base, others = found.lines[found.baseline], [line for line in found.lines if line.difference is not None]
    notes = []
    sessions = _least(others, [line.least_sessions for line in others], found.metrics)
    if sessions:
        notes.append(
            f"Power: with these {found.examples:,} test examples of {found.sessions:,} sessions a difference to "
            f"{base.label} under {sessions} can't be seen: the interval would miss it more often than one time in "
            f"{1 / (1 - POWER):.0f} ({LEVEL:.0%}, two-sided)."
        )
    seeds = _least(others, [line.least_seeds for line in others], found.metrics)
    if seeds:
        fewest = min(len(line.values) for line in (base, *others) if len(line.values) > 1)
        notes.append(
            f"Across seeds ({fewest} or more a row) the t-test, before Holm's correction, would miss one under {seeds} "
            "as often, if seeds spread as these do; of few seeds the spread is itself uncertain."
        )
    return notes


def _least(lines: Sequence[Line], rows: Sequence[Floats], metrics: Sequence[str]) -> str:
    """``0.31 points of HR@20 or 0.12 (this row) to 0.24 (that row) of MRR@20``; empty where no row has a value."""
    parts = []
    for m, metric in enumerate(metrics):
        values = sorted((float(row[m]), line.label) for line, row in zip(lines, rows, strict=True) if row[m] > 0)
        if values:
            least, most = values[0], values[-1]
            shown = f"{most[0]:.2g}"
            if f"{least[0]:.2g}" != shown:
                shown = f"{least[0]:.2g} ({least[1]}) to {shown} ({most[1]})"
            parts.append(f"{shown}{' points' * (not parts)} of {metric.upper()}")
    return " or ".join(parts)
