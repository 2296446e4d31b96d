"""What Atten-Mixer gains with the number of heads H, over the same model with equal attention weights.

Claim under test (Atten-Mixer, WSDM'23, Figure 6): on Diginetica more heads are better.

Command: ``make figures`` (or ``python figures/heads.py``), from the records of::

    dissect suite analyses/suites/fig6_heads.toml --keep

Expected under the claim: points well above zero, and rising with H by more than the bars. Zero is the same model with
equal attention weights (`meanlast`): it has W_m and the scorer, and no attention maps. That value is printed.
"""

from __future__ import annotations

from pathlib import Path

from style import run, suite_figure


def main() -> list[Path]:
    """Draw HR@20 and MRR@20 as differences to the control."""
    return suite_figure(
        "heads", "fig6_heads", "heads", "heads H", against="equal weights",
        title="The paper's Figure 6: Atten-Mixer's difference to equal weights against the number of heads H",
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
