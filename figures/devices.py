"""The same runs on a CPU and on a GPU: what a device changes, beside what a seed changes.

Claim under test: a GPU gives the results of a CPU. Its steps are captured on padded batches, and its sums have another
order. None of these models has dropout, whose noise another device would draw otherwise.

Command: ``make figures`` (or ``python figures/devices.py``), from the records of the following, on a CPU in
``analyses/records`` and on an NVIDIA H200 in ``analyses/records-gpu``::

    dissect suite analyses/suites/table2_models.toml --variant full --seed 0 --precision bf16 --keep
    dissect suite analyses/suites/table2_models.toml --variant full --seed 1 --precision bf16 --keep   # GPU alone

Of three models the CPU's run is in fp32. Expected: differences between devices smaller than between seeds.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from style import HERE, INK, METRICS, MUTED, RC, RECORDS, SUITES, not_run, run

from dissect.experiment.suite import read_rows
from dissect.report.axis import describe, finish
from dissect.report.plot import save_figure
from dissect.report.runs import Run, read_ranks
from dissect.report.statistics import differences

#: Where a GPU's records lie: runs of the same names as a CPU's.
GPU = RECORDS.with_name("records-gpu")
#: Kind of pair -> colour and marker.
LOOKS = {
    "GPU less CPU": ("#0072B2", "o"),
    "GPU in bf16 less CPU in fp32": ("#56B4E9", "s"),
    "seed 1 less 0": (MUTED, "D"),
}


def main() -> list[Path]:
    """Draw and print the differences."""
    pairs = found_pairs()
    if not pairs:
        return not_run("devices", ["GPU"], "dissect suite analyses/suites/table2_models.toml --variant full --keep")
    rows = []
    for label, kind, one, base in pairs:
        ranks = read_ranks(one)
        rows.append((label, kind, differences(ranks["rank"], read_ranks(base)["rank"], ranks["session"], METRICS)))
    print("difference of HR@20 and of MRR@20, in points, with 95% intervals over test sessions:")
    for label, kind, found in rows:
        print(f"  {label}, {kind}: " + "; ".join("{:+.2f} ({:+.2f} to {:+.2f})".format(*found[m]) for m in METRICS))
    with mpl.rc_context(RC):
        figure = Figure(figsize=(10, 4.6))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, metric in zip(panels, METRICS, strict=True):
            for place, (_, kind, found) in enumerate(rows):
                middle, low, high = found[metric]
                colour, marker = LOOKS[kind]
                axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
                axes.plot(middle, place, marker, color=colour, markersize=5)
            axes.axvline(0, color=INK, linewidth=0.9, zorder=0)
            axes.set_xlabel(f"difference of {metric.upper()}, points")
        panels[0].set_yticks(range(len(rows)), [label for label, *_ in rows])
        panels[0].invert_yaxis()
        for kind, (colour, marker) in LOOKS.items():
            panels[0].plot([], [], marker, color=colour, label=kind)
        finish(
            figure,
            panels[0],
            "The same runs on a CPU and on a GPU, and runs of two seeds on the GPU",
            f"{describe([one for _, _, one, _ in pairs])} Bars: 95% interval over test sessions.",
            width=150,
        )
    return save_figure(figure, HERE, "devices")


def found_pairs() -> list[tuple[str, str, Run, Run]]:
    """Label, kind of pair, and its two runs; devices first."""
    file = SUITES / "table2_models.toml"
    here, there = (read_rows(file, "full", [place])[1] for place in (RECORDS, GPU))
    cpu, gpu = ({(label, r.spec["seed"]): r for label, runs in f.items() for r in runs} for f in (here, there))
    pairs = []
    for (label, seed), one in gpu.items():
        if base := cpu.get((label, seed)):
            same = one.spec["precision"] == base.spec["precision"]
            pairs.append((label, "GPU less CPU" if same else "GPU in bf16 less CPU in fp32", one, base))
    pairs.sort(key=lambda pair: pair[1] != "GPU less CPU")
    seeds = [(label, "seed 1 less 0", one, gpu[label, 0]) for (label, s), one in gpu.items() if s == 1]
    return pairs + seeds


if __name__ == "__main__":
    run(main)
