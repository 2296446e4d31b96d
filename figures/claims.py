"""The claim table: what the paper says in Sections 3.3 and 5.2-5.6, and whether it came out here.

Claim under test: every one of them. Claims and the rules of judgement are in ``analyses/claims.toml``, written before
the runs that decide.

Command: ``make figures`` (or ``python figures/claims.py``), from the records of the suites named there::

    dissect suite analyses/suites/NAME.toml --keep

Expected if the paper's picture came out: "holds" in every line but that of the control.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from style import HERE, RECORDS, run, suite_runs

from dissect.experiment.record import write_atomically
from dissect.report.axis import describe
from dissect.report.claims import NOT_RUN, judge, load_claims
from dissect.report.formats import Table, escape_markdown, render

#: Whether runs were trained on every session of their data set -> what that is called.
SIZES = {True: "all sessions", False: "a subset"}


def main() -> list[Path]:
    """Write the table as Markdown, with rules and evidence below, and as LaTeX."""
    given = load_claims(RECORDS.parent / "claims.toml")
    rows: list[list[str]] = []
    evidence: list[str] = []
    notes: dict[str, dict[str, None]] = {}  # what runs are of -> suites
    for number, claim in enumerate(given.claims, 1):
        verdicts: dict[bool, list[str]] = {whole: [] for whole in SIZES}
        lines: list[str] = []
        data = ""
        for variant in ("full", "small"):
            suite, found = suite_runs(claim.suite, variant)
            # By the data, not by the variant's name: some suites train on all sessions in both.
            whole = not any(entry.spec.max_train for entry in suite.entries)
            data = suite.entries[0].spec.dataset
            verdict = judge(claim, found)
            if verdict.word != NOT_RUN:
                verdicts[whole].append(str(verdict))
            if verdict.details:
                lines += [f"- *{SIZES[whole]}*, {escape_markdown(line)}" for line in verdict.details]
                of = describe([r for runs in found.values() for r in runs], seeds=False)
                notes.setdefault(of, {})[claim.suite] = None
        cells = ["; ".join(verdicts[whole]) or NOT_RUN for whole in SIZES]
        where = claim.suite if data == "diginetica" else f"{claim.suite} ({data})"
        rows.append([str(number), claim.section, claim.text, *cells, where])
        if lines:
            evidence.append("\n".join([f"**{number}.** {escape_markdown(claim.text)}", "", *lines]))
    columns = ["", "section", "claim", *SIZES.values(), "suite"]
    # A rule begins with its name and a colon; what it says may go over several lines.
    rules = [" ".join(part.split()) for part in re.split(r"\n(?=[a-z][a-zK ]+:)|\n\n", given.rule)]
    runs = [f"- {escape_markdown(', '.join(suites))}: {escape_markdown(text)}" for text, suites in notes.items()]
    table = Table("What the paper says, and what came out", columns, rows, rules[-1:], left=len(columns))
    text = "\n\n".join(
        [
            render(table, "markdown"),
            "Said in those sections, and judged by none of these:",
            _list(given.beyond),
            "## The rules",
            _list(rules[:-1]),
            "## What was seen",
            *evidence,
            "## The runs of each suite",
            "\n".join(runs),
        ]
    )
    paths = [HERE / "claims.md", HERE / "claims.tex"]
    for path, content in zip(paths, (text, render(table, "latex")), strict=True):
        write_atomically(path, content + "\n")
    return paths


def _list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(text)}" for text in texts)


if __name__ == "__main__":
    run(main)
