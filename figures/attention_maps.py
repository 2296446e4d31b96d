"""What the readouts attend to: maps of real test sessions, and how flat maps are at each length.

Claim under test (Atten-Mixer, WSDM'23, Section 4.2): the mixture of multi-level maps picks out the items that tell the
intent. A map that is flat picks nothing.

Command: ``make figures`` (or ``python figures/attention_maps.py``), from the seed-0 records of::

    dissect suite analyses/suites/table2_models.toml --keep

Expected under the claim: rows that differ from equal shades, and an entropy well below 1. Printed: the mean over
lengths of both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from style import HERE, RC, not_run, run, suite_runs

from dissect.report.axis import MODELS, describe, finish
from dissect.report.plot import save_figure

SHOWN = {"Atten-Mixer, normalised query": "attenmixer", "Atten-Mixer, ours": "attenmixer-ours",
         "Atten-Mixer, released code": "attenmixer-official"}  # fmt: skip
LENGTH = 8


def _share(weights: list[list[float]]) -> Any:
    """(H, n), each head's weights divided by their sum."""
    w = np.abs(np.array(weights)).T
    return w / w.sum(1, keepdims=True)


def main() -> list[Path]:
    """Draw one session's maps for each model, and entropy and the last click's weight against length."""
    _, found = suite_runs("table2_models")
    runs = {label: found.get(label, [])[:1] for label in SHOWN}
    samples = {
        label: json.loads((own[0].path / "attention.json").read_text())
        for label, own in runs.items()
        if own and (own[0].path / "attention.json").exists()
    }
    if not samples:
        return not_run("attention_maps", SHOWN, "dissect suite analyses/suites/table2_models.toml --keep")
    with mpl.rc_context({**RC, "axes.grid": False}):
        figure = Figure(figsize=(9.6, 6.2))
        grid = figure.add_gridspec(2, max(2, len(samples)), height_ratios=(1, 1.2))
        for i, (label, sample) in enumerate(samples.items()):
            axes = figure.add_subplot(grid[0, i])
            session = next(s for s in sample["sessions"] if len(s["items"]) >= LENGTH)
            share = _share(session["weights"])
            n = share.shape[1]
            image = axes.imshow(share * n, cmap="RdBu_r", vmin=0, vmax=2, aspect="auto")
            axes.set_xticks(range(n), [str(item) for item in session["items"]], rotation=60, fontsize=6)
            axes.set_yticks(range(len(share)), [str(h + 1) for h in range(len(share))], fontsize=6)
            axes.set_title(f"{label}\nsession of {n}, target {session['target']}", fontsize=8)
            axes.set_ylabel("head", fontsize=8)
            bar = figure.colorbar(image, ax=axes, extend="max")
            bar.set_label("weight x n (1, white: flat)", fontsize=7)
            bar.ax.tick_params(labelsize=6)
        for i, (field, title) in enumerate(
            (("entropy", "entropy / log n (1: flat)"), ("last", "weight of the last click"))
        ):
            axes = figure.add_subplot(grid[1, i])
            axes.grid(True)
            for label, sample in samples.items():
                rows = [row for row in sample["statistics"] if row["examples"] >= 20]
                color, dash, marker = MODELS[SHOWN[label]]
                lengths = [row["length"] for row in rows]
                axes.plot(lengths, [row[field] for row in rows], color=color, linestyle=dash, marker=marker,
                          markersize=4, label=label)  # fmt: skip
                print(f"{label}: mean {field} over lengths {np.mean([row[field] for row in rows]):.3f}")
            if field == "last":
                flat = range(2, 21)
                axes.plot(flat, [1 / n for n in flat], color="#999999", linewidth=1, label="flat: 1/n")
            axes.set_xlabel("clicks in the session")
            axes.set_ylabel(title, fontsize=8)
            if field == "last":
                axes.legend(fontsize=7)
        missing = [label for label in SHOWN if label not in samples]
        caption = (
            f"{describe([own[0] for own in runs.values() if own])} Maps: mixed weights of each head over one session's "
            f"items (ids of the data set; the last is the latest), the first session of {LENGTH} clicks or more in the "
            "sample. Below: means over up to 4,000 test examples, lengths with 20 examples or more."
        ) + (f" Not run: {', '.join(missing)}." if missing else "")
        finish(figure, Figure().subplots(), "What the readouts attend to", caption, top=0.96)
    return save_figure(figure, HERE, "attention_maps")


if __name__ == "__main__":
    run(main)
