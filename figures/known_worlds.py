"""Worlds with known answers: the density of each part beside its shadow columns, and what deleting it costs.

Claim under test: a density read by the instrument means something. On successor-recall, which only message passing
solves, propagation must keep clearly more than weights with nothing to say; on last-item it must not; on shuffled
targets no part may.

Command: ``make figures`` (or ``python figures/known_worlds.py``), from ``analyses/records/controls/validate-*``, made
by::

    dissect validate --noise weight
    dissect validate --noise local

Expected: the answers just said. And on intent attention's density is near zero, though deleting it costs a fifth of
HR@1: a density near zero is no proof that a part is idle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from style import HERE, INK, MUTED, RC, RECORDS, not_run, of_part, run

from dissect.data.worlds import TEST
from dissect.report.plot import save_figure


def main() -> list[Path]:
    """One figure for each noise that was validated."""
    results = [json.loads(path.read_text()) for path in sorted((RECORDS / "controls").glob("validate-*/result.json"))]
    paths = []
    for noise in ("weight", "local"):
        found = [r for r in results if r["setting"]["noise"] == noise]
        first = min(found, key=lambda r: r["setting"]["seed"], default=None)
        name, command = f"known_worlds_{noise}", f"dissect validate --noise {noise}"
        paths += not_run(name, [command], command) if first is None else _draw(first, name)
    return paths


def _draw(result: dict[str, Any], name: str) -> list[Path]:
    worlds = list(dict.fromkeys(row["world"] for row in result["rows"]))
    setting = result["setting"]
    with mpl.rc_context(RC):
        figure = Figure(figsize=(9.6, 5.4))
        grid = figure.subplots(2, len(worlds), sharey=True, squeeze=False)
        for column, world in enumerate(worlds):
            rows = [row for row in result["rows"] if row["world"] == world]
            top, bottom = grid[0, column], grid[1, column]
            for y, row in enumerate(rows):
                colour, _, marker = of_part(row["part"], y)
                d = row["density"]
                density, null = d["kept"] / d["total"], d["null"]
                top.plot([null, density], [y, y], color=colour, linewidth=1.2)
                top.plot(density, y, marker, color=colour, markersize=7, label="density" if not y else None)
                top.plot(null, y, "|", color=INK, markersize=13, markeredgewidth=1.6)
                top.text(0.98, y - 0.32, f"{d['kept']:,} / {d['total']:,}", fontsize=6.5, color=MUTED, ha="right")
                bottom.plot([row["deleted"], row["intact"]], [y, y], color=colour, linewidth=1.2)
                bottom.plot(row["deleted"], y, marker, color=colour, markersize=7)
                bottom.plot(row["zeroed"], y, marker, color=colour, markersize=6, fillstyle="none")
            bottom.axvline(rows[0]["intact"], color=INK, linewidth=0.9)
            top.set_title(world, fontsize=10)
            top.set_xlim(-0.04, 1.0)
            bottom.set_xlim(-4, 104)
            top.set_yticks(range(len(rows)), [row["part"] for row in rows])
            top.set_ylim(len(rows) - 0.5, -0.6)
            top.set_xlabel("density (|: shadow columns)", fontsize=8.5)
            bottom.set_xlabel("HR@1, %", fontsize=8.5)
        tested = round(setting["sessions"] * TEST)
        train = setting["sessions"] - tested
        text = (
            f"SR-GNN, d {setting['dim']}, {setting['noise']} noise, KL x{setting['kl_scale']:g}, log alpha < 3, "
            f"{setting['sparse_steps']:,} steps (dense {setting['steps']:,}) on {train:,} examples, "
            f"seed {setting['seed']}. Above: kept / total; the tick is the keep-rate of noise inputs.\nBelow, of "
            f"{tested:,} test examples: line: intact; filled: the part deleted and the model trained again; open: its "
            "weights set to zero."
        )
        figure.text(0.01, 0.015, text, fontsize=7.5, color=MUTED, va="bottom")
        figure.tight_layout(rect=(0, 0.08, 1, 1))
    return save_figure(figure, HERE, name)


if __name__ == "__main__":
    run(main)
