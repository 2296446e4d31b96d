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
from published import shared
from style import GRID, HERE, INK, RC, not_run, run, suite_runs

from dissect.errors import DissectError
from dissect.experiment.strata import look_up
from dissect.report.axis import MODELS, describe, finish, said_seeds, seeds_of
from dissect.report.plot import save_figure
from dissect.report.runs import Run
from dissect.report.strata import STRATA, Strata, Stratum, compare_by

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


#: Label -> its comparison with the baseline, on the seeds that both have.
Compared = dict[str, Strata]


def compared(suite_name: str, by: str) -> tuple[dict[str, str], list[Run], Compared, str]:
    """Model of each row, the runs, the comparisons, and why there are none."""
    suite, found = suite_runs(suite_name)
    found = {label: runs for label, runs in found.items() if label == BASELINE or label in ROWS}
    models = {entry.label: entry.spec.model for entry in suite.entries}
    models |= {e.label: "srgnn-cosine" for e in suite.entries if (e.spec.model, e.spec.scorer) == ("srgnn", "cosine")}
    everyone = [each for runs in found.values() for each in runs]
    pairs = {label: shared(runs, found.get(BASELINE, [])) for label, runs in found.items() if label != BASELINE}
    paths = {
        label: {BASELINE: [each.path for each in theirs], label: [each.path for each in mine]}
        for label, (mine, theirs) in pairs.items()
        if mine
    }
    if not paths:
        return models, everyone, {}, f"dissect suite analyses/suites/{suite_name}.toml --keep"
    try:
        apart = {label: compare_by(pair, by, BASELINE, METRICS, lookup=kept) for label, pair in paths.items()}
    except DissectError as error:
        return models, everyone, {}, str(error)
    return models, everyone, apart, ""


def shown(found: Strata) -> list[Stratum]:
    """The strata that are drawn."""
    return [each for each in found.strata if each.examples >= FEWEST]


def draw(axes: Axes, found: Compared, models: dict[str, str], m: int) -> None:
    """One metric's differences to the baseline: a line of the panel for each stratum, one mark below another in it."""
    strata = shown(next(iter(found.values()))) if found else []
    if not strata:
        why = f"no stratum of {FEWEST} examples" if found else "not run"
        axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    for place, (label, apart) in enumerate(found.items()):
        color, _, marker = MODELS[models[label]]
        differences = [each.differences[1] for each in shown(apart)]
        value, low, high = (np.array([float(each[i][m]) for each in differences if each is not None]) for i in range(3))
        y = np.arange(len(strata)) + 0.72 * ((place + 0.5) / len(found) - 0.5)
        axes.errorbar(
            value, y, xerr=np.array([value - low, high - value]), color=color, linestyle="none", marker=marker,
            markersize=4, linewidth=1.2, label=label, zorder=3,
        )  # fmt: skip
    by = next(iter(found.values())).by
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
    for edge in range(len(strata) - 1):
        axes.axhline(edge + 0.5, color=GRID, linewidth=0.6, zorder=0)
    axes.grid(False, axis="y")
    axes.set_ylim(len(strata) - 0.5, -0.5)
    names = [f"{each.label[5:] if by == 'day' else each.label}  n={each.examples:,}" for each in strata]
    axes.set_yticks(range(len(strata)), names if m == 0 else [""] * len(strata))


def main() -> list[Path]:
    """Draw the differences to SR-GNN in HR@20 and MRR@20 within strata."""
    found = [compared(*panel) for panel in PANELS]
    drawn = list(dict.fromkeys(label for _, _, there, _ in found for label in there))
    missing = [f"by {by}: {why}" for (_, by), (_, _, there, why) in zip(PANELS, found, strict=True) if not there]
    for (name, by), (_, _, there, _) in zip(PANELS, found, strict=True):
        if there and (absent := [label for label in drawn if label not in there]):
            missing.append(f"on {name}, by {by}: {', '.join(absent)}")
    if not drawn:
        commands = " and ".join(
            dict.fromkeys(f"dissect suite analyses/suites/{name}.toml --keep" for name, _ in PANELS)
        )
        return not_run("strata", [by for _, by in PANELS], commands)
    with rc_context({**RC, "xtick.labelsize": 8, "ytick.labelsize": 8}):
        heights = [max([2, *(len(shown(each)) for each in there.values())]) for _, _, there, _ in found]
        figure = Figure(figsize=(7.4, 2.6 + 0.44 * sum(heights)))
        grid = figure.subplots(len(PANELS), 2, squeeze=False, height_ratios=heights)
        for number, ((name, by), (models, runs, there, _)) in enumerate(zip(PANELS, found, strict=True)):
            data = next((each.result["dataset"]["name"] for each in runs if each.result is not None), name)
            for m, metric in enumerate(METRICS):
                axes = grid[number, m]
                draw(axes, there, models, m)
                axes.set_title(f"{data}, by {by}" if m == 0 else "", fontsize=9, loc="left")
                if number == len(PANELS) - 1:
                    axes.set_xlabel(f"{metric.upper()}: points over {BASELINE}", fontsize=9)
        whole = {id(each): each for _, runs, _, _ in found for each in runs}.values()
        about = " ".join(
            describe([each for each in whole if each.result is not None and each.result["dataset"]["name"] == data])
            for data in dict.fromkeys(each.result["dataset"]["name"] for each in whole if each.result is not None)
        )
        groups = "; ".join(f"{by}: {STRATA[by][2]}" for _, by in PANELS)
        few = {
            f"{label}: {said_seeds(each.rows[1].group.seeds)}"
            for _, runs, there, _ in found
            for label, each in there.items()
            if set(each.rows[1].group.seeds) != set(seeds_of(runs))
        }
        fewer = f" Of fewer seeds than the others of the data set: {'; '.join(sorted(few))}." if few else ""
        caption = (
            f"{about} {groups}. n: test examples of the stratum; strata with fewer than {FEWEST} are left out. Bars: "
            "95% intervals over test sessions (paired bootstrap, whole sessions), of the mean over seeds, each by "
            f"itself; of the seeds that a row and {BASELINE} both have, on which they say nothing.{fewer}"
        ) + (f" Not run: {'; '.join(missing)}." if missing else "")
        title = f"Differences to {BASELINE} within groups of test examples"
        finish(figure, grid[0, 0], title, caption, columns=3, width=118)
    return save_figure(figure, HERE, "strata")


if __name__ == "__main__":
    run(main)
