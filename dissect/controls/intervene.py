"""`dissect intervene`: what a trained model loses when a part is disturbed, and what one trained without it reaches.

A density says how many weights of a part the instrument keeps. Whether the part is needed is another question, and
these answer it. On the trained weights:

zero
    The part's weights and biases are set to zero; its maps give zero. What else that stops is the model's: without its
    transformation SR-GNN's query is zero, and nothing is recommended; without its combination, a GRU, no message
    arrives either.
identity
    Its square matrices are set to the identity; where that is all of them its biases are set to zero too, and what
    comes in passes untransformed.
shuffled edges
    The session graphs are those of the same clicks in random order.

And with a new training each, dense, of the run's own setting and budget (`retrain`): the intact model; each part
deleted, its weights and biases held at zero from the start; the run's mask held, from the same and from new first
weights; masks of as many weights chosen at random; and the masks of two parts exchanged, matrix by matrix of one shape.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dissect.batch import Batch, PackedExamples, shuffled_graph
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.held import all_dropped, biases, holding, matrices
from dissect.experiment.main import train_as
from dissect.experiment.prune import masks_of
from dissect.experiment.record import RunFolder
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.use import data_of, finished, load_model, wrapped_model
from dissect.models import SessionModel
from dissect.report.statistics import differences, gains
from dissect.sparsity import swap_masks
from dissect.training.evaluate import rank_examples

METRICS = ("hr@20", "mrr@20")
RETRAINED: tuple[str, ...] = ("delete", "mask", "random", "swap")
#: Added to the seed for new first weights; data and order stay.
NEW_SEED = 1000

Row = dict[str, Any]


class ShuffledEdges(PackedExamples):
    """Examples whose session graphs are those of their clicks in random order.

    Parameters
    ----------
    examples : PackedExamples
    seed : int
    seen : callable
        What the model reads of a batch (`SessionModel.seen`): a batch that it cut itself would have its true graph.
    """

    def __init__(self, examples: PackedExamples, seed: int, seen: Callable[[Batch], Batch]) -> None:
        super().__init__(examples.clicks, examples.start, examples.end, examples.clicks.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = seen

    def batch(self, index: Tensor) -> Batch:
        """As in `PackedExamples`, with the graph in place."""
        batch = self.seen(super().batch(index))
        batch.__dict__["session_graph"] = shuffled_graph(batch, self.generator)
        return batch


@contextmanager
def identity(model: SessionModel, part: str) -> Iterator[int]:
    """Inside, the square matrices of a part are the identity and their biases zero; yields how many there are."""
    weights = [model.get_parameter(name) for name in matrices(model, part)]
    square = [p for p in weights if p.dim() == 2 and p.shape[0] == p.shape[1]]
    others = [model.get_parameter(name) for name in biases(model, part)] if len(square) == len(weights) else []
    before = [p.detach().clone() for p in (*square, *others)]
    try:
        with torch.no_grad():
            for p in square:
                p.copy_(torch.eye(len(p)))
            for p in others:
                p.zero_()
        yield len(square)
    finally:
        with torch.no_grad():
            for p, value in zip((*square, *others), before, strict=True):
                p.copy_(value)


def intervene_run(
    run: Path,
    retrain: str = "",
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
    resamples: int = 2000,
    quiet: bool = False,
    as_json: bool = False,
) -> dict[str, Any]:
    """Disturb each part of a finished run, and print what is lost, with intervals over test sessions.

    Parameters
    ----------
    run : path
        A run folder with its weights. RUN/interventions.json is written; rows of trainings that are in it stay.
    retrain : str
        Which trainings to add: some of `RETRAINED` joined by commas, or ``all``; they are run folders of their own,
        and done once.
    out : path, optional
        Directory for those; by default the one that `run` is in.
    data_dir : path, optional
        Where data sets lie; outranks the spec's.
    resamples : int
        Of the test sessions.
    quiet : bool
        No progress.
    as_json : bool
        End with the result as JSON on one line of stdout.

    Returns
    -------
    dict
        ``run``, ``examples``, ``rows``: ``name``, ``against`` (the row that the differences are to), ``kept`` and
        ``total`` (weights of the parts concerned), each metric, and under ``difference`` its estimate, low and high.

    Raises
    ------
    DissectError
        If the run is not finished, has no weights, or its data have changed; for an unknown training, and for masks of
        a run that has none.
    """
    folder, spec, result = finished(run)
    wanted = _wanted(retrain, spec)
    model = load_model(run)
    data = data_of(run, data_dir, progress=not quiet)
    splits = make_splits(data, spec, torch.device("cpu"), refit=spec.refit)
    sessions = np.asarray(splits.test_examples.session)
    options: Any = {"ties": spec.ties, "seen": splits.seen}
    rows: list[Row] = []
    ranks: dict[str, Any] = {}

    def add(name: str, against: str, found: Any, kept: int | None = None, total: int | None = None) -> None:
        ranks[name] = found
        row: Row = {"name": name, "against": against, "kept": kept, "total": total}
        row |= {metric: float(gains(found, metric).mean()) for metric in METRICS}
        if name != against:
            apart = differences(found, ranks[against], sessions, METRICS, resamples)
            row["difference"] = {metric: list(ends) for metric, ends in apart.items()}
        rows.append(row)
        if not quiet:
            sys.stderr.write(f"{name}: HR@20 {row['hr@20']:.2f}, MRR@20 {row['mrr@20']:.2f}\n")

    def rank(examples: PackedExamples = splits.test) -> Any:
        return rank_examples(model, examples, **options)

    add("intact", "intact", rank())
    if result["pruned"] is not None:
        dense = load_model(run, pruned=True)
        kept, total = (result["pruned"][name] for name in ("kept", "total"))
        add("pruned", "intact", rank_examples(dense, splits.test, **options), kept, total)
    for part in model.parts():
        size = sum(model.get_parameter(name).numel() for name in matrices(model, part))
        if not size:
            continue
        with holding(model, all_dropped(model, part), restore=True):
            add(f"{part}: zero", "intact", rank(), 0, size)
        with identity(model, part) as count:
            if count:
                of = len(matrices(model, part))
                add(f"{part}: identity" + (f" ({count} of {of} matrices)" if count < of else ""), "intact", rank())
    if "session_graph" in model.views:
        add("shuffled edges", "intact", rank(ShuffledEdges(splits.test, spec.seed, model.seen)))
    if wanted:
        _retrain(run, spec, model, wanted, add, out or folder.path.parent, data_dir, quiet)
    summary = {
        "run": result["run_id"], "examples": len(sessions), "sessions": len(np.unique(sessions)),
        "resamples": resamples, "rows": [*rows, *_trained_before(folder, rows)],
    }  # fmt: skip
    record.write_atomically(folder / record.INTERVENTIONS, json.dumps(summary, indent=1) + "\n")
    _print(summary, folder.path)
    if as_json:
        print(json.dumps(summary))
    return summary


def _trained_before(folder: RunFolder, rows: list[Row]) -> list[Row]:
    """Rows of trainings that an earlier call made and this one didn't ask for: hours of work that stay."""
    if not (folder / record.INTERVENTIONS).exists():
        return []
    before = folder.read_json(record.INTERVENTIONS)["rows"]
    now = {row["name"] for row in rows}
    return [row for row in before if row["name"].startswith("retrained:") and row["name"] not in now]


def _wanted(retrain: str, spec: Spec) -> list[str]:
    names = list(RETRAINED) if retrain == "all" else [name.strip() for name in retrain.split(",") if name.strip()]
    for name in names:
        if name not in RETRAINED:
            raise DissectError(f"unknown training {name!r}; choose from all, {', '.join(RETRAINED)}")
    if names and (spec.delete or spec.mask):
        raise DissectError("--retrain needs a run of the whole model: this one has parts deleted or masked")
    if not spec.sparse:
        if retrain == "all":
            return ["delete"]
        if masks := [name for name in names if name != "delete"]:
            raise DissectError(f"--retrain {masks[0]} needs a run with wrapped parts: this one has --sparsify none")
    return names


def _retrain(
    run: Path,
    spec: Spec,
    model: SessionModel,
    wanted: list[str],
    add: Callable[..., None],
    out: Path,
    data_dir: Path | None,
    quiet: bool,
) -> None:
    """Train the dense models that are wanted and add their rows."""
    plain = spec.replace(sparsify="none", data_dir=str(data_dir) if data_dir else spec.data_dir, init="")
    start = RunFolder(run).read_json(record.ENVIRONMENT).get("init_weights") if spec.init else None

    def train(name: str, against: str, kept: Any = None, total: Any = None, masks: Any = None, **changes: Any) -> None:
        if not quiet:
            sys.stderr.write(f"training: {name}\n")
        one = plain.replace(**changes)
        init = Path(start).parent if start and one.init_seed is None else None
        folder = train_as(one, out=out, init=init, masks=masks, quiet=quiet)
        with np.load(folder / record.RANKS) as arrays:
            add(name, against, arrays["rank"], kept, total)

    intact = "retrained: intact"
    train(intact, intact)
    if "delete" in wanted:
        for part in model.parts():
            if size := sum(model.get_parameter(name).numel() for name in matrices(model, part)):
                train(f"retrained: without {part}", intact, 0, size, delete=part)
    if not spec.sparse:
        return
    instrument = wrapped_model(run)
    own = masks_of(instrument, spec.rule, instrument.threshold)
    by_part: dict[str, dict[str, Tensor]] = {}
    for part, name, _, _ in instrument.tensors():
        by_part.setdefault(part, {})[name] = own[name]
    kept, total = sum(int(m.sum()) for m in own.values()), sum(m.numel() for m in own.values())
    if "mask" in wanted:
        train("retrained: the run's mask, same first weights", intact, kept, total, own)
        new = {"init_seed": spec.seed + NEW_SEED}
        train("retrained: the run's mask, new first weights", intact, kept, total, own, **new)
    if "random" in wanted:
        drawn = masks_of(instrument, spec.rule, instrument.threshold, "random", spec.seed)
        train("retrained: random masks, as many weights a part", intact, kept, total, drawn)
    if "swap" in wanted:
        for first, second in itertools.combinations(by_part, 2):
            swapped = swap_masks(by_part, first, second, common=True)
            if any(swapped[name] is not own[name] for name in own):
                train(f"retrained: masks of {first} and {second} swapped", intact, kept, total, swapped)


def _print(summary: dict[str, Any], folder: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 150)
    table = Table(
        title=f"{summary['run']}: {summary['examples']:,} test examples of {summary['sessions']:,} sessions",
        caption="differences to the first row of a block, with 95% intervals over test sessions; only a part with a "
        "square matrix has an identity",
        title_justify="left", caption_justify="left", box=SIMPLE_HEAD,
    )  # fmt: skip
    for name in ("", "kept / total", "HR@20", "difference", "MRR@20", "difference"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in summary["rows"]:
        if row["name"] == row["against"]:
            table.add_section()
        size = "" if row["total"] is None else f"{row['kept']:,} / {row['total']:,}"
        cells: list[str] = [row["name"], size]
        for metric in METRICS:
            cells.append(f"{row[metric]:.2f}")
            found = row.get("difference", {}).get(metric)
            cells.append("" if found is None else f"{found[0]:+.2f} ({found[1]:+.2f}, {found[2]:+.2f})")
        table.add_row(*cells)
    console.print(table)
    console.print(f"written: {RunFolder(folder) / record.INTERVENTIONS}", soft_wrap=True)
