"""Which of the searched choices matter: a bar for each, from a sweep's importance.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from dissect.errors import DissectError
from dissect.report import style
from dissect.report.axis import finish
from dissect.report.plot import save_figure


def importance_figure(found: Mapping[str, Any]) -> Figure:
    """Bars, the most important field on top, each with its share.

    Parameters
    ----------
    found : mapping
        The content of importance.json: ``importances`` {field: share}, ``space`` {field: range}, ``model``,
        ``dataset``, ``metric``, ``complete`` trials and how many of them are the ``top``.
    """
    ordered = sorted(found["importances"].items(), key=lambda pair: pair[1])
    with mpl.rc_context(style.RC):
        figure = Figure(figsize=(9.6, 1.6 + 0.36 * len(ordered)))
        axes = figure.subplots()
        bars = axes.barh(range(len(ordered)), [share for _, share in ordered], color="#0072B2", height=0.62, zorder=3)
        axes.bar_label(bars, [f"{share:.2f}" for _, share in ordered], padding=4, color=style.INK, fontsize=9)
        names = [f"{name.replace('_', '-')}  ({_range(found['space'][name])})" for name, _ in ordered]
        axes.set_yticks(range(len(ordered)), names, color=style.INK)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlim(0, max(1e-9, *(share for _, share in ordered)) * 1.12)
        axes.set_xlabel("share of the importance")
        finish(
            figure,
            axes,
            f"Which choices matter: {found['model']} on {found['dataset']}, {found['metric'].upper()} on validation",
            f"PED-ANOVA (arXiv 2304.10255): how far the best {found['top']} of {found['complete']} complete trials lie "
            "from all of them along each field; shares sum to 1. Pruned trials are left out. Where trials are few, the "
            "order of the large ones is all that can be read.",
            top=0.98,
        )
    return figure


def _range(text: str) -> str:
    """``0.0005:0.02:log`` as ``0.0005 to 0.02, log``; lists as they are."""
    low, *rest = text.split(":")
    return ", ".join([f"{low} to {rest[0]}", *rest[1:]]) if rest else text.replace(",", ", ")


def write_importance_figure(path: Path | str) -> list[Path]:
    """Draw an importance.json as ``figures/importance.svg`` and ``.png`` beside it.

    Returns
    -------
    list of Path
        The SVG's path, the PNG's path.

    Raises
    ------
    DissectError
        If it can't be read.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DissectError(f"can't read {path}: {error}") from None
    return save_figure(importance_figure(found), path.parent / "figures", "importance")
