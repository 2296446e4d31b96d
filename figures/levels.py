"""Accuracy of Atten-Mixer against the number of levels L, beside the same model with equal attention weights.

Claim under test (Atten-Mixer, WSDM'23, Figure 5): worst at L = 1, best in the middle of 1 to 10.

Command: ``make figures`` (or ``python figures/levels.py``), from the records of::

    dissect suite analyses/suites/fig5_levels.toml --keep

Expected under the claim: a rise from L = 1 well beyond the bars, and every L above the green line, which has the
model's W_m and scorer and no attention maps.
"""

from __future__ import annotations

from pathlib import Path

from style import run, suite_figure


def main() -> list[Path]:
    """Draw HR@20 and MRR@20."""
    return suite_figure("levels", "fig5_levels", "levels", "levels L", {"equal weights (meanlast)": "meanlast"})


if __name__ == "__main__":
    run(main)
