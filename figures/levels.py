"""What Atten-Mixer gains with the number of levels L, over the same model with equal attention weights.

Claim under test (Atten-Mixer, WSDM'23, Figure 5): worst at L = 1, best in the middle of 1 to 10.

Command: ``make figures`` (or ``python figures/levels.py``), from the records of::

    dissect suite analyses/suites/fig5_levels.toml --keep

Expected under the claim: points well above zero, and rising from L = 1 by more than the bars. Zero is the same model
with equal attention weights (`meanlast`): it has W_m and the scorer, and no attention maps. That value is printed.
"""

from __future__ import annotations

from pathlib import Path

from style import run, suite_figure


def main() -> list[Path]:
    """Draw HR@20 and MRR@20 as differences to the control."""
    return suite_figure(
        "levels", "fig5_levels", "levels", "levels L", against="equal weights",
        title="The paper's Figure 5: Atten-Mixer's difference to equal weights against the number of levels L",
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
