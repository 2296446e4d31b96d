"""What Atten-Mixer's readout costs against session length n, levels L and heads H, and what -pr costs against n.

Claim under test (Atten-Mixer, WSDM'23, Section 4.3): O(H L^2 n d) after pruning the pool by its two biases, against
O(H n^(n/2 + 2) d) for -pr, in which every subset of the items is a query.

Command: ``make figures`` (or ``python figures/readout_cost.py``), from ``analyses/records/readout-cost/cost.json``,
made by::

    python analyses/readout_cost.py --out analyses/records/readout-cost

Expected: this implementation needs L n d products for the logits of all heads and L d^2 for the queries, so that time
grows no faster than n and than L, and hardly with H, since heads share out the width; -pr grows as 2^n. The slopes are
printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from style import HERE, MUTED, RC, RECORDS, not_run, run

from dissect.report.axis import MODELS, finish
from dissect.report.plot import save_figure

SOURCE = RECORDS / "readout-cost" / "cost.json"
AXES = (("n", "n", "session length n"), ("levels", "levels", "levels L"), ("heads", "heads", "heads H"))

#: Exponents of O(H L^2 n d).
STATED = {"n": 1, "levels": 2, "heads": 1}


def slope(x: list[float], y: list[float]) -> float:
    """Exponent of a power law through the points' second half, where fixed costs matter least."""
    half = len(x) // 2
    return float(np.polyfit(np.log(x[half:]), np.log(y[half:]), 1)[0])


def _panel(axes: Any, points: list[dict[str, Any]], field: str, label: str, model: str) -> None:
    color, dash, marker = MODELS[model]
    x, y = [p[field] for p in points], [p["ms"] for p in points]
    error = [[p["ms"] - p["low_ms"] for p in points], [p["high_ms"] - p["ms"] for p in points]]
    axes.errorbar(x, y, yerr=error, color=color, linestyle=dash, marker=marker, markersize=5, capsize=2, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(x, [str(v) for v in x])
    axes.minorticks_off()


def main() -> list[Path]:
    """Draw the three axes, -pr beside the first, and print the slopes."""
    if not SOURCE.exists():
        return not_run("readout_cost", ["the cost of the readout"], "python analyses/readout_cost.py")
    found = json.loads(SOURCE.read_text())
    with mpl.rc_context(RC):
        figure = Figure(figsize=(9.6, 3.9))
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (name, field, label) in zip(panels, AXES, strict=True):
            points = found["points"][name]
            _panel(axes, points, field, "Atten-Mixer", "attenmixer")
            axes.set_xlabel(label)
            power = slope([p[field] for p in points], [p["ms"] for p in points])
            print(f"time grows as {field}^{power:.2f} (last points)")
            stated = STATED[field]
            last = points[-1]
            line = [last["ms"] * (p[field] / last[field]) ** stated for p in points]
            axes.plot(
                [p[field] for p in points], line, color=MUTED, linewidth=1, linestyle=":", zorder=1,
                label="as stated, through the last point",
            )  # fmt: skip
            axes.set_title(f"grows as {power:.2f}, stated: {stated}", fontsize=9)
        subsets = found["points"]["subsets"]
        _panel(panels[0], subsets, "n", "-pr: a query from every subset, n up to 10", "attenmixer-pr")
        panels[0].set_xticks(
            sorted({p["n"] for p in found["points"]["n"]}), [str(p["n"]) for p in found["points"]["n"]]
        )
        print(f"-pr, n 9 to 10: {subsets[-1]['ms'] / subsets[-2]['ms']:.2f} times")
        panels[0].set_ylabel("ms a batch, forward and back")
        base = found["base"]
        caption = (
            f"The readout alone, random states, batch {found['batch']}, d {found['dim']}, on {found['device']}; where "
            f"not on the axis: n {base['n']}, L {base['levels']}, H {base['heads']}. Median and quartiles of 9 "
            "rounds. Titles: exponent of the last points, and that of the paper's O(H L^2 n d)."
        )
        finish(figure, panels[0], "Cost of the readout (Section 4.3)", caption, top=0.88)
    return save_figure(figure, HERE, "readout_cost")


if __name__ == "__main__":
    run(main)
