"""Table 3: SR-GNN with its own readout and with Atten-Mixer, as printed and as found here.

Claim under test (Atten-Mixer, WSDM'23, Table 3): Atten-Mixer improves every metric, HR@20 of SR-GNN on Diginetica by
8.93%. The hybrid also has a normalised scorer; a row with that alone tells how much of the gain is the scorer's.

Command: ``make figures`` (or ``python figures/table3_enhanced.py``), from the records of::

    dissect suite analyses/suites/table3_enhanced.toml --keep
    dissect suite analyses/suites/table3_enhanced.toml --variant full --keep
    dissect suite analyses/suites/table2_models.toml --variant full --keep

The last has SR-GNN with either readout on all of the data too, in another setting than the full variant's.

Expected under the claim: an improvement over both rows of SR-GNN, and over SGNN-HN. Intervals are in ``dissect
compare`` of the same records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from published import VARIANTS, bounds, cell, found_in, notes_on, paper, seeds, shared, write
from style import run, values

from dissect.report.formats import Table
from dissect.report.runs import Run
from dissect.report.statistics import improvement

METRICS = ("hr@5", "hr@10", "hr@20", "mrr@5", "mrr@10", "mrr@20")
DATASETS = ("diginetica", "gowalla", "lastfm")
#: Label -> whose readout it replaces, or whose scorer.
BASES = {
    "SR-GNN + Atten-Mixer": "SR-GNN", "SR-GNN, normalised scorer": "SR-GNN",
    "SR-GNN + Atten-Mixer, query not normalised": "SR-GNN", "SGNN-HN + Atten-Mixer": "SGNN-HN",
}  # fmt: skip


def ours(found: Mapping[str, Sequence[Run]], name: str) -> list[list[str]]:
    """A setting's rows, each that replaces a part with its improvement over the model that it is a part of."""
    rows = [[name, *[""] * (1 + len(METRICS))]]
    for label, runs in found.items():
        rows.append([label, seeds(runs), *(cell(runs, m) for m in METRICS)])
        mine, theirs = shared(runs, found.get(BASES.get(label, ""), []))
        if mine:
            gains = [improvement(*(float(np.mean(values(some, m))) for some in (mine, theirs))) for m in METRICS]
            rows.append([f"  improvement over {BASES[label]}", seeds(mine), *(f"{gain:+.2f}%" for gain in gains)])
    return rows


def main() -> list[Path]:
    """Write the table."""
    printed, found, others = paper("table3"), found_in("table3_enhanced"), found_in("table2_models")["full"]
    rows, notes = [], []
    for model, datasets in printed.items():
        for how, label in (("without", "own readout"), ("with", "Atten-Mixer")):
            rows.append([f"paper: {model}, {label}", "", *(f"{datasets['diginetica'][how][m]:.2f}" for m in METRICS)])
            for name in DATASETS:
                notes += bounds(f"{model} {how}, {name}", datasets[name][how])
        shares = [improvement(datasets["diginetica"]["with"][m], datasets["diginetica"]["without"][m]) for m in METRICS]
        rows.append(["  improvement", "", *(f"{share:+.2f}%" for share in shares)])
    names = VARIANTS | {"table 2": "ours, full, setting of Table 2's suite"}
    found["table 2"] = {label: runs for label, runs in others.items() if label in found["small"] and runs}
    breaks, own = [], []
    for key in ("small", "full", "table 2"):
        if key == "small" or any(found[key].values()):
            breaks.append(len(rows))
            rows += ours(found[key], names[key])
        own += notes_on({key: found[key]}, names)
    columns = ["Diginetica", "seeds", *(m.upper() for m in METRICS)]
    own.append("improvement: of the means over the seeds that both rows have, which its column names.")
    return write(Table("Table 3, percent", columns, rows, [*own, *notes], breaks=breaks), "table3_enhanced")


if __name__ == "__main__":
    run(main)
