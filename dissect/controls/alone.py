"""`dissect intervene RUN --alone RULE`: each part pruned by itself, at the thresholds where all were pruned together.

A threshold at which a model that is pruned everywhere loses its accuracy says nothing of any one part: the loss may be
another's. Here one part loses its small weights and the others keep all of theirs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dissect.controls.intervene import METRICS
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.pruning import sampled
from dissect.experiment.splits import make_splits
from dissect.experiment.use import data_of, finished, wrapped_model
from dissect.models import SessionModel
from dissect.report.statistics import differences, gains
from dissect.training.evaluate import rank_examples
from dissect.training.progress import counting


def alone_run(
    run: Path, rule: str, *, data_dir: Path | None = None, resamples: int = 2000, quiet: bool = False
) -> dict[str, Any]:
    """Prune each part of a finished run alone, and add to the points of RUN/pruning.json what is left.

    Parameters
    ----------
    run : path
        A run folder with its weights and its curve of accuracy against kept weights.
    rule : str
        One that the curve has: the run's own, or log-alpha or magnitude.
    data_dir : path, optional
        Where data sets lie; outranks the spec's.
    resamples : int
        Of the test sessions.
    quiet : bool
        No progress.

    Returns
    -------
    dict
        The new content of ``pruning.json``: each point of `rule` has, under ``alone``, part -> ``kept``, the metrics
        on the curve's examples, and under ``difference`` to the model with all weights an estimate, its low and its
        high end.

    Raises
    ------
    DissectError
        If the run is not finished, has no weights or no such curve, or its data have changed.
    """
    folder, spec, _ = finished(run)
    instrument = wrapped_model(run)
    curve = folder.read_json(record.PRUNING)
    points = [point for point in curve["points"] if point["rule"] == rule]
    if not points:
        known = ", ".join(dict.fromkeys(point["rule"] for point in curve["points"]))
        raise DissectError(f"{folder / record.PRUNING} has no curve by {rule!r}; choose from {known}")
    model = instrument.model
    assert isinstance(model, SessionModel)
    data = data_of(run, data_dir, progress=not quiet)
    splits = make_splits(data, spec, torch.device("cpu"), refit=spec.refit)
    examples, chosen = sampled(splits.test)
    sessions = np.asarray(splits.test_examples.session)[chosen]
    sizes = {row["part"]: row["total"] for row in instrument.density() if row["tensor"] is None and row["total"]}

    def rank() -> Any:
        return rank_examples(model, examples, ties=spec.ties, seen=splits.seen)

    whole = rank()
    seen: dict[tuple[str, int], Any] = dict.fromkeys(sizes.items(), whole)  # where a part keeps all, the model is whole
    with counting(f"pruning each part by {rule}", quiet) as progress:
        for done, (point, (part, size)) in enumerate((p, s) for p in points for s in sizes.items()):
            kept = point["parts"][part]
            if (part, kept) not in seen:
                with instrument.masked(rule, point["threshold"], part):
                    seen[part, kept] = rank()
            found = seen[part, kept]
            apart = differences(found, whole, sessions, METRICS, resamples)
            point.setdefault("alone", {})[part] = {
                "kept": kept,
                "total": size,
                **{m: round(float(gains(found, m).mean()), 4) for m in METRICS},
                "difference": {m: [round(x, 4) for x in values] for m, values in apart.items()},
            }
            progress(done + 1, len(points) * len(sizes))
    record.write_atomically(folder / record.PRUNING, json.dumps(curve, indent=1) + "\n")
    return curve


def print_alone(curve: dict[str, Any], rule: str, run: Path, as_json: bool = False) -> None:
    """Print what `alone_run` found: a threshold a line, a part a column; with `as_json` the curve too, on one line."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    points = [point for point in curve["points"] if point["rule"] == rule]
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table(
        title=f"HR@20 on {curve['examples']:,} test examples, pruned by {rule}: all parts together, and each alone",
        caption="in brackets density, kept / total; differences to all weights, with 95% intervals over test sessions",
        title_justify="left", caption_justify="left", box=SIMPLE_HEAD,
    )  # fmt: skip
    for name in ("threshold", "all parts", *points[0]["alone"]):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        cells = [f"{point['threshold']:.3g}", f"{point['hr@20']:.2f} ({point['kept'] / point['total']:.2f})"]
        for found in point["alone"].values():
            estimate, low, high = found["difference"]["hr@20"]
            density = found["kept"] / found["total"]
            cells.append(f"{estimate:+.2f} ({low:+.2f}, {high:+.2f}) ({density:.2f})")
        table.add_row(*cells)
    console.print(table)
    console.print(f"written: {run / record.PRUNING}", soft_wrap=True)
    if as_json:
        print(json.dumps(curve))
