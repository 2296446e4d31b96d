"""Using a finished run: prune it by a rule, or ask it for recommendations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dissect.batch import Batch
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.machine import pick_device
from dissect.experiment.record import RunFolder
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.weights import load_weights, write_weights
from dissect.models import SessionModel, build
from dissect.sparsity import wrap
from dissect.sparsity.density import get_rule
from dissect.training.evaluate import metrics, rank_examples


def _finished(run: Path) -> tuple[RunFolder, Spec, dict[str, Any]]:
    folder = RunFolder(run)
    if not folder.path.is_dir():
        raise DissectError(f"no run folder at {run}")
    spec = Spec.from_json(json.dumps(folder.read_json(record.SPEC)), str(folder / record.SPEC))
    if folder.result is None:
        raise DissectError(f"{run} is not finished; dissect run --resume {run} goes on")
    return folder, spec, folder.result


def _weights(folder: RunFolder, pruned: bool = False) -> Path:
    """The file of a run's weights; a DissectError where it is not there."""
    path = folder / (record.PRUNED_WEIGHTS if pruned else record.WEIGHTS)
    if not path.is_file():
        raise DissectError(f"no weights at {path}: a committed record leaves them out; run it again to have them")
    return path


def load_model(run: Path | str, pruned: bool = False) -> SessionModel:
    """The trained model of a finished run, dense, in evaluation mode, on the CPU.

    Parameters
    ----------
    run : path
        A run folder with its weights.
    pruned : bool
        Whether to take the pruned weights.

    Raises
    ------
    DissectError
        If the run is not finished or its weights are not there.
    """
    folder, spec, result = _finished(Path(run))
    if pruned and result["pruned"] is None:
        raise DissectError(f"{run} has no pruned weights: nothing was wrapped (--sparsify none)")
    model = build(spec.recipe, result["dataset"]["items"], spec.dim, spec.sigma, result["dataset"].get("longest"))
    load_weights(model, _weights(folder, pruned))
    return model.eval()


def recommend_items(run: Path, items: list[int], top: int = 20, pruned: bool = False) -> dict[str, Any]:
    """The `top` items that may follow a session, with their scores.

    Parameters
    ----------
    run : path
    items : list of int
        The session in the data set's own ids, oldest click first.

    Raises
    ------
    DissectError
        For an id that the data set does not have, and where there are no weights.
    """
    model = load_model(run, pruned)  # first: without weights nothing else is worth saying
    folder, spec, result = _finished(run)
    first, count = result["dataset"].get("first_id"), result["dataset"]["items"]
    if first is None:
        raise DissectError(
            f"{folder / record.RESULT} lacks first_id: an older version wrote it; run it again with --force"
        )
    for item in items:
        if not first <= item < first + count:
            raise DissectError(
                f"item {item} is out of range: {spec.dataset!r} has the ids {first} to {first + count - 1}"
            )
    with torch.no_grad():
        scores = model.scores(Batch.from_lists([[i - first for i in items]]))[0]
    best = scores.topk(min(top, count))
    return {
        "session": items,
        "items": [
            {"item": int(i) + first, "score": round(float(s), 6)}
            for s, i in zip(best.values, best.indices, strict=True)
        ],
    }


def pruned_name(spec: Spec, rule: str, threshold: float) -> str:
    """File name of a run's weights pruned by `rule`: the record's own name is for the run's own rule alone."""
    if (rule, threshold) == (spec.rule, spec.threshold):
        return record.PRUNED_WEIGHTS
    name = Path(record.PRUNED_WEIGHTS)
    return f"{name.stem}-{rule}-{repr(float(threshold)).removesuffix('.0')}{name.suffix}"


def prune_run(
    run: Path,
    rule: str | None,
    threshold: float | None,
    out: Path | None,
    as_json: bool,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Prune a finished run by its own rule or another, write the dense weights, test them and print both.

    Parameters
    ----------
    run : path
    rule, threshold
        What is kept; the run's own where left out.
    out : path, optional
        File for the weights; by default one in `run` that no other rule or threshold writes.
    as_json : bool
        Whether to print the summary as a last line of JSON.
    data_dir : path, optional
        Where data sets lie; outranks the spec's.

    Raises
    ------
    DissectError
        If the run is not finished, has nothing to prune or no weights, or its data set is not there or has changed.
    """
    folder, spec, result = _finished(run)
    if not spec.sparse:
        raise DissectError(f"{run} has nothing to prune: it was run with --sparsify none")
    rule = rule or spec.rule
    threshold = get_rule(rule, spec.threshold if threshold is None and rule == spec.rule else threshold)[1]
    weights = _weights(folder)
    from dissect.data import load

    data = load(spec.dataset, data_dir=data_dir or spec.data_dir or None)
    if data.sha256 != result["dataset"]["sha256"]:
        raise DissectError(f"data set {spec.dataset!r} has changed since {run} was made")
    device = pick_device("auto")
    model = build(spec.recipe, data.items, spec.dim, spec.sigma, data.longest)
    splits = make_splits(data, spec, device, refit=spec.refit)
    instrument = wrap(
        model, model.parts(), spec.which, examples=len(splits.train), steps=1, noise=spec.noise, prior=spec.prior
    )
    load_weights(model, weights)
    rows = instrument.density(rule, threshold)
    dense = instrument.export(rule, threshold).to(device)
    target = out or folder / pruned_name(spec, rule, threshold)
    write_weights(dense, target)
    test = metrics(rank_examples(dense, splits.test, ties=spec.ties, seen=splits.seen))
    kept, total = instrument.prune_counts(rule, threshold)
    summary = {
        "run": str(run), "rule": rule, "threshold": threshold, "kept": kept, "total": total,
        "density": [r for r in rows if r["tensor"] is None], "test": test, "weights": str(target),
    }  # fmt: skip
    for row in summary["density"]:
        print(f"{row['part']:<15} {row['kept']:>9,} / {row['total']:>9,} kept")
    print(f"{'all parts':<15} {kept:>9,} / {total:>9,} kept by {rule} at {threshold:g}")
    print(f"test HR@20 {test['hr@20']:.2f}, MRR@20 {test['mrr@20']:.2f} on {len(splits.test):,} examples")
    print("zeros in dense matrices save no time by themselves")
    print(f"weights: {target}")
    if as_json:
        print(json.dumps(summary))
    return summary
