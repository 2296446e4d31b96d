"""The claim table: what the paper says in Sections 3.3 and 5.2-5.6, and whether it came out here.

Claim under test: every one of them. Claims and the rules of judgement are in ``analyses/claims.toml``, written before
the runs that decide.

Command: ``make figures`` (or ``python figures/claims.py``), from the records of the suites named there::

    dissect suite analyses/suites/NAME.toml --keep

Expected if the paper's picture came out: "holds" in every line but that of the control.
"""

from __future__ import annotations

import re
from pathlib import Path

from published import VARIANTS, write
from style import RECORDS, run, suite_runs

from dissect.report.axis import describe
from dissect.report.claims import judge, load_claims
from dissect.report.formats import Table


def main() -> list[Path]:
    """Write the table."""
    rule, claims = load_claims(RECORDS.parent / "claims.toml")
    rows: list[list[str]] = []
    evidence: list[str] = []
    notes: dict[str, dict[str, None]] = {}  # what runs are of -> suites
    for number, claim in enumerate(claims, 1):
        verdicts = []
        for variant, name in VARIANTS.items():
            _, found = suite_runs(claim.suite, variant)
            verdict = judge(claim, found)
            verdicts.append(str(verdict))
            if verdict.details:
                evidence.append(f"{number}, {name}: {'; '.join(verdict.details)}.")
                notes.setdefault(describe([r for runs in found.values() for r in runs], seeds=False), {})[
                    claim.suite
                ] = None
        rows.append([str(number), claim.section, claim.text, *verdicts, claim.suite])
    title = "What the paper says, and what came out"
    columns = ["", "section", "claim", *VARIANTS.values(), "suite"]
    # A rule begins with its name and a colon; what it says may go over several lines.
    rules = [" ".join(part.split()) for part in re.split(r"\n(?=[a-z][a-zK ]+:)|\n\n", rule)]
    lines = [f"{', '.join(suites)}: {text}" for text, suites in notes.items()]
    below = ["The rules:", *rules, "What was seen, claim by claim:", *evidence, "The runs of each suite:", *lines]
    return write(Table(title, columns, rows, below, left=len(columns)), "claims")


if __name__ == "__main__":
    run(main)
