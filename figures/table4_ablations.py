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

from published import VARIANTS, both, found_in, notes_on, paper, printed_both, seeds, write
from style import run

from dissect.report.formats import Table

#: Label of ours -> the paper's name.
OURS = {
    "Atten-Mixer, normalised query": "Atten-Mixer", "-M: one level": "Atten-Mixer-M",
    "-IP: every query from all items": "Atten-Mixer-IP", "-LI: last items in order": "Atten-Mixer-LI",
    "-LP: maximum of the maps": "Atten-Mixer-LP",
}  # fmt: skip


def main() -> list[Path]:
    """Write the table."""
    printed, found = paper("table4"), found_in("table4_ablations")
    rows = []
    for label in found["small"]:
        theirs = printed[OURS[label]]["diginetica"] if label in OURS else None
        runs = [found[variant].get(label, []) for variant in VARIANTS]
        rows.append([label, printed_both(theirs), *(text for some in runs for text in (both(some), seeds(some)))])
    columns = ["model", "paper", *(text for name in VARIANTS.values() for text in (name, "seeds"))]
    title = "Table 4 on Diginetica: HR@20 / MRR@20 in percent"
    notes = [
        "The paper's query is not normalised by its Eq. 4, as in Table 2's row Atten-Mixer; here all rows have it "
        "normalised, which is better.",
        *notes_on(found),
    ]
    return write(Table(title, columns, rows, notes), "table4_ablations")


if __name__ == "__main__":
    run(main)
