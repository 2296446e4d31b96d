"""Table 2: every model of the paper, as printed and as found here.

Claim under test (Atten-Mixer, WSDM'23, Table 2): Atten-Mixer is best, at 55.66 / 18.96 on Diginetica. Mean-pool with
the same scorer, which the paper lacks, stands beside it, and so do controls that count and train nothing.

Command: ``make figures`` (or ``python figures/table2_models.py``), from the records of::

    dissect suite analyses/suites/table2_models.toml --variant full --keep
    dissect suite analyses/suites/table2_models.toml --keep
    dissect suite analyses/suites/controls.toml --variant full --keep
    dissect suite analyses/suites/controls.toml --keep
    dissect suite analyses/suites/models.toml --keep
    dissect suite analyses/suites/published.toml --variant full --keep

The last two have all models of the paper, in other settings; their columns are there where they were run.

Expected under the claim: Atten-Mixer well above mean-pool. The paper's Diginetica has 42,596 items, SR-GNN's
preparation, used here, 43,097. Seconds are of whatever machine made a run; the paper's of an RTX 3090.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from published import GAP, VARIANTS, both, elsewhere, found_in, gaps, notes_on, paper, printed_both, seeds, write
from style import run, suite_runs

from dissect.report.formats import Table

#: Label of ours -> the paper's name.
OURS = {"SR-GNN": "SR-GNN", "Atten-Mixer": "Atten-Mixer"}
#: Other readings of a model whose printed figures are to be reached.
READINGS = dict.fromkeys(("Atten-Mixer, normalised query", "Atten-Mixer, released code"), "Atten-Mixer")
#: Of the suite `published`, whose protocol is that of the released codes.
PUBLISHED_NOTE = (
    "Published settings: each metric is that of its best epoch on the test set, as released codes report theirs. Not "
    "to be held against the honest columns."
)


def main() -> list[Path]:
    """Write the table."""
    printed, others, found, counted = paper("table2"), elsewhere(), found_in("table2_models"), found_in("controls")
    controls = [e.label for e in suite_runs("controls")[0].entries if e.spec.counts]
    for variant in VARIANTS:
        found[variant] |= {label: counted[variant][label] for label in controls}
    names = dict(VARIANTS)
    for suite, said in (("models", "suite models"), ("published", "published settings")):
        for variant, rows in found_in(suite).items():  # other settings: columns of their own
            key = f"{suite}, {variant}"
            names[key] = f"{VARIANTS[variant]}, {said}"
            found[key] = rows
    labels = list(dict.fromkeys([*found["full"], *found["small"], *printed, *found["models, small"]]))
    labels = [*(label for label in labels if label not in controls), *dict.fromkeys(controls)]
    # Controls that count are the same runs in several suites: they alone make no column.
    shown = [
        key for key in names if key in VARIANTS or any(r for label, r in found[key].items() if label not in controls)
    ]
    theirs = {label: printed.get(OURS.get(label, label), {}).get("diginetica") for label in labels}
    table = []
    for label in labels:
        row = theirs[label]
        cells = [label, printed_both(row), f"{row['seconds']:.0f}" if row else "", printed_both(others.get(label))]
        for key in shown:
            runs = found[key].get(label, [])
            took = [r.result["seconds_per_epoch"] for r in runs if r.result is not None]
            cells += [both(runs), seeds(runs), f"{np.mean(took):.0f}" if took else ""]
        table.append(cells)
    # What is printed for the items used here goes before the paper's figure for another preparation.
    bar = {label: (others.get(label) or row)["hr@20"] for label, row in theirs.items() if row or label in others}
    bar |= {label: bar[of] for label, of in READINGS.items() if label in labels and of in bar}
    below = [
        f"{label} by {-gap:.2f} ({names[key]})"
        for key in shown
        if key.endswith("full")
        for label, gap in gaps(found[key], bar).items()
    ]
    notes_published = [PUBLISHED_NOTE] if any(key.startswith("published") for key in shown) else []
    budget = suite_runs("models")[0].entries[0].spec
    columns = ["model", "paper", "s", "elsewhere", *(text for key in shown for text in (names[key], "seeds", "s"))]
    title = "Table 2 on Diginetica: HR@20 / MRR@20 in percent, and seconds of training an epoch"
    notes = [
        "elsewhere: printed for the 43,097 items used here (analyses/published/diginetica_43097.json says by whom). On "
        f"all the data more than {GAP:g} point of HR@20 below that, or the paper's where there is none: "
        f"{', '.join(below) or 'none'}; docs/results.md says what is known of the reasons.",
        *notes_on({key: found[key] for key in shown}, names),
        "Suite models: another setting, each model with its own scorer, optimizer, start and rate (learning_rates.md); "
        f"of the subset {budget.steps:,} steps of batch {budget.batch_size}. Not to be held against the other columns.",
        *notes_published,
        "s: of the examples named above, on the machine of that run, a CPU with one thread or two or a GPU, fp32 or "
        "bf16 (its environment.json and spec.json say), and other work beside it; the paper's: of its 777,029 examples "
        "on an RTX 3090. Speed is compared by `dissect bench`, not by these.",
    ]
    return write(Table(title, columns, table, notes), "table2_models")


if __name__ == "__main__":
    run(main)
