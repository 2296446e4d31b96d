"""Using a finished run: its model, its instrument, its recommendations."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dissect.batch import Batch
from dissect.data import Dataset, load
from dissect.data.layouts import NAMES
from dissect.data.sources import find
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.counted import fitted_model
from dissect.experiment.record import RunFolder
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.weights import load_weights, weight_names
from dissect.models import SessionModel, build
from dissect.sparsity import Instrument, wrap
from dissect.training.sparse_ranks import best_of_row


def finished(run: Path) -> tuple[RunFolder, Spec, dict[str, Any]]:
    """Folder, spec and result of a finished run; a DissectError where it is not there or not finished."""
    folder = RunFolder(run)
    if not folder.path.is_dir():
        raise DissectError(f"no run folder at {run}")
    spec = Spec.from_json(json.dumps(folder.read_json(record.SPEC)), str(folder / record.SPEC))
    if folder.result is None:
        raise DissectError(f"{run} is not finished; dissect run --resume {run} goes on")
    return folder, spec, folder.result


def data_of(run: Path, data_dir: Path | None = None, progress: bool = False) -> Dataset:
    """The data set that a finished run was made on; `data_dir` outranks the spec's.

    Raises
    ------
    DissectError
        If it is not there, or has changed since.
    """
    _, spec, result = finished(run)
    data = load(spec.dataset, data_dir=data_dir or spec.data_dir or None, progress=progress)
    if data.sha256 != result["dataset"]["sha256"]:
        raise DissectError(f"data set {spec.dataset!r} has changed since {run} was made")
    return data


def weights_file(folder: RunFolder, pruned: bool = False) -> Path:
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
    folder, spec, result = finished(Path(run))
    if pruned and result["pruned"] is None:
        raise DissectError(f"{run} has no pruned weights: nothing was wrapped (--sparsify none)")
    model = build(spec.recipe, result["dataset"]["items"], spec.dim, spec.sigma, result["dataset"].get("longest"))
    load_weights(model, weights_file(folder, pruned))
    return model.eval()


def recommend_items(
    run: Path, items: list[int], top: int = 20, pruned: bool = False, data_dir: Path | None = None
) -> dict[str, Any]:
    """The `top` items that may follow a session, with their scores.

    Parameters
    ----------
    run : path
    items : list of int
        The session in the data set's own ids, oldest click first.
    data_dir : path, optional
        Where a model that counts finds the data set; outranks the spec's.

    Raises
    ------
    DissectError
        For an id that the data set does not have, and where there are no weights, or for a model that counts not the
        data set.
    """
    folder, spec, result = finished(run)
    # First: without weights nothing else is worth saying.
    model = None if spec.counts and not pruned else load_model(run, pruned)
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
    session = [i - first for i in items]
    if model is None:
        best, scores = _count_items(run, spec, session, top, data_dir)
    else:
        try:
            with torch.no_grad():
                scores, best = model.scores(Batch.from_lists([session]))[0].topk(min(top, count))
        except ValueError as error:  # some readouts have a longest session
            raise DissectError(f"{run}: {error}") from None
    return {
        "session": items,
        "items": [{"item": int(i) + first, "score": round(float(s), 6)} for s, i in zip(scores, best, strict=True)],
    }


def recommend_names(
    run: Path, items: list[str], top: int = 20, pruned: bool = False, data_dir: Path | None = None
) -> dict[str, Any]:
    """`recommend_items` with the names that the raw data had: the lines of a prepared data set's ``items.txt``.

    Raises
    ------
    DissectError
        As `recommend_items`; for a name that the data set does not have, and a data set without names.
    """
    _, spec, result = finished(run)
    data_of(run, data_dir)  # names of data that have changed since would be those of other items
    path = find(spec.dataset, data_dir or spec.data_dir or None).train.with_name(NAMES)
    if not path.is_file():
        raise DissectError(f"no names at {path}: 'dissect data prepare' writes them; leave out --names and give ids")
    names = path.read_text(encoding="utf-8").splitlines()
    if len(names) != result["dataset"]["items"]:
        raise DissectError(f"{path} has {len(names):,} names for {result['dataset']['items']:,} items")
    first = result["dataset"].get("first_id", 0)
    ids = {name: number for number, name in enumerate(names, first)}
    for item in items:
        if item not in ids:
            raise DissectError(f"no item {item!r} in {path}; it has {', '.join(names[:3])} and {len(names) - 3:,} more")
    found: list[dict[str, Any]] = recommend_items(run, [ids[item] for item in items], top, pruned, data_dir)["items"]
    return {"session": items, "items": [{**row, "item": names[row["item"] - first]} for row in found]}


def _count_items(run: Path, spec: Spec, session: list[int], top: int, data_dir: Path | None) -> tuple[Any, Any]:
    """The best items by a model that counts, which keeps no weights: it counts once more, on what the run did."""
    data = data_of(run, data_dir)
    model = fitted_model(spec, make_splits(data, spec, torch.device("cpu"), refit=spec.refit), data)
    scores = model.scores(np.array(session), np.array([0]), np.array([len(session)]))
    return best_of_row(scores, model.background, top)


def wrapped_model(run: Path) -> Instrument:
    """The instrument of a finished run with wrapped parts, on its trained model, on the CPU.

    Raises
    ------
    DissectError
        If the run is not finished, nothing was wrapped, or its weights are not there.
    """
    folder, spec, result = finished(run)
    if not spec.sparse:
        raise DissectError(f"{run} has nothing to prune: it was run with --sparsify none")
    model = build(spec.recipe, result["dataset"]["items"], spec.dim, spec.sigma, result["dataset"].get("longest"))
    instrument = wrap(
        model, model.parts(), spec.which, examples=result["dataset"]["train_examples"], steps=1, noise=spec.noise,
        prior=spec.prior, rule=spec.rule, threshold=spec.threshold,
    )  # fmt: skip
    weights = weights_file(folder)
    _leave_out(instrument, weight_names(weights))
    load_weights(model, weights)
    return instrument


def _leave_out(instrument: Instrument, names: Collection[str]) -> None:
    """Make modules dense that the run left out, since no forward pass calls them: its file has no variances of them."""
    keys = {id(p): key for key, p in instrument.model.named_parameters()}
    instrument.exclude(
        name
        for modules in instrument.modules.values()
        for name, module in modules.items()
        if not any(keys[id(p)] in names for k, p in module.named_parameters(recurse=False) if "log_sigma2" in k)
    )
