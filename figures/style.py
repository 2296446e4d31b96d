"""What every figure script shares: the look (`dissect.report.style`), the records of a suite, how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dissect.errors import DissectError
from dissect.experiment.suite import Suite, read_rows
from dissect.report.axis import Series, axis_figure, describe, said_seeds, seeds_of
from dissect.report.compare import compare
from dissect.report.plot import save_figure
from dissect.report.runs import Run
from dissect.report.style import GRID, INK, MUTED, PARTS, RC, of_part

__all__ = [
    "GRID", "HERE", "INK", "METRICS", "MUTED", "PARTS", "PUBLISHED", "RC", "RECORDS", "SUITES", "not_run", "of_part",
    "run", "suite_figure", "suite_runs", "values",
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


@dataclass(frozen=True)
class Differences:
    """A suite's runs along an option, as differences to its baseline of the same seed.

    Attributes
    ----------
    places : dict
        Label -> value of the option, those without runs too.
    seeds : dict
        Value -> seeds of its differences. Where one seed or more is had by all values that have been run, those alone,
        so that neighbours differ in the option and in nothing else; else what each has.
    left_out : dict
        Label -> seeds that were run and are not in `seeds`.
    points, bars : dict
        Metric -> value -> differences, one a seed, and the interval of their mean over test sessions.
    """

    places: dict[str, Any]
    seeds: dict[Any, tuple[int, ...]]
    left_out: dict[str, tuple[int, ...]]
    points: dict[str, dict[Any, list[float]]]
    bars: dict[str, dict[Any, tuple[float, float]]]

    @property
    def alike(self) -> bool:
        """Whether all values have the same seeds."""
        return len(set(self.seeds.values())) < 2


METRICS = ("hr@20", "mrr@20")


def differences(suite: Suite, found: Mapping[str, Sequence[Run]], option: str) -> Differences:
    """Take each run's difference to the baseline's run of its seed; see `Differences`."""
    base = {run.spec["seed"]: run for run in found[suite.baseline]}
    labels = [label for label in found if label != suite.baseline]
    places = {label: next(e.axes[option] for e in suite.entries if e.label == label) for label in labels}
    own = {label: {r.spec["seed"]: r for r in found[label] if r.spec["seed"] in base} for label in labels}
    run = [set(runs) for runs in own.values() if runs]
    common = set[int].intersection(*run) if run else set[int]()
    out = Differences(places, {}, {}, {metric: {} for metric in METRICS}, {metric: {} for metric in METRICS})
    for label, runs in own.items():
        if not runs:
            continue
        kept, place = sorted(common or runs), places[label]
        out.seeds[place] = tuple(kept)
        if left := sorted(set(seeds_of(found[label])) - set(kept)):
            out.left_out[label] = tuple(left)
        pair = {
            suite.baseline: [base[seed].path for seed in kept],
            label: [runs[seed].path for seed in kept],
        }
        line = next(line for line in compare(pair, suite.baseline, METRICS).lines if line.label == label)
        assert line.difference is not None
        for m, metric in enumerate(METRICS):
            mine, theirs = (values([some[seed] for seed in kept], metric) for some in (runs, base))
            out.points[metric][place] = [a - b for a, b in zip(mine, theirs, strict=True)]
            out.bars[metric][place] = (float(line.difference.low[m]), float(line.difference.high[m]))
    return out


def suite_figure(
    name: str, suite_name: str, option: str, xlabel: str, *, title: str, against: str, variant: str = "small"
) -> list[Path]:
    """HR@20 and MRR@20 of Atten-Mixer in a suite against one of its options, as differences to the suite's baseline.

    Runs of one seed share their subset of the data, so that differences are taken seed by seed; the interval is the
    paired bootstrap's over test sessions, of the mean over seeds.

    Parameters
    ----------
    name, suite_name : str
        Of the figure and of the suite.
    option : str
        The option on the axis; rows whose readout has it are the curve.
    xlabel, title : str
    against : str
        What the baseline is called.
    variant : str
    """
    suite, found = suite_runs(suite_name, variant)
    base = found[suite.baseline]
    what = differences(suite, found, option)
    command = f"dissect suite analyses/suites/{suite_name}.toml --variant {variant} --keep"
    if not what.seeds:
        return not_run(name, [label for label, runs in found.items() if not runs], command)
    panels: dict[str, Any] = {}
    drawn = {seed for seeds in what.seeds.values() for seed in seeds}
    for metric in METRICS:
        series = Series("Atten-Mixer", "attenmixer", what.points[metric], what.bars[metric], what.seeds)
        panels[f"{metric.upper()}: points over {against}"] = ([series], {})
        own = values([run for run in base if run.spec["seed"] in drawn], metric)
        print(f"{metric}: {against} has {np.mean(own):.2f}, mean of {said_seeds(sorted(drawn))}")
    figure = axis_figure(
        panels, list(what.places.values()), xlabel=xlabel, title=title, caption=_said(what, suite, found, against)
    )
    for axes in figure.axes:
        axes.axhline(0, color=INK, linewidth=0.9, zorder=2)
        if not what.alike:
            ticks = [f"{p}\n{said_seeds(what.seeds[p])}" if p in what.seeds else str(p) for p in what.places.values()]
            axes.set_xticks(range(len(ticks)), ticks)
            axes.tick_params(axis="x", labelsize=7)
    return save_figure(figure, HERE, name)


def _said(what: Differences, suite: Suite, found: Mapping[str, Sequence[Run]], against: str) -> str:
    """The caption: what runs are of, which seeds are drawn, and what the bars leave out."""
    drawn = sorted({seed for seeds in what.seeds.values() for seed in seeds})
    shown = [r for runs in found.values() for r in runs if r.spec["seed"] in drawn]
    text = f"{describe(shown)} Scorer {shown[0].spec['scorer']}. "
    if what.alike:
        text += f"All points are of {said_seeds(drawn)}, which all of them have"
        left = "; ".join(f"{label}: {', '.join(map(str, seeds))}" for label, seeds in what.left_out.items())
        text += f" (run and left out, {left}). " if left else ". "
    else:
        text += "Points of different seeds, named below them, are not joined. "
    text += (
        f"Large points: difference to {against} of the same seed, mean over seeds; bars: its 95% interval over test "
        "sessions (paired bootstrap), which knows nothing of seeds"
    )
    spread = {
        metric: max((np.std(some, ddof=1) for some in points.values() if len(some) > 1), default=None)
        for metric, points in what.points.items()
    }
    if any(sd is not None for sd in spread.values()):
        sds = ", ".join(f"{metric.upper()} {sd:.2f}" for metric, sd in spread.items())
        text += (
            f". Small points: single seeds, whose scatter (standard deviation up to {sds}) comes on top of the bars."
        )
    else:
        text += ": there is one to a point, and another would move it."
    missing = [label for label, runs in found.items() if not runs]
    return text + (f" Not run: {', '.join(missing)}." if missing else "")


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
