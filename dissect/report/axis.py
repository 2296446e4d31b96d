"""A metric against one choice, such as levels or session length: seeds as points, their mean as a line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dissect.report import style
from dissect.report.formats import span
from dissect.report.runs import Run

#: Colour, dash and marker by model; a model keeps its own in every figure.
MODELS: dict[str, tuple[str, Any, str]] = {
    "attenmixer": ("#D55E00", "-", "o"),
    "attenmixer-ours": ("#CC79A7", "-", "P"),
    "attenmixer-official": ("#E69F00", (0, (6, 2)), "v"),
    "meanlast": ("#000000", (0, (4, 3)), "s"),
    "meanpool": ("#009E73", "-", "D"),
    "srgnn": ("#0072B2", "-", "^"),
    "srgnn+attenmixer": ("#56B4E9", (0, (6, 2)), "X"),
    "srgnn-cosine": ("#332288", (0, (1, 2)), "v"),
    "srgnn-identity": ("#0072B2", (0, (1, 2)), "h"),
    "gcsan": ("#882255", (0, (3, 1, 1, 1)), "p"),
    "last-item": ("#666666", (0, (1, 2)), "h"),
    "attenmixer-pr": ("#332288", (0, (6, 2)), "v"),
}


@dataclass(frozen=True)
class Series:
    """One line of a panel.

    Attributes
    ----------
    label : str
    model : str
        A key of `MODELS`.
    points : mapping
        Place on the axis -> values, one a seed.
    bars : mapping, optional
        Place -> low and high end of an interval; by default Student's of the mean over seeds.
    of : mapping, optional
        Place -> what its values are of, such as their seeds; neighbours that differ in it are not joined by the line.
    """

    label: str
    model: str
    points: Mapping[Any, Sequence[float]]
    bars: Mapping[Any, tuple[float, float]] | None = None
    of: Mapping[Any, Any] | None = None

    def joined(self, places: Sequence[Any]) -> list[list[Any]]:
        """`places` in pieces whose neighbours are of the same."""
        pieces: list[list[Any]] = []
        for place in places:
            same = self.of is None or (pieces and self.of[pieces[-1][-1]] == self.of[place])
            if pieces and same:
                pieces[-1].append(place)
            else:
                pieces.append([place])
        return pieces


def interval(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval of a mean over seeds; 0 for one seed, of which nothing can be said."""
    if len(values) < 2:
        return 0.0
    from scipy import stats

    return float(stats.sem(values) * stats.t.ppf(0.5 + level / 2, len(values) - 1))


def _bar(series: Series, place: Any, mean: float) -> tuple[float, float]:
    """Lengths of the bar below and above the mean."""
    if series.bars is None:
        half = interval(series.points[place])
        return half, half
    low, high = series.bars[place]
    return max(mean - low, 0.0), max(high - mean, 0.0)


def draw_axis(
    axes: Axes, series: Sequence[Series], places: Sequence[Any], references: Mapping[str, tuple[str, Sequence[float]]]
) -> None:
    """Draw `series` over `places`, evenly spaced, with `references` (label -> model, values) as level lines.

    Bars are 95% intervals of the mean over seeds (Student's t), small points the seeds.
    """
    at = {place: i for i, place in enumerate(places)}
    series = [each for each in series if any(each.points.get(place) for place in places)]  # no line, no legend
    for i, each in enumerate(series):
        color, dash, marker = MODELS[each.model]
        there = [place for place in places if each.points.get(place)]
        aside = 0.06 * (i - (len(series) - 1) / 2)
        for number, piece in enumerate(each.joined(there)):
            x = np.array([at[place] for place in piece], float) + aside
            means = [float(np.mean(each.points[place])) for place in piece]
            bars = np.array([_bar(each, place, mean) for place, mean in zip(piece, means, strict=True)]).T
            axes.errorbar(
                x, means, yerr=bars, color=color, linestyle=dash, marker=marker, markersize=6, capsize=3,
                label=None if number else each.label, linewidth=1.6, zorder=3,
            )  # fmt: skip
        for place in there:
            values = each.points[place]
            axes.plot([at[place] + aside] * len(values), values, ".", color=color, alpha=0.4, zorder=2)
    for label, (model, values) in references.items():
        if not len(values):
            continue
        color, dash, _ = MODELS[model]
        axes.axhline(float(np.mean(values)), color=color, linestyle=dash, linewidth=1.4, label=label, zorder=1)
        half = interval(values)
        if half:
            axes.axhspan(float(np.mean(values)) - half, float(np.mean(values)) + half, color=color, alpha=0.10, lw=0)
    axes.set_xticks(range(len(places)), [str(place) for place in places])
    axes.set_xlim(-0.5, len(places) - 0.5)  # every place is on the axis, run or not


def axis_figure(
    panels: Mapping[str, tuple[Sequence[Series], Mapping[str, tuple[str, Sequence[float]]]]],
    places: Sequence[Any],
    *,
    xlabel: str,
    title: str,
    caption: str,
) -> Figure:
    """One panel for each metric (its name on the y axis), one legend, a caption below.

    Parameters
    ----------
    panels : mapping
        Name of the metric -> series, references; see `draw_axis`.
    places : sequence
        What stands on the axis, in order.
    xlabel, title, caption : str
    """
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(9.6, 4.6))
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, (series, references)) in zip(grid, panels.items(), strict=True):
            draw_axis(axes, series, places, references)
            axes.set_ylabel(name, fontsize=9)
            axes.set_xlabel(xlabel)
        finish(figure, grid[0], title, caption)
    return figure


def finish(
    figure: Figure, legend_of: Axes, title: str, caption: str, top: float = 0.0, columns: int = 4, width: int = 150
) -> None:
    """Title, one legend of `columns` under it, and a caption at the foot, `width` letters wide; the panels between.

    `top` is the share of the height below title and legend; by default what these need.
    """
    lines = textwrap.wrap(caption, width, break_on_hyphens=False)  # names and commands stay whole
    height = figure.get_size_inches()[1]
    foot = (0.17 * len(lines) + 0.1) / height
    figure.suptitle(title, x=0.01, y=1 - 0.07 / height, ha="left", fontsize=11)
    handles, labels = legend_of.get_legend_handles_labels()
    if handles:
        at = (0.005, 1 - 0.28 / height)
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=at, ncols=columns, fontsize=8)
    figure.text(0.01, 0.012, "\n".join(lines), fontsize=7.5, color=style.MUTED, va="bottom", linespacing=1.35)
    over = 0.4 + 0.19 * -(-len(handles) // columns)
    figure.tight_layout(rect=(0, foot, 1, top or 1 - over / height))


def seeds_of(runs: Iterable[Run]) -> tuple[int, ...]:
    """The seeds of finished runs, ascending, each once."""
    return tuple(sorted({run.spec["seed"] for run in runs if run.result is not None}))


def said_seeds(seeds: Iterable[int]) -> str:
    """``seed 0`` or ``seeds 0, 1, 2``."""
    listed = [str(seed) for seed in seeds]
    return f"seed{'s' * (len(listed) > 1)} {', '.join(listed)}"


def fewer_seeds(found: Mapping[str, Sequence[Run]]) -> str:
    """Which rows lack seeds that others have, as a sentence after a space; nothing where none does."""
    every = {label: seeds_of(runs) for label, runs in found.items() if seeds_of(runs)}
    most = sorted({seed for seeds in every.values() for seed in seeds})
    fewer = [f"{label}: {', '.join(map(str, seeds))}" for label, seeds in every.items() if list(seeds) != most]
    return f" Of these seeds, rows with fewer have: {'; '.join(fewer)}." if fewer else ""


def describe(runs: Sequence[Run], *, seeds: bool = True) -> str:
    """Data set, protocol, N, setting and seeds of some finished runs, as a caption says them.

    `seeds` says whether they are named: they are those of all the runs together, a row of them may have fewer (see
    `fewer_seeds`).
    """
    results = [run.result for run in runs if run.result is not None]
    if not results:
        return "not run"
    data, protocol = results[0]["dataset"], results[0]["protocol"]
    trained = span(result["dataset"]["train_examples"] for result in results)
    subset = f", {data['max_train']:,} training sessions drawn anew for each seed" if data.get("max_train") else ""
    of_seeds = f"; {said_seeds(sorted({result['seed'] for result in results}))}" if seeds else ""
    rounded = sorted({run.spec["model"] for run in runs if run.spec.get("precision") == "bf16"})
    setting = [f"{name} {_listed(run.spec.get(key) for run in runs)}" for key, name in _SETTING]
    steps = sorted({run.spec.get("steps", 0) for run in runs})
    epochs = _listed(run.spec.get("epochs") for run in runs if not run.spec.get("steps"))
    setting += [f"epochs at most {epochs}"] * bool(epochs)
    setting += [f"{' or '.join(f'{n:,}' for n in steps if n)} steps"] * any(steps)
    return (
        f"{data['name']}{subset}, {trained} training examples, protocol {protocol['name']}"
        f"{', refit' if protocol['refit'] else ''}, ties {protocol['ties']}; "
        f"N = {data['test_examples']:,} test examples; {', '.join(setting)}{of_seeds}"
        f"{'; products of bfloat16 factors: ' * bool(rounded)}{', '.join(rounded)}."
    )


_SETTING = (("dim", "d"), ("batch_size", "batch"), ("lr", "lr"))


def _listed(values: Iterable[Any]) -> str:
    return " or ".join(sorted({f"{value:g}" for value in values if value is not None}))
