"""Does the order of the parts by density depend on how one looks? Orders over a grid of settings and rules.

Claim under test (Atten-Mixer, WSDM'23, Section 3.3): the density of propagation lies below that of attention. A claim
about a model should hold whatever the instrument's noise, prior, KL scale, start and seed, and whichever part is
wrapped with it.

Command: ``make figures`` (or ``python figures/orderings.py``), from the records of::

    dissect suite analyses/suites/sensitivity.toml --keep

Expected under the claim: the row "propagation < attention" dark in every column. A cell near one half says that the
factor named by its column does not settle the order. These runs are short: the caption says how many of the densities
were still on their way.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from style import HERE, INK, MUTED, PARTS, RC, not_run, run, suite_runs

from dissect.report.axis import describe
from dissect.report.groups import finished
from dissect.report.plot import save_figure
from dissect.report.runs import Run

#: Field of a spec -> what it is called.
FACTORS = {"noise": "noise", "prior": "prior", "kl_scale": "KL scale", "log_sigma2": "first log σ²", "seed": "seed"}
WRAPPED = "wrapped"
#: Ways to count a weight as kept, beside the runs' own in the other columns: (rule, threshold) -> what it is called.
RULES = {
    ("log-alpha", 0.0): "log alpha < 0",
    ("magnitude", 0.1): "|mean| > 0.1",
    ("magnitude", 10**-0.5): "|mean| > 0.32",
}
#: A density that moves by more than this in the last quarter of a run has not come to rest.
MOVED = 0.02


def densities(
    runs: Sequence[Run], rule: tuple[str, float] | None = None
) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """Setting and density of every part: of runs with all wrapped, and of a GNN's and a readout's run together.

    By the runs' own rule, or by a rule and threshold that their curves have.
    """
    found: dict[tuple[Any, ...], dict[str, Run]] = {}
    for r in runs:
        found.setdefault(tuple(r.spec[name] for name in FACTORS), {})[r.spec["sparsify"]] = r
    out = []
    for key, by_part in found.items():
        setting = dict(zip(FACTORS, key, strict=True))
        for name, wrapped in (("all at once", ("all",)), ("by halves", ("gnn", "readout"))):
            if all(part in by_part for part in wrapped):
                rows: dict[str, float] = {}
                for part in wrapped:
                    rows |= _of_run(by_part[part], rule)
                out.append(({**setting, WRAPPED: name}, rows))
    return out


def _of_run(r: Run, rule: tuple[str, float] | None) -> dict[str, float]:
    if rule is None:
        return {part: d["density"] for part, d in finished(r)["density"].items() if d["total"]}
    curves = json.loads((r.path / "thresholds.json").read_text())[rule[0]]
    at = int(np.argmin([abs(t - rule[1]) for t in curves[0]["thresholds"]]))
    return {row["part"]: row["kept"][at] / row["total"] for row in curves if row["total"]}


def shares(
    found: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]],
) -> tuple[list[str], list[str], Any, list[int]]:
    """Pairs of parts, levels of factors, the share of settings in which the first is emptier, and settings a level."""
    pairs = [(a, b) for a, b in itertools.combinations(PARTS, 2) if all(a in d and b in d for _, d in found)]
    levels: list[tuple[str, Any]] = [("", None)]
    for factor in (WRAPPED, *FACTORS):
        levels += [(factor, v) for v in sorted({s[factor] for s, _ in found}, key=str)]
    cells = np.full((len(pairs), len(levels)), np.nan)
    counts = []
    for j, (factor, level) in enumerate(levels):
        mine = [d for s, d in found if not factor or s[factor] == level]
        counts.append(len(mine))
        for i, (a, b) in enumerate(pairs):
            cells[i, j] = np.mean([d[a] < d[b] for d in mine])
    names = ["all settings" if not f else f"{FACTORS.get(f, f)} {level}" for f, level in levels]
    return [f"{a} < {b}" for a, b in pairs], names, cells, counts


def unsettled(runs: Sequence[Run]) -> tuple[int, int]:
    """Of how many densities the last quarter of the run moved by more than `MOVED`, and of how many it is known."""
    moved = [
        abs(row["moved"])
        for r in runs
        for row in (r.result or {}).get("density", {}).values()
        if row["total"] and row.get("moved") is not None
    ]
    return sum(m > MOVED for m in moved), len(moved)


def main() -> list[Path]:
    """Draw the shares as a map."""
    suite, rows = suite_runs("sensitivity")
    runs = [r for some in rows.values() for r in some]
    found = densities(runs)
    if not found:
        return not_run("orderings", ["sensitivity"], "dissect suite analyses/suites/sensitivity.toml --keep")
    pairs, levels, cells, counts = shares(found)
    for rule, name in RULES.items():
        _, _, of_all, count = shares(densities(runs, rule))
        cells = np.concatenate([cells, of_all[:, :1]], axis=1)
        levels, counts = [*levels, name], [*counts, count[0]]
    with mpl.rc_context({**RC, "axes.grid": False}):
        figure = Figure(figsize=(9.6, 4.6))
        axes = figure.add_subplot()
        image = axes.imshow(100 * cells, cmap="RdBu_r", vmin=0, vmax=100, aspect="auto")
        axes.set_yticks(range(len(pairs)), pairs)
        axes.set_xticks(
            range(len(levels)), [f"{level} (n={n})" for level, n in zip(levels, counts, strict=True)],
            rotation=45, ha="right", fontsize=7.5,
        )  # fmt: skip
        for i, j in itertools.product(range(len(pairs)), range(len(levels))):
            pale = 0.25 < cells[i, j] < 0.75
            axes.text(
                j, i, f"{100 * cells[i, j]:.0f}", ha="center", va="center", fontsize=7, color=INK if pale else "w"
            )
        figure.colorbar(image, ax=axes, label="% of settings in which the order holds", pad=0.02)
        axes.set_title(f"{suite.title} (synthetic data set {suite.entries[0].spec.dataset})")
        missing = len(suite.entries) - len(runs)
        moving, all_of_them = unsettled(runs)
        text = (
            f"{describe(runs)} Density: kept / total at log alpha < 3 but in the last {len(RULES)} columns; "
            "n: settings (two runs each by halves). "
            f"{moving} of {all_of_them} densities moved by more than {MOVED:g} in the last quarter of their run."
            + (f" Not run: {missing} of {len(suite.entries)} runs." if missing else "")
        )  # fmt: skip
        figure.text(0.01, 0.012, text, fontsize=7, color=MUTED, va="bottom", wrap=True)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
    return save_figure(figure, HERE, "orderings")


if __name__ == "__main__":
    run(main)
