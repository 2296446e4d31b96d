"""The claim table: what the paper says in Sections 3.3 and 5.2-5.6, and whether it came out here.

Claims and the rules of judgement are in ``analyses/claims.toml``, written before the runs that decide.

Command: ``make figures`` (or ``python figures/claims.py``), from the records of the suites named there::

    dissect suite analyses/suites/NAME.toml --keep

Expected if the paper's picture came out: "holds" in every line but that of the control.
"""

from __future__ import annotations

from pathlib import Path

from published import write
from style import HERE, run, suite_runs

from dissect.report.axis import describe
from dissect.report.claims import judge, load_claims
from dissect.report.formats import Table


def main() -> list[Path]:
    """Write the table."""
    rule, claims = load_claims(HERE.parent / "analyses" / "claims.toml")
    rows: list[list[str]] = []
    notes: dict[str, dict[str, None]] = {}  # what runs are of -> suites
    for claim in claims:
        _, found = suite_runs(claim.suite)
        verdict = judge(claim, found)
        seen = "; ".join(verdict.details)
        if verdict.missing and verdict.details:
            seen += f". Not run: {', '.join(verdict.missing)}"
        rows.append([claim.section, claim.text, str(verdict), claim.suite, seen])
        there = [r for runs in found.values() for r in runs]
        notes.setdefault(describe(there) if there else "not run.", {})[claim.suite] = None
    title = "What the paper says, and what came out"
    columns = ["section", "claim", "verdict", "suite", "seen"]
    lines = [f"{', '.join(suites)}: {text}" for text, suites in notes.items()]
    return write(Table(title, columns, rows, [*lines, " ".join(rule.split())], left=len(columns)), "claims")


if __name__ == "__main__":
    run(main)
