"""The figure of a step's cost against items, batch size, width and session length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dissect.errors import DissectError
from dissect.report import style
from dissect.report.plot import save_figure

_LABELS = {
    "items": "items",
    "batch": "sessions in a batch",
    "dim": "width d",
    "length": "clicks in each session",
}


def scaling_figure(found: dict[str, Any]) -> Figure:
    """One panel for each axis, both scales logarithmic: measured steps, and the limit they are held against.

    Parameters
    ----------
    found : dict
        What ``dissect bench --sweep`` wrote.
    """
    axes = {axis: points for axis, points in found["axes"].items() if points}
    columns = min(2, len(axes))
    rows = -(-len(axes) // columns)
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(4.6 * columns, 3.1 * rows + 0.5), layout="constrained")
        for number, (axis, points) in enumerate(axes.items(), 1):
            panel = figure.add_subplot(rows, columns, number)
            x = [p[axis] for p in points]
            panel.fill_between(x, [p["low_ms"] for p in points], [p["high_ms"] for p in points], color="#CFE3F1")
            panel.plot(
                x, [p["step_ms"] for p in points], color="#0072B2", marker="o", label="step, median and quartiles"
            )
            panel.plot(
                x, [p["limit_ms"] for p in points], color=style.INK, linestyle="--", label="limit of the machine"
            )
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xticks(x, [_short(v) for v in x])
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.set_xlabel(_LABELS[axis])
            panel.set_ylabel("ms a step")
            others = ", ".join(f"{k} {v:,}" for k, v in found["base"].items() if k != axis)
            panel.set_title(others, fontsize=9, color=style.MUTED)
            if number == 1:
                panel.legend(fontsize=8)
        figure.suptitle(
            f"{found['model']}, {found['precision']}, {found['device']}, {found['threads']} threads: "
            f"{found['matrix_gflops']:,.0f} GFLOP/s, {found['memory_gbps']:,.0f} GB/s\n"
            "limit: the step's products at that matrix rate, plus Adam's traffic at that memory rate",
            x=0.01, ha="left", fontsize=10,
        )  # fmt: skip
    return figure


def _short(value: int) -> str:
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}" if value % unit == 0 else f"{value / unit:.0f}{name}"
    return str(value)


def write_scaling_figure(source: Path, out: Path) -> list[Path]:
    """Draw the ``scaling.json`` at `source` into `out`, as SVG and PNG.

    Raises
    ------
    DissectError
        If it can't be read or holds no point, or `out` can't be written.
    """
    try:
        found = json.loads(source.read_text())
    except OSError as error:
        raise DissectError(f"{source} can't be read: {error.strerror}") from None
    except ValueError:
        raise DissectError(f"{source} is damaged: not JSON") from None
    if not any(found["axes"].values()):
        raise DissectError(f"{source} holds no measured point")
    return save_figure(scaling_figure(found), out, "scaling")
