"""What the readouts attend to: maps of real test sessions, and how flat maps are at each length.

Claim under test (Atten-Mixer, WSDM'23, Section 4.2): the mixture of multi-level maps picks out the items that tell the
intent. A map that is flat picks nothing.

Command: ``make figures`` (or ``python figures/attention_maps.py``), from the seed-0 records of::

    dissect suite analyses/suites/table2_models.toml --keep
    dissect suite analyses/suites/table2_models.toml --variant full --keep

Expected under the claim: rows that differ from equal shades, and an entropy well below log n, in both settings.
Printed: for each the mean over lengths of 1 - entropy / log n, and of the last click's weight times n (1 where flat).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import HERE, RC, not_run, run, suite_runs

from dissect.report.axis import MODELS, describe, finish
from dissect.report.plot import save_figure
from dissect.report.runs import Run

SHOWN = {"Atten-Mixer, normalised query": "attenmixer", "Atten-Mixer, ours": "attenmixer-ours",
         "Atten-Mixer, released code": "attenmixer-official"}  # fmt: skip
#: Variant -> what it is called here.
SETTINGS = {"small": "an eighth of the sessions", "full": "all of the data"}
LENGTH = 8
#: Lengths with fewer examples are no mean.
FEWEST = 20
#: Records hold an entropy to five decimals: what is nearer to flat than half the last of them is drawn here.
FLAT = 5e-6
SIZE = 8


@dataclass(frozen=True)
class Sample:
    """What a run's readout attends to."""

    label: str
    variant: str
    run: Run
    held: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Statistics of the lengths with examples enough."""
        return [row for row in self.held["statistics"] if row["examples"] >= FEWEST]


def samples() -> list[Sample]:
    """The first seed's run of each row and setting that has one with maps."""
    found = []
    for variant in SETTINGS:
        _, runs = suite_runs("table2_models", variant)
        for label in SHOWN:
            for first in runs.get(label, [])[:1]:
                if (first.path / "attention.json").exists():
                    held = json.loads((first.path / "attention.json").read_text())
                    found.append(Sample(label, variant, first, held))
    return found


def _share(weights: list[list[float]]) -> Any:
    """(H, n), each head's weights divided by their sum."""
    w = np.abs(np.array(weights)).T
    return w / w.sum(1, keepdims=True)


def draw_map(axes: Axes, sample: Sample) -> Any:
    """One session's map."""
    session = next(s for s in sample.held["sessions"] if len(s["items"]) >= LENGTH)
    share = _share(session["weights"])
    n = share.shape[1]
    image = axes.imshow(share * n, cmap="RdBu_r", vmin=0, vmax=2, aspect="auto")
    axes.set_xticks(range(n), [str(item) for item in session["items"]], rotation=60)
    axes.set_yticks(range(len(share)), [str(h + 1) for h in range(len(share))])
    dim = sample.run.spec["dim"]
    axes.set_title(f"{sample.label},\n{SETTINGS[sample.variant]}, d {dim}", fontsize=SIZE)
    return image


def draw_statistics(flat: Axes, last: Axes, found: Sequence[Sample]) -> None:
    """How far from flat each sample's maps are by length, and how much of the last click is theirs."""
    named: set[str] = set()
    for sample in found:
        color, dash, marker = MODELS[SHOWN[sample.label]]
        full = sample.variant == "full"
        look: dict[str, Any] = {
            "color": color, "linestyle": dash, "marker": marker, "markersize": 5,
            "markerfacecolor": "white" if full else color, "label": None if sample.label in named else sample.label,
        }  # fmt: skip
        named.add(sample.label)
        lengths = [row["length"] for row in sample.rows]
        away = [1 - row["entropy"] for row in sample.rows]
        times = [row["last"] * row["length"] for row in sample.rows]
        flat.plot(lengths, np.maximum(away, FLAT), **look)
        last.plot(lengths, times, **look)
        name = f"{sample.label}, {SETTINGS[sample.variant]}"
        print(f"{name}: mean over lengths 1 - entropy / log n {np.mean(away):.5f}, last x n {np.mean(times):.3f}")
    flat.set_yscale("log")
    flat.set_ylim(FLAT / 2, 1)
    flat.axhspan(FLAT / 2, FLAT * 1.5, color="#EEEEEE", zorder=0)
    flat.text(0.98, FLAT * 1.9, "below: flat to five decimals", fontsize=SIZE - 1, color="#666666", ha="right",
              transform=flat.get_yaxis_transform())  # fmt: skip
    flat.set_ylabel("1 - entropy / log n (log scale)", fontsize=SIZE)
    last.axhline(1, color="#999999", linewidth=1, zorder=1)
    last.set_ylabel("weight of the last click x n", fontsize=SIZE)
    for axes in (flat, last):
        axes.grid(True)
        axes.set_xlabel("clicks in the session (n)", fontsize=SIZE)
        axes.set_title(" ", fontsize=2 * SIZE)  # room for the legend, which stands over both
    for variant, face in zip(SETTINGS, ("#666666", "white"), strict=True):
        if any(sample.variant == variant for sample in found):
            flat.plot([], [], "o", color="#666666", markerfacecolor=face, markersize=5, label=SETTINGS[variant])
    legend = flat.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=5, fontsize=SIZE - 0.5, columnspacing=1.2
    )
    legend.set_in_layout(False)


def main() -> list[Path]:
    """Draw one session's maps for each model and setting, and flatness and the last click's weight against length."""
    found = samples()
    if not found:
        return not_run("attention_maps", SHOWN, "dissect suite analyses/suites/table2_models.toml --keep")
    by_variant = {v: some for v in SETTINGS if (some := [s for s in found if s.variant == v])}
    small: Any = {"axes.grid": False, "xtick.labelsize": SIZE, "ytick.labelsize": SIZE}
    with mpl.rc_context(RC | small):
        figure = Figure(figsize=(9.6, 4.2 + 2.2 * len(by_variant)))
        grid = figure.add_gridspec(1 + len(by_variant), 1, height_ratios=[*[1] * len(by_variant), 1.25])
        for number, some in enumerate(by_variant.values()):
            row = grid[number].subgridspec(1, len(some) + 1, width_ratios=[*[1] * len(some), 0.04 * len(some)])
            panels = [figure.add_subplot(row[i]) for i in range(len(some))]
            images = [draw_map(*each) for each in zip(panels, some, strict=True)]
            panels[0].set_ylabel("head", fontsize=SIZE)
            bar = figure.colorbar(images[0], cax=figure.add_subplot(row[len(some)]), extend="max")
            bar.set_label("weight x n\n(1, white: flat)", fontsize=SIZE)
        row = grid[len(by_variant)].subgridspec(1, 2, wspace=0.25)
        below = figure.add_subplot(row[0]), figure.add_subplot(row[1])
        draw_statistics(*below, found)
        missing = [
            f"{label} ({name})"
            for v, name in SETTINGS.items()
            for label in SHOWN
            if not any((s.label, s.variant) == (label, v) for s in found)
        ]
        about = " ".join(describe([s.run for s in some]) for some in by_variant.values())
        session = next(s for s in found[0].held["sessions"] if len(s["items"]) >= LENGTH)
        caption = (
            f"{about} Maps: mixed weights of each head over one session's items (ids of the data set; the last is the "
            f"latest; target {session['target']}), the first session of {LENGTH} clicks or more in the sample. Below: "
            f"means over up to 4,000 test examples, lengths with {FEWEST} examples or more; filled markers: "
            f"{SETTINGS['small']}, hollow: {SETTINGS['full']}."
        ) + (f" Not run: {', '.join(missing)}." if missing else "")
        finish(figure, Figure().subplots(), "What the readouts attend to", caption, top=0.98)
    return save_figure(figure, HERE, "attention_maps")


if __name__ == "__main__":
    run(main)
