"""`dissect prune`: a finished run's weights cut by a rule, or another way at as many weights; tested and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.held import write_masks
from dissect.experiment.machine import pick_device
from dissect.experiment.record import RunFolder
from dissect.experiment.spec import Spec
from dissect.experiment.splits import Splits, make_splits
from dissect.experiment.use import data_of, finished, weights_file, wrapped_model
from dissect.experiment.weights import write_weights
from dissect.models import SessionModel
from dissect.sparsity import METHODS, Instrument, apply_masks, keep_mask, measure, select_masks, shrink
from dissect.sparsity.density import get_rule
from dissect.training.evaluate import metrics, rank_examples

#: Sessions in the batch that a forward pass is timed on.
TIMED = 100


def pruned_name(spec: Spec, rule: str, threshold: float, method: str = "") -> str:
    """File name of a run's weights pruned by `rule`: the record's own name is for the run's own rule alone."""
    name = Path(record.PRUNED_WEIGHTS)
    own = (rule, threshold) == (spec.rule, spec.threshold)
    how = [method] * bool(method) + ([] if own else [rule, repr(float(threshold)).removesuffix(".0")])
    return "-".join([name.stem, *how]) + name.suffix


def refuse_own_files(folder: RunFolder, *paths: Path | None) -> None:
    """Refuse to write over what a run is made of.

    Raises
    ------
    DissectError
        For a path that is a file of the run's record.
    """
    kept = {name: (folder / name).resolve() for name in (*record.SMALL, *record.OWN)}
    for path in paths:
        if path is not None and path.exists() and path.resolve() in kept.values():
            raise DissectError(f"{path} is part of the run's record; choose another file")


def prune_run(
    run: Path,
    rule: str | None = None,
    threshold: float | None = None,
    out: Path | None = None,
    as_json: bool = False,
    data_dir: Path | None = None,
    *,
    method: str = "",
    masks: Path | None = None,
    shrunk: bool = False,
) -> dict[str, Any]:
    """Prune a finished run by its own rule or another, write the dense weights, test them and print both.

    Parameters
    ----------
    run : path
    rule, threshold
        What is kept; the run's own where left out.
    out : path, optional
        File for the weights; by default one in `run` that no other rule, threshold or method writes.
    as_json : bool
        Whether to print the summary as a last line of JSON.
    data_dir : path, optional
        Where data sets lie; outranks the spec's.
    method : str
        One of `METHODS`: keeps as many weights of each part as the rule does, chosen otherwise. Empty for the rule.
    masks : path, optional
        File for the masks, which `dissect run --mask` takes.
    shrunk : bool
        Whether to remove empty rows and columns too, and measure what that saves.

    Raises
    ------
    DissectError
        If the run is not finished, has nothing to prune or no weights, or its data set is not there or has changed.
    """
    folder, spec, _ = finished(run)
    if not spec.sparse:
        raise DissectError(f"{run} has nothing to prune: it was run with --sparsify none")
    rule = rule or spec.rule
    threshold = get_rule(rule, spec.threshold if threshold is None and rule == spec.rule else threshold)[1]
    refuse_own_files(folder, out, masks)
    weights_file(folder)  # first: without weights nothing else is worth saying
    data = data_of(run, data_dir)
    device = pick_device("auto")
    splits = make_splits(data, spec, device, refit=spec.refit)
    instrument = wrapped_model(run)
    chosen = masks_of(instrument, rule, threshold, method, spec.seed)
    dense = instrument.export("magnitude", -1.0)  # every weight
    apply_masks(dense, chosen)
    dense.to(device)
    target = out or folder / pruned_name(spec, rule, threshold, method)
    write_weights(dense, target)
    if masks is not None:
        write_masks(chosen, masks)
    test = metrics(rank_examples(dense, splits.test, ties=spec.ties, seen=splits.seen))
    rows = _counts(instrument, chosen)
    kept, total = (sum(row[name] for row in rows) for name in ("kept", "total"))
    summary: dict[str, Any] = {
        "run": str(run), "rule": rule, "threshold": threshold, "method": method or rule, "kept": kept, "total": total,
        "density": rows, "test": test, "weights": str(target),
    }  # fmt: skip
    for row in rows:
        print(f"{row['part']:<15} {row['kept']:>9,} / {row['total']:>9,} kept")
    how = f"{rule} at {threshold:g}"
    how = f"{method}, as many as {how}" if method else how
    print(f"{'all parts':<15} {kept:>9,} / {total:>9,} kept by {how}")
    print(f"test HR@20 {test['hr@20']:.2f}, MRR@20 {test['mrr@20']:.2f} on {len(splits.test):,} examples")
    if shrunk:
        summary["shrink"] = _shrink(dense, splits)
    else:
        print("zeros in dense matrices save no time by themselves; --shrink removes empty rows and columns")
    print(f"weights: {target}")
    if as_json:
        print(json.dumps(summary))
    return summary


def masks_of(instrument: Instrument, rule: str, threshold: float, method: str = "", seed: int = 0) -> dict[str, Tensor]:
    """What a rule keeps, or `method` at as many weights of each part: parameter -> mask."""
    tensors = list(instrument.tensors())
    own = {name: keep_mask(theta, s, rule, threshold) for _, name, theta, s in tensors}
    if not method:
        return own
    if method not in METHODS:
        raise DissectError(f"unknown method {method!r}; choose from {', '.join(METHODS)}, l0, imp")
    generator = torch.Generator().manual_seed(seed)
    return select_masks(tensors, kept_by_part(instrument, own), method, generator)


def kept_by_part(instrument: Instrument, masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Part -> how many of its wrapped weights the masks keep."""
    keep = dict.fromkeys(instrument.modules, 0)
    for part, name, _, _ in instrument.tensors():
        keep[part] += int(masks[name].sum())
    return keep


def _counts(instrument: Instrument, masks: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    total = dict.fromkeys(instrument.modules, 0)
    for part, _, theta, _ in instrument.tensors():
        total[part] += theta.numel()
    return [
        {"part": part, "kept": kept, "total": total[part], "density": kept / total[part] if total[part] else None}
        for part, kept in kept_by_part(instrument, masks).items()
    ]


def _shrink(dense: torch.nn.Module, splits: Splits) -> dict[str, Any]:
    """Remove what is empty, time both, and print it."""
    batch = splits.test.batch(torch.arange(min(TIMED, len(splits.test)), device=splits.test.clicks.device))

    def forward(model: Any) -> Tensor:
        m: SessionModel = model
        return m(batch).query

    report = shrink(dense.eval())
    print(report)
    sizes = {
        "matrices": report.shrunk, "parameters": [report.parameters_before, report.parameters_after],
        "bytes": [report.bytes_before, report.bytes_after], "sentence": report.sentence,
    }  # fmt: skip
    if not report.shrunk:  # both are one model, and what times they took would be chance
        return {**sizes, "ms": None, "speedup": None}
    timing = measure(dense, report, forward)
    print(f"one batch of {len(batch)} sessions to their queries: {timing.dense_ms:.2f} ms before, "
          f"{timing.shrunk_ms:.2f} ms after: {timing.sentence}")  # fmt: skip
    return {
        **sizes, "ms": [timing.dense_ms, timing.shrunk_ms], "speedup": [timing.speedup, timing.low, timing.high],
        "sentence": timing.sentence,
    }  # fmt: skip
