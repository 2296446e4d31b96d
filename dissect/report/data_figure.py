"""A data set at a glance: lengths of its sessions, popularity of its items, what its parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from dissect.report import style
from dissect.report.plot import save_figure

#: Lengths above this share a place on the axis: a handful of long sessions would squeeze the others.
LONGEST = 20
TRAIN, TEST = "#0072B2", "#D55E00"


def stats_figure(name: str, numbers: Mapping[str, float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Three panels: session lengths, clicks against items, shares that training and test have in common.

    Parameters
    ----------
    name : str
        Of the data set.
    numbers : mapping
        As `dissect.data.summary.stats` counts them.
    curves : mapping
        As `dissect.data.summary.curves` counts them.
    """
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(12.5, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        lengths, popular, shared = figure.subplots(1, 3, width_ratios=(1.05, 1, 1.05))
        _lengths(lengths, curves)
        _popularity(popular, numbers, curves)
        _shares(shared, numbers)
        figure.suptitle(
            f"{name}: {numbers['sessions']:,} training and {numbers['test_sessions']:,} test sessions, "
            f"{numbers['all_clicks']:,} clicks, {numbers['items']:,} items",
            x=0.01, ha="left", fontsize=11, color=style.INK,
        )  # fmt: skip
        return figure


def _lengths(axes: Axes, curves: Mapping[str, Sequence[float]]) -> None:
    longest = max(len(curves["train_lengths"]), len(curves["test_lengths"]))
    for part, label, colour, dash, marker in (
        ("train", "training", TRAIN, "-", "o"),
        ("test", "test", TEST, (0, (5, 2)), "^"),
    ):
        shares = list(curves[f"{part}_lengths"])
        if longest > LONGEST:
            shares = [*shares[: LONGEST - 1], sum(shares[LONGEST - 1 :])]
        axes.plot(
            range(1, len(shares) + 1), shares, color=colour, linestyle=dash, marker=marker, markersize=4.5, label=label
        )
    axes.set_xlim(left=0.5)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if longest > LONGEST:
        axes.set_xticks([1, 5, 10, 15, LONGEST], ["1", "5", "10", "15", f"{LONGEST}+"])
    axes.set_title("Session lengths")
    axes.set_xlabel("clicks in a session")
    axes.set_ylabel("share of sessions")
    axes.legend(loc="upper right")


def _popularity(axes: Axes, numbers: Mapping[str, float], curves: Mapping[str, Sequence[float]]) -> None:
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.plot(curves["items"], curves["clicks"], color=TRAIN, linewidth=2)
    axes.fill_between(curves["items"], curves["items"], curves["clicks"], color=TRAIN, alpha=0.1, linewidth=0)
    tenth = numbers["top_10_percent_share"]
    axes.plot([0.1], [tenth], "o", color=TRAIN, markersize=6)
    text = f"10% of items: {tenth:.0%} of clicks\nGini {numbers['gini']:.2f}"
    axes.text(0.97, 0.05, text, transform=axes.transAxes, ha="right", linespacing=1.5, color=style.INK)
    axes.text(0.66, 0.62, "all alike", fontsize=8.5, color=style.MUTED, rotation=33, va="top")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("Popularity in training")
    axes.set_xlabel("share of items, most popular first")
    axes.set_ylabel("share of clicks")


def _shares(axes: Axes, numbers: Mapping[str, float]) -> None:
    """Bars of shares, each with the count that it stands for."""
    bars = (
        ("training sessions\nwith a repeated item", round(numbers["share_with_repeats"] * numbers["sessions"]),
         numbers["sessions"], TRAIN),
        ("training sessions\nthat repeat another", numbers["repeated_sessions"], numbers["sessions"], TRAIN),
        ("test sessions\nthat are in training", numbers["test_sessions_in_training"], numbers["test_sessions"], TEST),
        ("test examples\nthat are in training", numbers["repeated_examples"], numbers["test_prefixes"], TEST),
        ("test targets that\ntheir prefix shows", numbers["repeated_targets"], numbers["test_prefixes"], TEST),
        ("test targets that\ntraining never shows", numbers["unseen_targets"], numbers["test_prefixes"], TEST),
    )  # fmt: skip
    shares = [count / max(total, 1) for _, count, total, _ in bars]
    places = range(len(bars))
    axes.barh(places, shares, color=[colour for *_, colour in bars], height=0.62)
    for place, share, (_, count, total, _) in zip(places, shares, bars, strict=True):
        text = f"{share:.1%}  ({count:,} / {total:,})"
        axes.annotate(text, (share, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [label for label, *_ in bars], fontsize=8.5)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    right = max(0.05, *shares) * 1.75  # room for the counts
    axes.set_xlim(0, right)
    axes.set_xticks([tick for tick in MaxNLocator(4).tick_values(0, right) if tick <= min(1, right)])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0 if max(shares) > 0.04 else 1))
    axes.set_title("Repeats and overlap")


def write_stats_figure(
    name: str, numbers: Mapping[str, float], curves: Mapping[str, Sequence[float]], out: Path
) -> list[Path]:
    """Write the figure as ``NAME_stats.svg`` and ``.png`` into `out`; returns both paths."""
    return save_figure(stats_figure(name, numbers, curves), out, f"{name}_stats")
