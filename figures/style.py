"""What every figure script shares: the look (`dissect.report.style`), the records of a suite, how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dissect.errors import DissectError
from dissect.experiment.suite import Suite, read_rows
from dissect.report.axis import Series, axis_figure, describe
from dissect.report.compare import compare
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


def suite_figure(name: str, suite_name: str, option: str, xlabel: str, variant: str = "small") -> list[Path]:
    """HR@20 and MRR@20 of a suite's runs against a readout's option, as differences to the suite's baseline.

    Runs of one seed share their subset of the data, so that differences are taken seed by seed; the interval is the
    paired bootstrap's over test sessions, of the mean over seeds.

    Parameters
    ----------
    name, suite_name : str
        Of the figure and of the suite.
    option : str
        The option on the axis; rows whose readout has it are the curve.
    xlabel : str
    variant : str
    """
    suite, found = suite_runs(suite_name, variant)
    curve = {label: runs for label, runs in found.items() if label != suite.baseline}
    base = found[suite.baseline]
    command = f"dissect suite analyses/suites/{suite_name}.toml --variant {variant} --keep"
    if not base or not any(curve.values()):
        return not_run(name, [label for label, runs in found.items() if not runs], command)
    at = {label: next(e.axes[option] for e in suite.entries if e.label == label) for label in curve}
    metrics = ("hr@20", "mrr@20")
    lines = {}
    for label, runs in curve.items():
        shared = {run.spec["seed"] for run in runs} & {run.spec["seed"] for run in base}
        if shared:  # the interval is that of the points: of the seeds that both have
            pair = {
                name: [run.path for run in some if run.spec["seed"] in shared]
                for name, some in ((suite.baseline, base), (label, runs))
            }
            lines[label] = next(line for line in compare(pair, suite.baseline, metrics).lines if line.label == label)
    panels: dict[str, Any] = {}
    for m, metric in enumerate(metrics):
        own = {run.spec["seed"]: value for run, value in zip(base, values(base, metric), strict=True)}
        points, bars = {}, {}
        for label, runs in curve.items():
            pairs = zip(runs, values(runs, metric), strict=True)
            points[at[label]] = [value - own[run.spec["seed"]] for run, value in pairs if run.spec["seed"] in own]
            difference = lines[label].difference if label in lines else None
            if difference is not None:
                bars[at[label]] = (float(difference.low[m]), float(difference.high[m]))
        panels[f"{metric.upper()}: points over {suite.baseline}"] = (
            [Series("attenmixer", "attenmixer", points, bars)],
            {},
        )
        print(f"{metric}: {suite.baseline} has {sum(own.values()) / len(own):.2f}, mean of {len(own)} seeds")
    missing = [label for label, runs in found.items() if not runs]
    caption = (
        f"{describe([run for runs in found.values() for run in runs])} Scorer {base[0].spec['scorer']}. Small points: "
        f"each seed's difference to {suite.baseline} of that seed; large: their mean; bars: its 95% interval over test "
        "sessions (paired bootstrap)."
    ) + (f" Not run: {', '.join(missing)}." if missing else "")
    figure = axis_figure(panels, list(at.values()), xlabel=xlabel, title=suite.title, caption=caption)
    for axes in figure.axes:
        axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
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
