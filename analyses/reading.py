"""What the notebooks share: a suite's committed runs, and their comparison shown as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from dissect.experiment.suite import Suite, read_rows
from dissect.report.compare import compare
from dissect.report.formats import render
from dissect.report.layout import tables
from dissect.report.runs import Run

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "records"
FIGURES = HERE.parent / "figures"


def suite(name: str, variant: str = "small") -> tuple[Suite, dict[str, list[Run]]]:
    """A suite of ``suites/`` and its committed runs: label -> runs, none where it has not been run."""
    return read_rows(HERE / "suites" / f"{name}.toml", variant, [RECORDS])


def picture(figure: Figure) -> None:
    """Show a figure that was made without pyplot."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    display(Image(buffer.getvalue()))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a Markdown table, its first column flush left."""
    ruler = ["---", *["--:"] * (len(columns) - 1)]
    display(Markdown("\n".join(f"| {' | '.join(row)} |" for row in (columns, ruler, *rows))))


def show(name: str, baseline: str | None = None, metrics: Sequence[str] = ("hr@20", "mrr@20")) -> dict[str, list[Run]]:
    """Show the comparison of a suite's runs, as `dissect suite` prints it, and which rows have not been run."""
    _, found = suite(name)
    there = {label: [run.path for run in runs] for label, runs in found.items() if runs}
    missing = [label for label in found if label not in there]
    if there:
        for each in tables(compare(there, baseline if baseline in there else None, metrics)):
            display(Markdown(render(each, "markdown")))
    if missing:
        command = f"`dissect suite analyses/suites/{name}.toml --keep`"
        display(Markdown(f"**not run:** {', '.join(missing)} ({command})"))
    return found


def gap(
    found: Mapping[str, Sequence[Run]], first: str, second: str, pruned: bool = False, metric: str = "hr@20"
) -> str:
    """How much the row `first` (pruned, if asked for) is above `second`, over the seeds that both have, in words."""
    runs = [found[first], found[second]]
    seeds = sorted(set.intersection(*({run.spec["seed"] for run in some} for some in runs)))
    if not seeds:
        return "not run"
    a, b = ([run.path for run in some if run.spec["seed"] in seeds] for some in runs)
    name = f"{first}, pruned" if pruned else first
    line = next(line for line in compare({second: b, first: a}, second, (metric,)).lines if line.label == name)
    d = line.difference
    assert d is not None, "of two rows, not the baseline's"
    named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return f"{d.estimate[0]:+.2f} points of {metric.upper()} ({d.low[0]:+.2f} to {d.high[0]:+.2f}; {named})"
