"""Table 3: SR-GNN with its own readout and with Atten-Mixer, as printed and as found here.

Claim under test (Atten-Mixer, WSDM'23, Table 3): Atten-Mixer improves every metric, HR@20 of SR-GNN on Diginetica by
8.93%. The hybrid also has a normalised scorer; a row with that alone tells how much of the gain is the scorer's.

Command: ``make figures`` (or ``python figures/table3_enhanced.py``), from the records of::

    dissect suite analyses/suites/table3_enhanced.toml --keep

Expected under the claim: an improvement over both rows of SR-GNN. Intervals are in ``dissect compare`` of the same
records. SGNN-HN: not run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from published import bounds, cell, found_in, notes_on, paper, write
from style import run, values

from dissect.report.formats import Table
from dissect.report.statistics import improvement

METRICS = ("hr@5", "hr@10", "hr@20", "mrr@5", "mrr@10", "mrr@20")
DATASETS = ("diginetica", "gowalla", "lastfm")


def main() -> list[Path]:
    """Write the table."""
    printed, found = paper("table3"), found_in("table3_enhanced")
    rows, notes = [], []
    for model, datasets in printed.items():
        for how, label in (("without", "own readout"), ("with", "Atten-Mixer")):
            rows.append([f"paper: {model}, {label}", *(f"{datasets['diginetica'][how][m]:.2f}" for m in METRICS)])
            for name in DATASETS:
                notes += bounds(f"{model} {how}, {name}", datasets[name][how])
        shares = [improvement(datasets["diginetica"]["with"][m], datasets["diginetica"]["without"][m]) for m in METRICS]
        rows.append(["  improvement", *(f"{share:+.2f}%" for share in shares)])
    breaks = [len(rows)]
    base = found["small"]["SR-GNN"]
    for label, runs in found["small"].items():
        rows.append([label, *(cell(runs, m) for m in METRICS)])
        if runs and base and runs is not base:
            gains = [improvement(float(np.mean(values(runs, m))), float(np.mean(values(base, m)))) for m in METRICS]
            rows.append(["  improvement over SR-GNN", *(f"{gain:+.2f}%" for gain in gains)])
    rows.append(["SGNN-HN, both", *["not run"] * len(METRICS)])
    columns = ["Diginetica", *(m.upper() for m in METRICS)]
    own = notes_on({"small": found["small"]})
    return write(Table("Table 3, percent", columns, rows, [*own, *notes], breaks=breaks), "table3_enhanced")


if __name__ == "__main__":
    run(main)
