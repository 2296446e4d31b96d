"""The claim table: what the paper says in Sections 3.3 and 5.2-5.6, and whether it came out here.

Claim under test: every one of them. Claims and the rules of judgement are in ``analyses/claims.toml``, written before
the runs that decide.

Command: ``make figures`` (or ``python figures/claims.py``), from the records of the suites named there::

    dissect suite analyses/suites/NAME.toml --keep

Expected if the paper's picture came out: "holds" in every line but that of the control.
"""

from __future__ import annotations

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
    notes: dict[str, dict[str, None]] = {}  # what runs are of -> suites
    for claim in claims:
        verdicts, seen = [], []
        for variant, name in VARIANTS.items():
            _, found = suite_runs(claim.suite, variant)
            verdict = judge(claim, found)
            verdicts.append(str(verdict))
            if verdict.details:
                seen.append(f"{name}: {'; '.join(verdict.details)}")
                notes.setdefault(describe([r for runs in found.values() for r in runs], seeds=False), {})[
                    claim.suite
                ] = None
        rows.append([claim.section, claim.text, *verdicts, claim.suite, ". ".join(seen)])
    title = "What the paper says, and what came out"
    columns = ["section", "claim", *VARIANTS.values(), "suite", "seen"]
    lines = [f"{', '.join(suites)}: {text}" for text, suites in notes.items()]
    return write(Table(title, columns, rows, [*lines, " ".join(rule.split())], left=len(columns)), "claims")


if __name__ == "__main__":
    run(main)
