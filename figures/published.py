"""The paper's tables beside ours: what the three table scripts share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from style import HERE, PUBLISHED, suite_runs, values

from dissect.experiment.record import write_atomically
from dissect.report.axis import describe, seeds_of
from dissect.report.formats import Table, render
from dissect.report.runs import Run
from dissect.report.statistics import bound_violations

#: Points of HR@20 below what is printed that want a reason; docs/results.md gives it.
GAP = 1.0
VARIANTS = {"full": "ours, full", "small": "ours, subset"}


def paper(table: str) -> Mapping[str, Any]:
    """A table of the paper."""
    return json.loads(PUBLISHED.read_text())[table]


def elsewhere() -> Mapping[str, Any]:
    """What other sources print for Diginetica's 43,097 items: model -> its row."""
    return json.loads((PUBLISHED.parent / "diginetica_43097.json").read_text())["rows"]


def gaps(rows: Mapping[str, Sequence[Run]], printed: Mapping[str, float]) -> dict[str, float]:
    """How far models are below what is printed of them, where that is more than `GAP` points of HR@20.

    Parameters
    ----------
    rows : mapping
        Label to runs.
    printed : mapping
        Label to HR@20 in percent.

    Returns
    -------
    dict
        Label to ours less that figure.
    """
    found = {}
    for label, theirs in printed.items():
        ours = values(rows.get(label, []), "hr@20")
        if ours and (gap := float(np.mean(ours)) - theirs) < -GAP:
            found[label] = gap
    return found


def cell(runs: Sequence[Run], metric: str) -> str:
    """Mean and, of several seeds, standard deviation; ``not run`` for none."""
    found = values(runs, metric)
    if not found:
        return "not run"
    spread = f" ± {np.std(found, ddof=1):.2f}" if len(found) > 1 else ""
    return f"{np.mean(found):.2f}{spread}"


def seeds(runs: Sequence[Run]) -> str:
    """The seeds that a cell is the mean of; nothing for none."""
    return ", ".join(map(str, seeds_of(runs)))


def shared(runs: Sequence[Run], base: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Those of either whose seeds both have: what a difference is taken of."""
    both_have = set(seeds_of(runs)) & set(seeds_of(base))
    mine, theirs = ([run for run in some if run.spec["seed"] in both_have] for some in (runs, base))
    return mine, theirs


def both(runs: Sequence[Run]) -> str:
    """``HR@20 / MRR@20``, or ``not run``."""
    return f"{cell(runs, 'hr@20')} / {cell(runs, 'mrr@20')}" if values(runs, "hr@20") else "not run"


def printed_both(row: Mapping[str, Any] | None) -> str:
    """The same of a row of the paper; nothing where it has none."""
    return f"{row['hr@20']:.2f} / {row['mrr@20']:.2f}" if row else ""


def found_in(suite: str) -> dict[str, dict[str, list[Run]]]:
    """Variant -> label -> runs."""
    return {variant: suite_runs(suite, variant)[1] for variant in VARIANTS}


def notes_on(found: Mapping[str, Mapping[str, Sequence[Run]]], names: Mapping[str, str] = VARIANTS) -> list[str]:
    """What each variant's numbers are of, and where a row breaks the bounds between HR and MRR."""
    notes = []
    for variant, rows in found.items():
        there = [r for runs in rows.values() for r in runs]
        if not there:
            notes.append(f"{names[variant]}: not run.")
            continue
        notes.append(
            f"{names[variant]}: {describe(there)} The column says which of them a row has; ±: standard deviation over "
            "those."
        )
        for label, runs in rows.items():
            for r in runs:
                assert r.result is not None
                half = r.result["protocol"]["ties"] == "half"
                for line in bound_violations(r.result["test"], rounding=0.00005, half_ranks=half):
                    notes.append(f"WARNING: {label}, seed {r.spec['seed']}: {line}")
    return notes


def bounds(label: str, row: Mapping[str, Any]) -> list[str]:
    """Notes where a printed row of the paper breaks the bounds."""
    return [f"the paper's row {label!r} can't come from one list of ranks: {line}" for line in bound_violations(row)]


def write(table: Table, name: str) -> list[Path]:
    """Write a table as Markdown and LaTeX, and print the former: it is wider than a terminal's table may be."""
    print(render(table, "markdown"))
    paths = []
    for how, ending in (("markdown", "md"), ("latex", "tex")):
        target = HERE / f"{name}.{ending}"
        write_atomically(target, render(table, how) + "\n")
        paths.append(target)
    return paths
