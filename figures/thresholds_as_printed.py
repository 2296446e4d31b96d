"""Densities at every threshold under the paper's own prior and count, and what such a threshold leaves of the model.

Claim under test (Atten-Mixer, WSDM'23, Eq. 2 and 3, Section 3.3): with a standard normal as prior and a count of the
weights above a threshold, with their sign, propagation's density approaches zero and attention's stays higher.

Command: ``make figures`` (or ``python figures/thresholds_as_printed.py``), from the records of::

    dissect suite analyses/suites/as_printed.toml --variant full --keep
    dissect intervene RUN --alone magnitude     # of each, for the curves of single parts

Expected under the claim: attention's curve above propagation's wherever the pruned model (lower panels) still
recommends as well as the whole one. By sign half of all weights or more are dropped at any positive threshold, needed
or not; by size none is for its sign.
"""

from __future__ import annotations

from pathlib import Path

from style import run
from thresholds import draw

ROWS = ("as printed, local noise", "as printed, weight noise")


def main() -> list[Path]:
    """Draw densities by part above, and HR@20 of the pruned model below, against the signed and the unsigned mean."""
    title = "SR-GNN by the paper's prior and count: densities at every threshold, and what is left of the model there"
    return draw("thresholds_as_printed", "as_printed", ROWS, ("signed", "magnitude"), title)


if __name__ == "__main__":
    run(main)
