"""A run of a model that counts: fitted on the training sessions, tested, recorded as a trained one is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dissect.data import Dataset
from dissect.experiment import record
from dissect.experiment.account import baseline_account, dataset_account, reach_account
from dissect.experiment.machine import device_name, peak_memory_mb
from dissect.experiment.spec import SCHEMA, Spec
from dissect.experiment.splits import Splits, make_splits
from dissect.experiment.strata import strata_arrays
from dissect.models.counting import CountingModel, counting_model
from dissect.training.evaluate import Ranks, by_length, metrics
from dissect.training.progress import counting
from dissect.training.recommended import Tally
from dissect.training.sparse_ranks import counting_latency_ms, rank_counts

if TYPE_CHECKING:
    from dissect.experiment.run import Run

Result = dict[str, Any]


def fitted_model(spec: Spec, splits: Splits, data: Dataset) -> CountingModel:
    """The model that a spec names, counted on the training sessions of `splits`."""
    model = counting_model(spec.model, spec.options)
    model.fit(splits.train_sessions.clicks, splits.train_sessions.offsets, data.items)
    return model


def count(run: Run) -> Result:
    """Fit, validate, fit again on training and validation where the spec asks for it, test; writes ranks.

    Returns
    -------
    dict
        The result, with the keys of a trained model's; 0 epochs, 0 steps and 0 parameters, and for the seconds of an
        epoch those of the count.
    """
    spec, data, folder = run.spec, run.data, run.folder
    splits, valid = make_splits(data, spec, run.device), None
    model, seconds = _timed(spec, splits, data)
    folder.cut_logs({})
    if splits.valid_examples is not None:
        valid = metrics(_rank(run, model, splits, "valid"))
        row = {"kind": "evaluation", "step": 0, "epoch": 0, "split": "valid", "pruned": False, **valid}
        folder.append(record.METRICS, [row])
    if spec.refit:
        splits = make_splits(data, spec, run.device, refit=True)
        model, seconds = _timed(spec, splits, data)
    tally = Tally(data.items)
    ranks = _rank(run, model, splits, "test", tally)
    lengths = np.asarray(splits.test_examples.lengths, np.int32)
    if folder.writes:
        session = np.asarray(splits.test_examples.session, np.int32)
        arrays = {"rank": ranks, "session": session, "length": lengths, **strata_arrays(data)}
        np.savez_compressed(folder / record.RANKS, **arrays)  # type: ignore[arg-type]
    optimistic = spec.protocol == "paper-code"
    return {
        "schema": SCHEMA,
        "run_id": run.id,
        "model": spec.model,
        "recipe": None,
        "seed": spec.seed,
        "dataset": dataset_account(data, splits, spec),
        "protocol": {"name": spec.protocol, "refit": spec.refit, "ties": spec.ties, "optimistic": optimistic},
        "sparsify": None,
        "held": None,
        "epoch": 0,
        "steps": 0,
        "valid": valid,
        "test": metrics(ranks),
        "by_length": by_length(ranks, lengths),
        "reach": reach_account(data, tally, run.world),
        "baselines": baseline_account(data, splits, spec),
        "density": {},
        "lr_budget": 0.0,
        "pruned": None,
        "parameters": 0,
        "seconds_per_epoch": round(seconds, 2),
        "examples_per_second": round(len(splits.train) / max(seconds, 1e-9), 1),
        "latency_ms": round(counting_latency_ms(model, splits.test_examples), 3),
        "device": device_name(run.device),
        "processes": run.world.size,
        "precision": None,
        "peak_memory_mb": peak_memory_mb(),
        "peak_device_memory_mb": None,
    }


def _timed(spec: Spec, splits: Splits, data: Dataset) -> tuple[CountingModel, float]:
    begun = time.perf_counter()
    model = fitted_model(spec, splits, data)
    return model, time.perf_counter() - begun


def _rank(run: Run, model: CountingModel, splits: Splits, split: str, tally: Tally | None = None) -> Ranks:
    """Ranks of a split's targets; of several processes each ranks its part."""
    examples = {"valid": splits.valid_examples, "test": splits.test_examples}[split]
    assert examples is not None
    with counting(f"{run.spec.model} on {run.spec.dataset}: ranking {split}", run.quiet) as progress:
        mine = rank_counts(
            model, examples, ties=run.spec.ties, seen=splits.seen.cpu().numpy(), progress=progress,
            part=run.world.slice(len(examples)), tally=tally,
        )  # fmt: skip
    return np.concatenate(run.world.gather(mine))
