"""What a training step of SR-GNN costs on a CPU against items, batch size, width and session length.

Claim under test: cost grows with the useful work, near the machine's limit, up to a million items.

Command: ``make figures`` (or ``python figures/scaling.py``), from ``analyses/records/bench-scaling/scaling.json``, made
by ``dissect bench srgnn --sweep all --out analyses/records/bench-scaling`` on 2 cores of an AMD EPYC (AVX2).

Expected: measured points parallel to the dashed limit, at a half to three quarters of its rate; small steps at less,
since a step has a fixed cost of some milliseconds.
"""

from __future__ import annotations

from pathlib import Path

from style import HERE, RECORDS, run

from dissect.report.scaling import write_scaling_figure


def main() -> list[Path]:
    """Draw the committed sweep."""
    return write_scaling_figure(RECORDS / "bench-scaling" / "scaling.json", HERE)


if __name__ == "__main__":
    run(main)
