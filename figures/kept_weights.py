"""Accuracy of SR-GNN pruned harder and harder, with Atten-Mixer and the controls as level lines.

Claim under test (Atten-Mixer, WSDM'23, Sections 3.3 and 5.2): SR-GNN keeps its accuracy with most weights pruned, and a
model without propagation is better than it.

Command: ``make figures`` (or ``python figures/kept_weights.py``), from the records of::

    dissect suite analyses/suites/pruned.toml --keep

Expected under the claim: a curve that is flat down to few kept weights, below Atten-Mixer's line. Pruned weights are
set to zero and nothing is trained again. Without its encoder SR-GNN lacks the combination (a GRU) too. The curve is
measured on every k-th test example, so that it may stand a little off the full test's value; the number is in the
caption.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from style import HERE, RC, not_run, run, suite_runs, values

from dissect.report.axis import MODELS, describe, finish, interval, said_seeds, seeds_of
from dissect.report.groups import finished
from dissect.report.plot import save_figure

LINES = {"SR-GNN": "srgnn", "SR-GNN without encoder": "srgnn-identity", "mean-pool": "meanpool",
         "equal weights (control)": "meanlast", "Atten-Mixer, normalised query": "attenmixer"}  # fmt: skip
CURVES = {"log-alpha": ("#0072B2", "-", "o"), "magnitude": ("#999999", (0, (6, 2)), "s")}
PRUNED = "SR-GNN, SparseVD"
#: Where a point that keeps no weight stands on the logarithmic axis.
NONE = 0.004


def main() -> list[Path]:
    """Draw HR@20 and MRR@20 against the share of wrapped weights that is kept."""
    _, found = suite_runs("pruned")
    pruned = [r for r in found[PRUNED] if (r.path / "pruning.json").exists()]
    curves: list[dict[str, Any]] = [json.loads((r.path / "pruning.json").read_text()) for r in pruned]
    if not curves:
        return not_run("kept_weights", [PRUNED], "dissect suite analyses/suites/pruned.toml --keep")
    with mpl.rc_context(RC):
        figure = Figure(figsize=(9.6, 5.2))
        panels = figure.subplots(1, 2)
        for axes, metric in zip(panels, ("hr@20", "mrr@20"), strict=True):
            for rule, (color, dash, marker) in CURVES.items():
                points = [[p for p in curve["points"] if p["rule"] == rule] for curve in curves]
                shares = np.array([[max(p["kept"] / p["total"], NONE) for p in one] for one in points])
                y = np.array([[p[metric] for p in one] for one in points])
                axes.plot(shares.T, y.T, color=color, alpha=0.3, linewidth=0.8)
                axes.plot(
                    np.exp(np.log(shares).mean(0)), y.mean(0), color=color, linestyle=dash, marker=marker, markersize=4,
                    label=f"SR-GNN pruned by {rule}",
                )  # fmt: skip
            for label, model in LINES.items():
                own = values(found[label], metric)
                if not own:
                    continue
                line_color, line_dash, _ = MODELS[model]
                mean, half = float(np.mean(own)), interval(own)
                # Dashes on top: a line below another of the same height can be seen between them.
                over = 2.1 if line_dash == "-" else 2.2
                axes.axhline(mean, color=line_color, linestyle=line_dash, linewidth=1.6, zorder=over,
                             label=label)  # fmt: skip
                axes.axhspan(mean - half, mean + half, color=line_color, alpha=0.10, linewidth=0)
            axes.set_xscale("log")
            axes.set_xticks([NONE, 0.01, 0.03, 0.1, 0.3, 1], ["none", "1%", "3%", "10%", "30%", "all"])
            axes.minorticks_off()
            axes.set_xlabel("share of wrapped weights kept")
            axes.set_ylabel(f"{metric.upper()} (%)")
        total = curves[0]["points"][0]["total"]
        drawn = {label: runs for label, runs in found.items() if label in LINES or label == PRUNED}
        lines = {label: drawn[label] for label in LINES if drawn[label]}
        missing = [label for label, runs in drawn.items() if not runs]
        everyone = [r for runs in drawn.values() for r in runs]
        of_all = finished(everyone[0])["dataset"]["test_examples"]
        bars = (
            " Bands: 95% interval over seeds, where there are several."
            if any(len(r) > 1 for r in lines.values())
            else ""
        )
        longer = ", ".join(f"{n} {max(r.spec['epochs'] for r in some)}" for n, some in drawn.items() if some)
        of_lines: dict[str, list[str]] = {}
        for name, runs in lines.items():
            of_lines.setdefault(said_seeds(seeds_of(runs)), []).append(name)
        by_seeds = "; ".join(f"{seeds} ({', '.join(names)})" for seeds, names in of_lines.items())
        caption = (
            f"{describe(everyone, seeds=False)} {total:,} wrapped weights (without the item table). Epochs at most: "
            f"{longer}. Curves: {curves[0]['examples']:,} of the test examples, {said_seeds(seeds_of(pruned))}. Lines: "
            f"all {of_all:,}, {by_seeds}; lines and curves are of different examples, comparable to a point.{bars}"
        ) + (f" Not run: {', '.join(missing)}." if missing else "")
        finish(figure, panels[0], "SR-GNN pruned after SparseVD, beside models without an encoder", caption, top=0.86)
    return save_figure(figure, HERE, "kept_weights")


if __name__ == "__main__":
    run(main)
