"""The density figure: how much of each part is kept, against training steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dissect.errors import DissectError
from dissect.report import style
from dissect.report.runs import Row, Run, read_run

_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (7, 2, 1, 2)))


def _series(run: Run) -> dict[tuple[str, str | None], list[Row]]:
    """(part, tensor) -> its rows in time; the part's own rows under tensor None, empty parts left out."""
    found: dict[tuple[str, str | None], list[Row]] = {}
    for row in run.density:
        if row["total"]:
            found.setdefault((row["part"], row["tensor"]), []).append(row)
    return found


def _state(run: Run, part: str) -> str:
    if run.result is None:
        return "running"
    return "settled" if run.result["density"].get(part, {}).get("settled") else "not settled"


def _subset(spec: Row) -> str:
    return f", {spec['max_train']:,} training sessions drawn" if spec.get("max_train") else ""


def _title(run: Run) -> str:
    s = run.spec
    data = run.result["dataset"] if run.result else None
    examples = f", N = {data['train_examples']:,} training examples" if data else ""
    return (
        f"{s['model']} on {s['dataset']}{examples}{_subset(s)}; "
        f"d {s['dim']}, batch {s['batch_size']}, "
        f"seed {s['seed']}, protocol {s['protocol']}\n"
        f"wrapped: {s['sparsify']}; {s['noise']} noise, {s['prior']} prior, "
        f"KL x{s['kl_scale']:g}; kept: {s['rule']} at {s['threshold']:g}"
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """What sets each run apart: the fields of its spec in which the runs differ, else its folder's name."""
    if len(runs) == 1:
        return [""]
    keys = [
        k for k in runs[0].spec
        if k != "data_dir" and len({repr(r.spec.get(k)) for r in runs}) > 1
    ]  # fmt: skip
    texts = [", ".join(f"{k} {r.spec.get(k)}" for k in keys[:3]) for r in runs]
    return texts if len(set(texts)) == len(texts) else [r.name for r in runs]


def _short(tensor: str) -> str:
    return tensor.removesuffix(".weight").split(".", 1)[-1]


def _free(height: float, taken: list[float], gap: float = 0.03) -> float:
    """The height nearest to `height` that is `gap` from all that are taken; it is then taken too."""
    heights = (height + k * gap / 2 for k in sorted(range(-40, 41), key=abs))
    free = (h for h in heights if all(abs(h - other) >= 0.99 * gap for other in taken))
    taken.append(next(free, height))
    return taken[-1]


def _draw_run(axes: Axes, run: Run, index: int, overlay: bool, label: str, tensors: bool) -> list[Line2D]:
    """Draw one run's curves; returns the legend's entries."""
    handles: list[Line2D] = []
    taken: list[float] = []  # heights of the labels at the curves' ends
    series = _series(run)
    parts = [part for part, tensor in series if tensor is None]
    for number, part in enumerate(parts):
        colour, dash, marker = style.of_part(part, number)
        dash = _DASHES[index % len(_DASHES)] if overlay else dash
        rows = series[part, None]
        x, y = [r["step"] for r in rows], [r["density"] for r in rows]
        every = max(1, len(x) // 8)
        line = axes.plot(
            x, y, color=colour, linestyle=dash, linewidth=2.2, marker=marker, markevery=(every // 2, every),
            markersize=5, zorder=3,
        )[0]  # fmt: skip
        state, last = _state(run, part), rows[-1]
        if state != "settled":
            # An open end: the curve is still moving.
            axes.plot(x[-1], y[-1], "o", color=colour, markerfacecolor="white", markersize=8, zorder=4)
        line.set_label(
            f"{part}  {last['kept']:,} / {last['total']:,} = {last['density']:.2f}"
            + ("" if state == "settled" else f"  ({state})")
            + (f"\n   {label}" if label else "")
        )
        handles.append(line)
        inside = [t for own, t in series if own == part and t is not None]
        for tensor in inside if tensors and not overlay and len(inside) > 1 else ():
            values = series[part, tensor]
            end = values[-1]
            height = _free(end["density"], taken)
            axes.annotate(
                _short(tensor), (end["step"], height), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=7, color=colour,
            )  # fmt: skip
            thin = axes.plot(
                [r["step"] for r in values], [r["density"] for r in values],
                color=colour, linewidth=0.9, alpha=0.75, linestyle=(0, (1 + len(handles) % 3, 1)),
            )[0]  # fmt: skip
            thin.set_label(f"   {_short(tensor)}  {end['kept']:,} / {end['total']:,} = {end['density']:.2f}")
            handles.append(thin)
    return handles


def density_figure(runs: Sequence[Run], tensors: bool = True) -> Figure:
    """Density of each part, and of each tensor, against training steps; KL weight and lr budget below.

    Parameters
    ----------
    runs : sequence of Run
        More than one are overlaid: colour tells the part, dashes the run, and tensors are left out.
    tensors : bool
        Whether to draw each matrix beside its part.

    Raises
    ------
    DissectError
        If a run has no densities.
    """
    for run in runs:
        if not _series(run):
            why = "nothing was wrapped (--sparsify none)" if run.spec.get("sparsify") == "none" else "none recorded yet"
            raise DissectError(f"{run.path} has no densities to draw: {why}")
    overlay = len(runs) > 1
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(9.6, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 1, height_ratios=(3.2, 1))
        upper = figure.add_subplot(grid[0])
        lower = figure.add_subplot(grid[1], sharex=upper)
        handles: list[Line2D] = []
        for index, (run, label) in enumerate(zip(runs, _labels(runs), strict=True)):
            handles += _draw_run(upper, run, index, overlay, label, tensors)
        upper.set_ylim(-0.02, 1.04)
        upper.margins(x=0.09)  # room for the names at the curves' ends
        upper.set_ylabel("density (kept / total weights)")
        upper.tick_params(labelbottom=False)
        upper.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.05, 1.02), fontsize=8.5, handlelength=2.6)
        upper.set_title(
            _title(runs[0]) if not overlay else _overlay_title(runs), fontsize=9, color=style.INK, linespacing=1.5
        )
        _draw_schedule(lower, runs)
        return figure


def _overlay_title(runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        s, data = run.spec, run.result["dataset"] if run.result else None
        examples = f", N = {data['train_examples']:,} training examples" if data else ""
        lines.append(
            f"{s['model']} on {s['dataset']}{examples}{_subset(s)}, "
            f"d {s['dim']}, seed {s['seed']}, {s['protocol']}; "
            f"wrapped: {s['sparsify']}, {s['noise']} noise, {s['prior']}, KL x{s['kl_scale']:g}, "
            f"{s['rule']} {s['threshold']:g}"
        )
    return "\n".join(lines)


def _warm_up(run: Run) -> tuple[int, int] | None:
    """First and last logged step between no KL and all of it."""
    rising = [r["step"] for r in run.steps if 0 < r["kl_weight"] < run.spec["kl_scale"]]
    return (rising[0], rising[-1]) if rising else None


def _draw_schedule(axes: Axes, runs: Sequence[Run]) -> None:
    """KL weight on the left scale, the budget of log sigma^2 on the right one."""
    right = axes.twinx()
    right.grid(False)
    right.spines["right"].set_visible(True)
    for index, run in enumerate(runs):
        dash = _DASHES[index % len(_DASHES)]
        x = [r["step"] for r in run.steps]
        axes.plot(x, [r["kl_weight"] for r in run.steps], color=style.INK, linewidth=1.6, linestyle=dash)
        right.plot(x, [r["lr_budget"] for r in run.steps], color="#009E73", linewidth=1.6, linestyle=dash)
    spans = {_warm_up(run) for run in runs}
    if len(spans) == 1 and (span := spans.pop()) is not None:  # runs that differ have no common warm-up to show
        axes.axvspan(*span, color="#EEEEEE", zorder=0)
        axes.annotate(
            "warm-up", (sum(span) / 2, 0.06), xycoords=("data", "axes fraction"),
            ha="center", fontsize=8, color=style.MUTED,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    axes.set_ylabel("KL weight")
    right.set_ylabel("lr budget of\nlog σ² (nats)", color="#00674B")
    axes.set_xlabel("training steps")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))


def write_density_figure(
    runs: Sequence[Path | str], out: Path | str | None = None, name: str | None = None, tensors: bool = True
) -> list[Path]:
    """Draw the densities of `runs` and write them as SVG and PNG.

    Parameters
    ----------
    runs : sequence of path
        Run folders.
    out : path, optional
        Directory; the first run's ``figures`` by default.
    name : str, optional
        Name of the files; by default ``density`` for one run and ``overlay`` for several, which thus never
        replaces the first run's own figure.

    Returns
    -------
    list of Path
        The SVG's path, the PNG's path.

    Raises
    ------
    DissectError
        If a run can't be read or has no densities, or `out` can't be written.
    """
    figure = density_figure([read_run(run) for run in runs], tensors)
    name = name or ("density" if len(runs) == 1 else "overlay")
    return save_figure(figure, Path(out) if out is not None else Path(runs[0]) / "figures", name)


def save_figure(figure: Figure, out: Path, name: str) -> list[Path]:
    """Write a figure as ``NAME.svg`` and ``NAME.png`` (200 dpi), the same bytes for the same figure."""
    paths = [out / f"{name}.svg", out / f"{name}.png"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(style.RC):
            figure.savefig(paths[0], metadata={"Date": None})
            figure.savefig(paths[1], dpi=200, metadata={"Software": None})
    except OSError as error:
        raise DissectError(f"can't write to {out}: {error.strerror}") from None
    return paths
