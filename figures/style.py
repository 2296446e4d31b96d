"""What every figure script shares: the look (`dissect.report.style`), the records of a suite, how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dissect.errors import DissectError
from dissect.experiment.suite import Suite, read_rows
from dissect.report.axis import Series, axis_figure, describe
from dissect.report.plot import save_figure
from dissect.report.runs import Run
from dissect.report.style import GRID, INK, MUTED, PARTS, RC, of_part

__all__ = [
    "GRID", "HERE", "INK", "MUTED", "PARTS", "PUBLISHED", "RC", "RECORDS", "not_run", "of_part", "run", "suite_figure",
    "suite_runs", "values",
]  # fmt: skip

HERE = Path(__file__).resolve().parent
RECORDS = HERE.parent / "analyses" / "records"
SUITES = HERE.parent / "analyses" / "suites"
PUBLISHED = HERE.parent / "analyses" / "published" / "atten_mixer_wsdm23.json"


def suite_runs(name: str, variant: str = "small") -> tuple[Suite, dict[str, list[Run]]]:
    """A suite of ``analyses/suites/`` and its committed runs: label -> runs, none where it has not been run."""
    return read_rows(SUITES / f"{name}.toml", variant, [RECORDS])


def values(runs: Sequence[Run], metric: str) -> list[float]:
    """A test metric of each run, in percent."""
    return [float(run.result["test"][metric]) for run in runs if run.result is not None]


def suite_figure(
    name: str, suite_name: str, option: str, xlabel: str, references: dict[str, str], variant: str = "small"
) -> list[Path]:
    """HR@20 and MRR@20 of a suite's runs against a readout's option, with other rows of it as level lines.

    Parameters
    ----------
    name, suite_name : str
        Of the figure and of the suite.
    option : str
        The option on the axis; rows whose readout has it are the curve.
    xlabel : str
    references : dict of str to str
        What a level line is called -> label of its row, which is its model too.
    variant : str
    """
    suite, found = suite_runs(suite_name, variant)
    curve = {label: runs for label, runs in found.items() if label not in references.values()}
    if not any(curve.values()):
        return not_run(name, curve, f"dissect suite analyses/suites/{suite_name}.toml --variant {variant} --keep")
    at = {next(e.axes[option] for e in suite.entries if e.label == label): runs for label, runs in curve.items()}
    model = next(e.spec.model for e in suite.entries if e.label in curve)
    panels: dict[str, Any] = {}
    for metric in ("hr@20", "mrr@20"):
        points = {place: values(runs, metric) for place, runs in at.items()}
        level = {shown: (label, values(found[label], metric)) for shown, label in references.items()}
        panels[f"{metric.upper()} (%)"] = ([Series(model, model, points)], level)
    there = [r.result for runs in found.values() for r in runs if r.result is not None]
    missing = [str(label) for label, runs in found.items() if not runs]
    caption = (
        f"{describe(there)} d = {suite.entries[0].spec.dim}. Points: seeds; bars and band: 95% interval of the mean "
        "over seeds (Student's t)."
    ) + (f" Not run: {', '.join(missing)}." if missing else "")
    figure = axis_figure(panels, list(at), xlabel=xlabel, title=suite.title, caption=caption)
    return save_figure(figure, HERE, name)


def not_run(name: str, missing: Iterable[str], command: str) -> list[Path]:
    """Write a figure that says what has not been run: an empty place is no result."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 2))
    figure.text(0.5, 0.5, "not run: " + ", ".join(missing) + "\n" + command, ha="center", va="center")
    return save_figure(figure, HERE, name)


def run(draw: Callable[[], Iterable[Any]]) -> None:
    """Draw and print what was written; an error is one line."""
    try:
        for path in draw():
            print(path)
    except DissectError as error:
        raise SystemExit(str(error)) from None
