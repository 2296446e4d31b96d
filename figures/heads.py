"""Accuracy of Atten-Mixer against the number of heads H, beside the same model with equal attention weights.

Claim under test (Atten-Mixer, WSDM'23, Figure 6): on Diginetica more heads are better.

Command: ``make figures`` (or ``python figures/heads.py``), from the records of::

    dissect suite analyses/suites/fig6_heads.toml --keep

Expected under the claim: a rise with H beyond the bars, above the green line, which has the model's W_m and scorer and
no attention maps.
"""

from __future__ import annotations

from pathlib import Path

from style import run, suite_figure


def main() -> list[Path]:
    """Draw HR@20 and MRR@20."""
    return suite_figure("heads", "fig6_heads", "heads", "heads H", {"equal weights (meanlast)": "meanlast"})


if __name__ == "__main__":
    run(main)
