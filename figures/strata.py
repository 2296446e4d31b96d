"""Where a gain over SR-GNN comes from: by session length, the target's popularity, repeats and new items, and by day.

Claim under test (Atten-Mixer, WSDM'23, Figures 7 and 8): the gain is there at every length and on every day. The
paper's days are a week of an online experiment; here they are the days of a test set. Popularity and repeats are not
the paper's: a gain on repeated or popular targets alone is another gain than one on all.

Command: ``make figures`` (or ``python figures/strata.py``), from the records of::

    dissect suite analyses/suites/fig7_length.toml --keep
    dissect suite analyses/suites/gowalla-tail.toml --keep

What these records lack of their test examples is read from ``analyses/records/strata``, or, where it is not there,
taken from the data set and written there.

Expected under the claim: SR-GNN with Atten-Mixer (Diginetica) and Atten-Mixer (Gowalla) above 0 everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import style
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import HERE, INK, RC, not_run, run, suite_runs

from dissect.errors import DissectError
from dissect.experiment.strata import look_up
from dissect.report.axis import Series, describe, draw_axis, finish
from dissect.report.plot import save_figure
from dissect.report.runs import Run
from dissect.report.strata import STRATA, Strata, compare_by

METRICS = ("hr@20", "mrr@20")
BASELINE = "SR-GNN"
#: A stratum with fewer examples has an interval as wide as the panel.
FEWEST = 400
#: Suite, what to take its comparison apart by, and which rows are drawn: with all of them no line is seen.
PANELS = (
    ("fig7_length", "length"), ("fig7_length", "popularity"), ("fig7_length", "repeat"), ("gowalla-tail", "day"),
)  # fmt: skip
ROWS = {
    "SR-GNN + Atten-Mixer", "SR-GNN, normalised scorer", "mean-pool", "equal weights (control)",
    "Atten-Mixer, normalised query",
}  # fmt: skip


def kept(record: Run, name: str) -> Any:
    """An array of a record's test examples: from ``records/strata``, else from the data set, and kept there."""
    data = (record.result or {})["dataset"]
    path = style.RECORDS / "strata" / f"{data['name']}-{data['sha256'][:12]}-{name}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return file[name]
    found: Any = {name: look_up(record, name)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **found)
    return found[name]


def compared(suite_name: str, by: str) -> tuple[dict[str, str], list[Run], Strata | None, str]:
    """Model of each row, the runs, the comparison, and why there is none."""
    suite, found = suite_runs(suite_name)
    found = {label: runs for label, runs in found.items() if label == BASELINE or label in ROWS}
    models = {entry.label: entry.spec.model for entry in suite.entries}
    models |= {e.label: "srgnn-cosine" for e in suite.entries if (e.spec.model, e.spec.scorer) == ("srgnn", "cosine")}
    everyone = [each for runs in found.values() for each in runs]
    if not found.get(BASELINE) or len([label for label in found if found[label]]) < 2:
        return models, everyone, None, f"dissect suite analyses/suites/{suite_name}.toml --keep"
    there = {label: [each.path for each in runs] for label, runs in found.items() if runs}
    try:
        return models, everyone, compare_by(there, by, BASELINE, METRICS, lookup=kept), ""
    except DissectError as error:
        return models, everyone, None, str(error)


def draw(axes: Axes, found: Strata, models: dict[str, str], m: int) -> None:
    """One metric's differences to the baseline in each stratum."""
    strata = [each for each in found.strata if each.examples >= FEWEST]
    if not strata:
        axes.text(0.5, 0.5, f"no stratum of {FEWEST} examples", ha="center", va="center", transform=axes.transAxes)
        return
    places = [f"{each.label[5:] if found.by == 'day' else each.label}  n={each.examples:,}" for each in strata]
    series = []
    for number, row in enumerate(found.rows):
        points, bars = {}, {}
        for place, each in zip(places, strata, strict=True):
            difference = each.differences[number]
            if difference is not None:
                points[place] = [float(difference.estimate[m])]
                bars[place] = (float(difference.low[m]), float(difference.high[m]))
        if points:
            series.append(Series(row.label, models[row.label], points, bars))
    draw_axis(axes, series, places, {})
    axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
    axes.tick_params(axis="x", labelsize=7, rotation=90)
    axes.set_xlim(-0.5, len(places) - 0.5)


def main() -> list[Path]:
    """Draw the differences to SR-GNN in HR@20 and MRR@20 within strata."""
    found = [compared(*panel) for panel in PANELS]
    missing = [f"by {by}: {why}" for (_, by), (_, _, there, why) in zip(PANELS, found, strict=True) if there is None]
    if len(missing) == len(PANELS):
        commands = " and ".join(
            dict.fromkeys(f"dissect suite analyses/suites/{name}.toml --keep" for name, _ in PANELS)
        )
        return not_run("strata", [by for _, by in PANELS], commands)
    with rc_context(RC):
        figure = Figure(figsize=(13, 7.6))
        grid = figure.subplots(2, len(PANELS), squeeze=False, width_ratios=[8, 6, 3.2, 9])
        for column, ((name, by), (models, runs, there, _)) in enumerate(zip(PANELS, found, strict=True)):
            data = next((each.result["dataset"]["name"] for each in runs if each.result is not None), name)
            for m, metric in enumerate(METRICS):
                axes = grid[m, column]
                if there is None:
                    axes.text(0.5, 0.5, "not run", ha="center", va="center", transform=axes.transAxes)
                    continue
                draw(axes, there, models, m)
                axes.set_title(f"{data}, by {by}" if m == 0 else "", fontsize=9, loc="left")
                if column == 0:
                    axes.set_ylabel(f"{metric.upper()}: points over {BASELINE}")
                if m == 0:
                    axes.set_xticklabels([])
        whole = {id(each): each for _, runs, _, _ in found for each in runs}.values()
        about = " ".join(
            describe([each for each in whole if each.result is not None and each.result["dataset"]["name"] == data])
            for data in dict.fromkeys(each.result["dataset"]["name"] for each in whole if each.result is not None)
        )
        groups = "; ".join(f"{by}: {STRATA[by][2]}" for _, by in PANELS)
        caption = (
            f"{about} {groups}. n: test examples of the stratum; strata with fewer than {FEWEST} are left out. Bars: "
            "95% intervals over test sessions (paired bootstrap, whole sessions), of the mean over seeds, each by "
            "itself."
        ) + (f" Not run: {'; '.join(missing)}." if missing else "")
        finish(figure, grid[0, 0], f"Differences to {BASELINE} within groups of test examples", caption, top=0.9)
    return save_figure(figure, HERE, "strata")


if __name__ == "__main__":
    run(main)
