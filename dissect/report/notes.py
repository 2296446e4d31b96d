"""Sentences that tables share: what was compared on what, and how small a difference could have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dissect.report.compare import Comparison
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


def power_notes(found: Comparison) -> list[str]:
    """The smallest differences to the baseline that the interval, and the test across seeds, would find."""
    base, others = found.lines[found.baseline], [line for line in found.lines if line.difference is not None]
    notes = []
    sessions = _least([line.least_sessions for line in others], found.metrics)
    if sessions:
        notes.append(
            f"Power: with these {found.examples:,} test examples of {found.sessions:,} sessions a difference to "
            f"{base.label} under {sessions} can't be seen: the interval would miss it more often than one time in "
            f"{1 / (1 - POWER):.0f} ({LEVEL:.0%}, two-sided)."
        )
    seeds = _least([line.least_seeds for line in others], found.metrics)
    if seeds:
        fewest = min(len(line.values) for line in (base, *others) if len(line.values) > 1)
        notes.append(
            f"Across seeds ({fewest} or more a row) the t-test, before Holm's correction, would miss one under {seeds} "
            "as often, if seeds spread as these do; of few seeds the spread is itself uncertain."
        )
    return notes


def _least(rows: Sequence[Floats], metrics: Sequence[str]) -> str:
    """``0.31 points of HR@20 or 0.12 to 0.14 of MRR@20``; empty where no row has a value."""
    parts = []
    for m, metric in enumerate(metrics):
        values = [float(row[m]) for row in rows if not np.isnan(row[m])]
        if values:
            digits = 2 if min(values) >= 0.1 else 3
            ends = dict.fromkeys(f"{value:.{digits}f}" for value in (min(values), max(values)))
            parts.append(f"{' to '.join(ends)}{' points' * (not parts)} of {metric.upper()}")
    return " or ".join(parts)
