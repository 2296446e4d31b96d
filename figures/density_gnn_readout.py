"""Densities of SR-GNN's parts on Diginetica, the GNN and the readout each wrapped in a run of its own.

Claim under test (Atten-Mixer, WSDM'23, Section 3.3 and Figure 3): as training goes on the density of the graph
propagation's weights approaches zero, while the attention pooling keeps a higher density.

Command: ``make figures`` (or ``python figures/density_gnn_readout.py``), from the committed records
``analyses/records/diginetica-srgnn-sparsevd-gnn`` and ``...-readout``, made by::

    dissect run srgnn --dataset diginetica --sparsify gnn --epochs 3 --lr-step 2
    dissect run srgnn --dataset diginetica --sparsify readout --epochs 3 --lr-step 2

Expected under the claim: propagation near 0, attention above it. Found: the values in the legends, from the
records' last step; README.md says what they mean.
"""

from __future__ import annotations

from pathlib import Path

from style import HERE, RECORDS, not_run, run

from dissect.report.plot import write_density_figure

NAMES = ("diginetica-srgnn-sparsevd-gnn", "diginetica-srgnn-sparsevd-readout")


def main() -> list[Path]:
    """Draw each run by itself, with its tensors, and the two overlaid."""
    missing = [name for name in NAMES if not (RECORDS / name / "result.json").exists()]
    if missing:
        paths = not_run("density_gnn_readout", missing, "dissect suite analyses/suites/fig3_density.toml")
    else:
        runs = [RECORDS / name for name in NAMES]
        paths = write_density_figure(runs, HERE, "density_gnn_readout")
        for record, part in zip(runs, ("gnn", "readout"), strict=True):
            paths += write_density_figure([record], HERE, f"density_{part}")
    return paths


if __name__ == "__main__":
    run(main)
