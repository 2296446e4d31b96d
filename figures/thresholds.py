"""Densities at every threshold, and what the model that such a threshold leaves can still do.

Claim under test (Atten-Mixer, WSDM'23, Section 3.3): propagation's density approaches zero, attention's stays higher.
The paper counts a weight as kept where it is larger than some threshold, and names none; the instrument's own rule is
log alpha < 3.

Command: ``make figures`` (or ``python figures/thresholds.py``), from the records of::

    dissect suite analyses/suites/densities.toml --variant full --keep
    dissect intervene RUN --alone magnitude     # of each, for the curves of single parts

Expected under the claim: attention's curve above propagation's wherever the pruned model (lower panels) still
recommends as well as the whole one. Dashes are columns of pure noise, which have nothing to say: what keeps no more
than they do has not shown that it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import HERE, MUTED, RC, not_run, of_part, run, suite_runs

from dissect.report.axis import describe, finish, said_seeds
from dissect.report.plot import save_figure
from dissect.report.runs import Run

ROWS = ("all wrapped, local noise", "all wrapped, weight noise")
#: Rule -> name of its axis and where it is drawn: between weights that nearly all, and nearly none, are kept at.
RULES: dict[str, tuple[str, float, float]] = {
    "log-alpha": ("kept where log alpha is below", -6.0, 8.0),
    "magnitude": ("kept where |mean weight| is above", 3e-3, 1.0),
    "signed": ("kept where the mean weight is above", 3e-3, 1.0),
}
#: Points of HR@20 that a model may lose and count as whole.
FREE = 1.0
#: The same of a part that is pruned alone: few lose more than a point.
FREE_ALONE = 0.5
#: |mean weight| from which on the paper's order shows.
LARGE = 0.28
#: Points lost that are drawn of a part alone: without its transformation nothing is left of the model.
MOST = 5.0
#: What a rule counts by, for titles.
SHORT = {"log-alpha": "log alpha", "magnitude": "|mean|", "signed": "the signed mean"}


def main() -> list[Path]:
    """Draw densities by part above, and HR@20 of the pruned model below, against each rule's threshold."""
    title = "Densities of SR-GNN's parts at every threshold, and what is left of the model there"
    return draw("thresholds", "densities", ROWS, ("log-alpha", "magnitude"), title)


def draw(name: str, suite: str, labels: Sequence[str], rules: Sequence[str], title: str) -> list[Path]:
    """Draw a suite's rows side by side, each by each of some rules.

    Parameters
    ----------
    name : str
        The figure's.
    suite : str
        Of ``analyses/suites/``, the variant ``full``.
    labels : sequence of str
        Rows of it; all their parts are wrapped.
    rules : sequence of str
        Of `RULES`, which the runs' ``thresholds.json`` and ``pruning.json`` have.
    title : str
    """
    _, found = suite_runs(suite, "full")
    rows = {label: found[label] for label in labels if found[label]}
    if not rows:
        return not_run(name, list(labels), f"dissect suite analyses/suites/{suite}.toml --variant full --keep")
    with mpl.rc_context(RC):
        figure = Figure(figsize=(12, 8.6))
        panels = figure.subplots(
            3, len(rules) * len(rows), sharey="row", height_ratios=(1.5, 1, 1), squeeze=False
        )  # fmt: skip
        places = [(label, rule) for label in rows for rule in rules]
        for (label, rule), (top, middle, bottom) in zip(places, panels.T, strict=True):
            axis, low, high = RULES[rule]
            _densities(top, rows[label], rule)
            free = _accuracy(middle, rows[label], rule)
            _each_alone(bottom, rows[label], rule)
            for axes in (top, middle, bottom):
                axes.axvspan(*free, color="#009E73", alpha=0.10, linewidth=0, zorder=0)
                axes.set_xlim(low, high)  # first: an empty panel has nothing else that a logarithm could be taken of
                if rule != "log-alpha":
                    axes.set_xscale("log")
            top.set_title(f"{label.split(', ')[-1]}, by {SHORT[rule]}")
            top.tick_params(labelbottom=False)
            middle.tick_params(labelbottom=False)
            bottom.set_xlabel(axis)
        panels[0, 0].set_ylabel("density: kept / total")
        panels[1, 0].set_ylabel("HR@20 (%), all pruned")
        panels[2, 0].set_ylabel("HR@20, change by\none part alone")
        for label, rule in places:
            _say_how_far(label, rows[label], rule)
        everyone = [r for runs in rows.values() for r in runs]
        examples = json.loads((everyone[0].path / "pruning.json").read_text())["examples"]
        finish(
            figure,
            panels[0, 0],
            title,
            f"{describe(everyone)} All parts wrapped. Thin: single seeds; dashes: columns of noise. "
            f"Green: where the pruned model loses less than {FREE:g} point of HR@20 in every seed. "
            f"The lower panels are measured on {examples:,} of the test examples: in the middle all parts pruned, "
            f"at the bottom one part alone and the others whole ({_alone(everyone)}), in points, cut off at {-MOST:g}.",
            top=0.955,
            width=190,
        )
    return save_figure(figure, HERE, name)


def _alone(runs: Sequence[Run]) -> str:
    """Which runs have curves of each part pruned by itself, and by which rules."""
    found: dict[tuple[int, ...], list[str]] = {}
    for rule in RULES:
        seeds = {r.spec["seed"] for r in runs if _alone_points(r, rule)}
        if seeds:
            found.setdefault(tuple(sorted(seeds)), []).append(SHORT[rule])
    return "; ".join(f"by {' and '.join(rules)}, {said_seeds(seeds)}" for seeds, rules in found.items()) or "not run"


def _say_how_far(label: str, runs: Sequence[Run], rule: str) -> None:
    """Print how empty each part alone may become before the model loses `FREE_ALONE`, at the thresholds recorded.

    By size also what is kept and lost at the first of them from `LARGE` on, and lost without any of its weights.
    """
    curves = {r.spec["seed"]: points for r in runs if (points := _alone_points(r, rule))}
    if not curves:
        return
    print(f"{label}, by {SHORT[rule]}, {said_seeds(curves)}, HR@20 of a part alone:")
    for part in next(iter(curves.values()))[0]["alone"]:
        rows = [[(p["threshold"], p["alone"][part]) for p in points] for points in curves.values()]
        free = [list(takewhile(lambda row: _change(row[1]) > -FREE_ALONE, row))[-1][1] for row in rows]
        said = [f"less than {FREE_ALONE:g} point lost down to {_span([f['kept'] / f['total'] for f in free], 2)}"]
        if rule == "magnitude":
            large = [next(found for found in row if found[0] >= LARGE or found[1]["kept"] == 0) for row in rows]
            said += [
                f"above {_span([at for at, _ in large], 2)} it keeps "
                + _span([f["kept"] / f["total"] for _, f in large], 3),
                f"and changes by {_span([_change(f) for _, f in large], 2)}",
                f"without any weight by {_span([_change(row[-1][1]) for row in rows], 2)}",
            ]
        print(f"  {part}: {', '.join(said)}")


def _alone_points(run: Run, rule: str) -> list[Any]:
    """Points of a rule's curve at which each part was pruned by itself, the fullest first."""
    points = json.loads((run.path / "pruning.json").read_text())["points"]
    return sorted((p for p in points if p["rule"] == rule and "alone" in p), key=lambda p: -p["kept"])


def _change(found: Any) -> float:
    return found["difference"]["hr@20"][0]


def _span(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def _densities(axes: Axes, runs: Sequence[Run], rule: str) -> None:
    """Kept / total of each part and of its noise columns: seeds thin, their mean thick."""
    curves = [json.loads((r.path / "thresholds.json").read_text())[rule] for r in runs]
    for part in dict.fromkeys(row["part"] for curve in curves for row in curve if row["total"]):
        mine = [row for curve in curves for row in curve if row["part"] == part]
        color, _, marker = of_part(part)
        x = np.array(mine[0]["thresholds"])
        for kept, total, dash, name in (
            ("kept", "total", "-", part),
            ("shadow_kept", "shadow_total", (0, (3, 2)), None),
        ):
            if not all(row.get(total) for row in mine):
                continue
            y = np.array([np.array(row[kept]) / row[total] for row in mine])
            axes.plot(x, y.T, color=color, alpha=0.25, linewidth=0.6, linestyle=dash)
            axes.plot(
                x, y.mean(0), color=color, linestyle=dash, linewidth=1.8 if name else 1.0, label=name,
                marker=marker if name else None, markersize=4, markevery=2,
            )  # fmt: skip
    axes.set_ylim(0, 1)


def _accuracy(axes: Axes, runs: Sequence[Run], rule: str) -> tuple[float, float]:
    """HR@20 against the threshold; between which thresholds it is less than `FREE` below that of all weights."""
    ends: list[tuple[float, float]] = []
    for r in runs:
        points: list[dict[str, Any]] = json.loads((r.path / "pruning.json").read_text())["points"]
        mine = sorted((p for p in points if p["rule"] == rule), key=lambda p: p["kept"])
        x, y = np.array([p["threshold"] for p in mine]), np.array([p["hr@20"] for p in mine])
        axes.plot(x, y, color=MUTED, marker=".", markersize=4, linewidth=1)
        whole = y[-1]  # every weight is kept there
        fine = x[y > whole - FREE]
        ends.append((float(fine.min()), float(fine.max())))
    axes.set_ylim(0, None)
    lows, highs = zip(*ends, strict=True)
    return max(lows), min(highs)  # in every seed


def _each_alone(axes: Axes, runs: Sequence[Run], rule: str) -> None:
    """What HR@20 loses where one part alone is pruned, against the threshold: seeds thin, their mean thick."""
    curves: dict[str, list[tuple[Any, Any]]] = {}
    for r in runs:
        mine = sorted(_alone_points(r, rule), key=lambda p: p["threshold"])
        for part in mine[0]["alone"] if mine else ():
            lost = np.array([_change(p["alone"][part]) for p in mine])
            curves.setdefault(part, []).append((np.array([p["threshold"] for p in mine]), lost))
    for part, found in curves.items():
        color, _, _ = of_part(part)
        for x, y in found:
            axes.plot(x, y, color=color, linewidth=0.6, alpha=0.4)
        common = np.unique(np.concatenate([x for x, _ in found]))  # each seed has thresholds of its own
        mean = np.mean([np.interp(common, x, y) for x, y in found], 0)
        axes.plot(common, mean, color=color, linewidth=1.8)
    if not curves:
        axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=MUTED)
    axes.set_ylim(-MOST, MOST / 10)


if __name__ == "__main__":
    run(main)
