"""Table 4: Atten-Mixer's ablations, as printed and as found here.

Claim under test (Atten-Mixer, WSDM'23, Table 4): every ablation loses, one level (-M) most: 52.27 / 17.52 against
55.66 / 18.96 on Diginetica.

Command: ``make figures`` (or ``python figures/table4_ablations.py``), from the records of::

    dissect suite analyses/suites/table4_ablations.toml --keep

Expected under the claim: the first row above the others by more than the spread over seeds, and the control without
maps last.
"""

from __future__ import annotations

from pathlib import Path

from published import VARIANTS, cell, found_in, notes_on, paper, write
from style import run

from dissect.report.formats import Table

#: Label of ours -> the paper's name.
OURS = {
    "Atten-Mixer": "Atten-Mixer", "-M: one level": "Atten-Mixer-M",
    "-IP: every query from all items": "Atten-Mixer-IP", "-LI: last items in order": "Atten-Mixer-LI",
    "-LP: maximum of the maps": "Atten-Mixer-LP",
}  # fmt: skip


def main() -> list[Path]:
    """Write the table."""
    printed, found = paper("table4"), found_in("table4_ablations")
    rows = []
    for label in found["small"]:
        theirs = printed[OURS[label]]["diginetica"] if label in OURS else None
        row = [label, *(f"{theirs[m]:.2f}" if theirs else "" for m in ("hr@20", "mrr@20"))]
        for variant in VARIANTS:
            runs = found[variant].get(label, [])
            row += [cell(runs, "hr@20"), cell(runs, "mrr@20")]
        rows.append(row)
    columns = ["model", *(f"{who}: {m}" for who in ("paper", *VARIANTS.values()) for m in ("HR@20", "MRR@20"))]
    return write(Table("Table 4 on Diginetica, percent", columns, rows, notes_on(found)), "table4_ablations")


if __name__ == "__main__":
    run(main)
