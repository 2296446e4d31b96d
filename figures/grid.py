"""Encoders times readouts: accuracy of every pair, and what share of its spread each half explains.

Claim under test (Atten-Mixer, WSDM'23, Sections 3.3 and 5): what propagates hardly matters, what reads out does.

Command: ``make figures`` (or ``python figures/grid.py``), from the records of::

    dissect suite analyses/suites/grid.toml --keep

Expected under the claim: columns (readouts) differ, rows (encoders) do not; the readout has by far the longest bar.
Share: of the variance of a run drawn at random from the grid; its interval, over seeds, as `dissect.report.variance`
says. Dots: the least and the largest share when an encoder or a readout is left out. Edge-order states are wider than
the items, so that readouts without a map of their own are followed by one. Below: what a pair has of weights beside the
items, and the seconds an epoch of its fastest run (at different hours of a shared machine).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from style import HERE, INK, MUTED, RC, not_run, run, suite_runs

from dissect.report.axis import describe
from dissect.report.groups import finished
from dissect.report.plot import save_figure
from dissect.report.runs import Run
from dissect.report.variance import SOURCES, Grid, grid_of, seed_by_half, split_variance, without_one

NAMES = {"rows": "encoder", "columns": "readout", "interaction": "interaction", "seed": "seed"}
METRICS = ("hr@20", "mrr@20")


def main() -> list[Path]:
    """Draw heat maps of HR@20 and MRR@20, and the shares beside each."""
    import matplotlib as mpl

    suite, found = suite_runs("grid")
    everything = [one for runs in found.values() for one in runs]
    if not everything:
        return not_run("grid", ["every pair of halves"], "dissect suite analyses/suites/grid.toml --keep")
    encoders = tuple(dict.fromkeys(entry.spec.encoder for entry in suite.entries))
    readouts = tuple(dict.fromkeys(entry.spec.readout for entry in suite.entries))
    rates = sorted({entry.spec.lr for entry in suite.entries})
    with mpl.rc_context(RC | {"axes.grid": False}):
        figure = Figure(figsize=(11, 10.4))
        fewer, count = False, np.zeros(1, int)
        above, below = figure.subfigures(2, 1, height_ratios=(7.2, 3.2))  # pyright: ignore[reportGeneralTypeIssues]
        axes = above.subplots(2, 2, width_ratios=(1.7, 1))
        for (left, right), metric in zip(axes, METRICS, strict=True):
            grid = grid_of(everything, metric, rates)
            mean, count = _mean(grid, encoders, readouts)
            few = np.where((count > 0) & (count < count.max()), "*", "")
            fewer |= bool((few == "*").any())
            if not np.isfinite(mean).any():
                return not_run("grid", ["both rates of one pair"], "dissect suite analyses/suites/grid.toml --keep")
            lowest = float(np.nanquantile(mean, 0.05))  # one pair far below the others would take all of the colours
            _heat_map(left, mean, f"{metric.upper()}, %", (encoders, readouts), ".1f", few, vmin=lowest)
            if (encoders, readouts) == (grid.encoders, grid.readouts) and grid.whole.shape[2] > 1:
                _shares(right, grid.whole, metric)
                _without(grid, metric)
            else:
                right.axis("off")
                right.text(0, 0.5, "shares: not run\n(two seeds of every pair are needed)", color=MUTED)
        star = f" *: fewer seeds than {count.max()}." if fewer else ""
        either = " or ".join(f"{rate:g}" for rate in rates)
        caption = (
            f"{describe(everything)} Numbers: means over seeds, each of that rate ({either}) which validation prefers; "
            "the lowest twentieth of the pairs share the darkest colour. Interaction: of neither half alone. "
            f"{len(everything)} of {len(suite.entries)} runs.{star}"
        )
        for ax, (title, found_there, form) in zip(
            below.subplots(1, 2),
            (
                ("weights beside the items, thousands", lambda r: _weights(r) / 1e3, ".1f"),
                ("seconds an epoch, the fastest run", lambda r: r["seconds_per_epoch"], ".0f"),
            ),
            strict=True,
        ):
            cost = _least(everything, encoders, readouts, found_there)
            _heat_map(ax, cost, title, (encoders, readouts), form, np.full(cost.shape, ""), cmap="cividis_r")
        figure.text(0.01, 0.006, caption, fontsize=7.5, color=MUTED, wrap=True)
        above.subplots_adjust(left=0.115, right=0.975, top=0.96, bottom=0.12, hspace=0.52, wspace=0.26)
        below.subplots_adjust(left=0.115, right=0.975, top=0.9, bottom=0.36, wspace=0.3)
    return save_figure(figure, HERE, "grid")


def _without(grid: Grid, metric: str) -> None:
    """Print what is left of the shares without each encoder, each readout, and the two that know one click at most."""
    single = [((name,), ()) for name in grid.encoders] + [((), (name,)) for name in grid.readouts]
    for encoders, readouts in [*single, (("identity",), ("last-item",))]:
        rows = [i for i, name in enumerate(grid.encoders) if name not in encoders]
        columns = [j for j, name in enumerate(grid.readouts) if name not in readouts]
        split = split_variance(grid.whole[np.ix_(rows, columns)], resamples=2000)
        shares = ", ".join(
            f"{NAMES[s]} {100 * split.share[s]:.0f} ({100 * split.low[s]:.0f} to {100 * split.high[s]:.0f})"
            for s in SOURCES
        )
        apart, low, high = (100 * end for end in split.difference)
        left = [*(f"encoder {name}" for name in encoders), *(f"readout {name}" for name in readouts)]
        print(
            f"{metric} without {' and '.join(left)}: {shares}, "
            f"encoder less readout {apart:.0f} ({low:.0f} to {high:.0f})"
        )


def _heat_map(
    axes: Axes,
    values: NDArray[np.float64],
    title: str,
    names: tuple[Sequence[str], Sequence[str]],
    form: str,
    marks: NDArray[np.str_],
    vmin: float | None = None,
    cmap: str = "cividis",
) -> None:
    """Encoders down, readouts across; each number in black or white, whichever can be read there."""
    image = axes.imshow(values, cmap=cmap, aspect="auto", vmin=vmin)
    for (i, j), value in np.ndenumerate(values):
        there = bool(np.isfinite(value))
        text = f"{value:{form}}{marks[i, j]}" if there else "not run"
        red, green, blue, _ = image.to_rgba(value)
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if there and dark else "black")
    axes.set_xticks(range(len(names[1])), names[1], rotation=20, ha="right")
    axes.set_yticks(range(len(names[0])), names[0])
    axes.set_title(title)
    axes.set_xlabel("readout")
    axes.set_ylabel("encoder")
    axes.figure.colorbar(image, ax=axes, pad=0.02, extend="neither" if vmin is None else "min")


def _weights(result: Mapping[str, Any]) -> float:
    return result["parameters"] - result["dataset"]["items"] * result["dim"]


def _least(
    runs: Iterable[Run], encoders: Sequence[str], readouts: Sequence[str], of: Callable[[dict[str, Any]], float]
) -> NDArray[np.float64]:
    """The least figure of each pair's runs, nan without any."""
    out = np.full((len(encoders), len(readouts)), np.nan)
    for one in runs:
        at = encoders.index(one.spec["encoder"]), readouts.index(one.spec["readout"])
        out[at] = np.fmin(out[at], of({**finished(one), "dim": one.spec["dim"]}))
    return out


def _mean(
    grid: Grid, encoders: Sequence[str], readouts: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Means over seeds, nan where nothing was run, and of how many."""
    out = np.full((len(encoders), len(readouts)), np.nan)
    count = np.zeros(out.shape, int)
    for i, encoder in enumerate(grid.encoders):
        for j, readout in enumerate(grid.readouts):
            there = grid.values[i, j][np.isfinite(grid.values[i, j])]
            if there.size:
                at = encoders.index(encoder), readouts.index(readout)
                out[at], count[at] = there.mean(), there.size
    return out, count


def _shares(axes: Axes, grid: NDArray[np.float64], metric: str) -> None:
    found, ranges = split_variance(grid), without_one(grid)
    colours = ("#0072B2", "#D55E00", "#CC79A7", "#999999")
    for y, (source, colour) in enumerate(zip(SOURCES, colours, strict=True)):
        share, low, high = (100 * part[source] for part in (found.share, found.low, found.high))
        axes.barh(y, share, color=colour, height=0.6)
        axes.plot([low, high], [y, y], color=INK, linewidth=1.4)
        least, most = (100 * end for end in ranges[source])
        axes.plot([least, most], [y + 0.37, y + 0.37], color=MUTED, linewidth=1.4, linestyle=":")
        axes.text(max(share, high) + 1.5, y, f"{share:.0f} ({low:.0f}-{high:.0f})", va="center", fontsize=9)
        print(
            f"{metric}, {NAMES[source]}: {share:.1f}% of the variance ({low:.1f} to {high:.1f}); "
            f"{least:.1f} to {most:.1f} with one encoder or readout left out"
        )
    apart, low, high = (100 * end for end in found.difference)
    print(f"{metric}, encoder less readout: {apart:.1f} points of share ({low:.1f} to {high:.1f})")
    print(f"{metric}, p of a seed's own effect on encoders and readouts: {seed_by_half(grid)}")
    axes.set_yticks(range(len(SOURCES)), [NAMES[source] for source in SOURCES])
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 25))
    axes.set_title(f"encoder less readout: {apart:.0f} ({low:.1f} to {high:.1f})", fontsize=9)
    axes.set_xlabel(
        f"share of the variance, %\nline: 95% interval over {found.seeds} seeds\ndots: one encoder or readout left out",
        fontsize=8.5,
    )


if __name__ == "__main__":
    run(main)
