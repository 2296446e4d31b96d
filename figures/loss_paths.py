"""Training curves of SR-GNN by the tiled loss, the plain one, and with bf16 factors.

Claim under test: the tiled loss trains as the plain one does in fp32, and what bf16 factors change lies within the
spread of seeds.

Command: ``make figures`` (or ``python figures/loss_paths.py``), from ``analyses/records/diginetica-srgnn-paths-*``,
each made by the following with ``--seed 0 | 1 | 2``, or with ``--loss plain``, or with ``--precision bf16``::

    dissect run srgnn --dataset diginetica --sparsify none --max-train 40000 --steps 2500

Expected: plain within rounding of tiled; bf16 nearer to fp32 with the same seed than two seeds are to one another.
The subset: 40,000 random training sessions of Diginetica, 2,500 steps of 100, d 100. The table is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from style import HERE, RECORDS, run

from dissect.report import style
from dissect.report.plot import save_figure
from dissect.report.runs import Run, read_run

NAMES = {
    "tiled, seed 0": "tiled-0", "tiled, seed 1": "tiled-1", "tiled, seed 2": "tiled-2",
    "plain, seed 0": "plain-0", "bf16, seed 0": "bf16-0",
}  # fmt: skip
LOOKS: dict[str, Any] = {
    "tiled, seed 1": {"color": "#999999", "linewidth": 0.9},
    "tiled, seed 2": {"color": "#999999", "linewidth": 0.9, "linestyle": "--"},
    "bf16, seed 0": {"color": "#D55E00", "linewidth": 1.2},
    "plain, seed 0": {"color": "#0072B2", "linewidth": 1.6, "linestyle": ":"},
}


def smoothed(run: Run, window: int = 20) -> tuple[list[int], list[float]]:
    """Steps, and the mean NLL over `window` rows."""
    nll = [row["nll"] for row in run.steps]
    steps = [row["step"] for row in run.steps][window - 1 :]
    return steps, [sum(nll[i : i + window]) / window for i in range(len(nll) - window + 1)]


def draw(runs: dict[str, Run]) -> Figure:
    """The loss of one run, and what each of the others differs from it."""
    steps, base = smoothed(runs["tiled, seed 0"])
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(steps, base, color=style.INK, linewidth=1.6)
        left.set_ylabel("training NLL (nats), mean of 120 steps")
        left.set_title("tiled, fp32, seed 0")
        for name, look in LOOKS.items():
            difference = [a - b for a, b in zip(smoothed(runs[name])[1], base, strict=True)]
            right.plot(steps, difference, label=name, **look)
        right.axhline(0, color=style.INK, linewidth=0.8)
        right.set_title("difference from it (nats)")
        right.legend(fontsize=8)
        for axes in (left, right):
            axes.set_xlabel("training steps")
        figure.suptitle(
            "srgnn on diginetica, 40,000 training sessions drawn, d 100, batch 100", x=0.01, ha="left", fontsize=10
        )
    return figure


def main() -> list[Path]:
    """Draw the curves and print the test metrics beside the largest difference of the curves."""
    runs = {label: read_run(RECORDS / f"diginetica-srgnn-paths-{name}") for label, name in NAMES.items()}
    base = [row["nll"] for row in runs["tiled, seed 0"].steps]
    for label, each in runs.items():
        assert each.result is not None
        test = each.result["test"]
        most = max(abs(row["nll"] - nll) for row, nll in zip(each.steps, base, strict=True))
        print(
            f"{label:<14} test HR@20 {test['hr@20']:.2f} MRR@20 {test['mrr@20']:.2f}; NLL differs by {most:.4f} at most"
        )
    return save_figure(draw(runs), HERE, "loss_paths")


if __name__ == "__main__":
    run(main)
