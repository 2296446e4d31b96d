"""Accuracy against session length: SR-GNN, GC-SAN, SR-GNN with Atten-Mixer, and both readouts' control.

Claim under test (Atten-Mixer, WSDM'23, Figure 7): accuracy falls with length for all; SR-GNN with Atten-Mixer leads at
every length, above GC-SAN too.

Command: ``make figures`` (or ``python figures/session_length.py``), from the records of::

    dissect suite analyses/suites/fig7_length.toml --keep

Expected under the claim: the line of SR-GNN + Atten-Mixer above those of SR-GNN and GC-SAN at every length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from style import HERE, not_run, run, suite_runs

from dissect.report.axis import Series, axis_figure, describe, fewer_seeds, seeds_of
from dissect.report.plot import save_figure

#: Written below, not drawn: it would take half of the height.
APART = "GC-SAN"
LENGTHS = ("1", "2", "3", "4", "5", "6-9", "10-19", "20+")


def main() -> list[Path]:
    """Draw HR@20 and MRR@20 by the length of the prefix."""
    suite, found = suite_runs("fig7_length")
    if not any(found.values()):
        return not_run("session_length", found, "dissect suite analyses/suites/fig7_length.toml --keep")
    models = {entry.label: entry.spec.model for entry in suite.entries}
    models |= {e.label: "srgnn-cosine" for e in suite.entries if (e.spec.model, e.spec.scorer) == ("srgnn", "cosine")}
    results = [r.result for runs in found.values() for r in runs if r.result is not None]
    groups = results[0]["by_length"]
    places = [length for length in LENGTHS if length in groups]
    panels: dict[str, Any] = {}
    apart: list[str] = []
    for metric in ("hr@20", "mrr@20"):
        series = []
        for label, runs in found.items():
            there = [r.result["by_length"] for r in runs if r.result is not None]
            points = {f"{p}\nn={groups[p]['n']:,}": [row[p][metric] for row in there] for p in places}
            if label == APART:
                means = [float(np.mean(values)) for values in points.values()]
                apart.append(f"{min(means):.1f} to {max(means):.1f} ({metric.upper()})" if there else "not run")
            elif there:
                series.append(Series(label, models[label], points))
        panels[f"{metric.upper()} (%)"] = (series, {})
    missing = [label for label, runs in found.items() if not runs]
    one = [label for label, runs in found.items() if len(seeds_of(runs)) == 1]
    single = f" (none where there is one: {', '.join(one)})" if one else ""
    caption = (
        f"{describe([run for runs in found.values() for run in runs])}{fewer_seeds(found)} n: test examples of that "
        f"length. Small points: seeds; bars: 95% interval of the mean over seeds{single}, "
        "not over test sessions (those: strata.png)."
        f" Not drawn, since at this rate it is far from trained: {APART}, {' and '.join(apart)}."
        + (f" Not run: {', '.join(missing)}." if missing else "")
    )
    shown = [f"{p}\nn={groups[p]['n']:,}" for p in places]
    figure = axis_figure(panels, shown, xlabel="clicks in the session so far", title=suite.title, caption=caption)
    for axes in figure.axes:
        axes.tick_params(axis="x", labelsize=6.3)
    return save_figure(figure, HERE, "session_length")


if __name__ == "__main__":
    run(main)
