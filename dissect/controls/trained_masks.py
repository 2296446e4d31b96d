"""Comparators that have to train: L0 gates, and iterative magnitude pruning with rewinding.

Both end with as many weights of each part as the run's own rule keeps, and are tested as `dissect prune` tests. Their
budgets differ, and the summary says so: L0 is one training, cut afterwards as the run's own weights are; iterative
pruning is ``rounds + 1`` trainings and an early one, each with its rates and order from the beginning, and its weights
are those of the last, trained under the mask.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from dissect.batch import Batch
from dissect.data import Dataset
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.held import write_masks
from dissect.experiment.main import train_as
from dissect.experiment.prune import kept_by_part, masks_of, pruned_name
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.use import data_of, finished, load_model, wrapped_model
from dissect.experiment.weights import load_weights, write_weights
from dissect.models import build
from dissect.sparsity import L0, Instrument, apply_masks, iterative_magnitude, l0_wrap, select_masks, warmup_weight
from dissect.training.evaluate import metrics, rank_examples
from dissect.training.optimizers import make_optimizer
from dissect.training.plan import Plan
from dissect.training.progress import Progress
from dissect.training.train import Loop

METHODS = ("l0", "imp")
#: Share of the steps after which iterative pruning rewinds to.
REWIND = 0.1


def prune_by_training(
    run: Path,
    method: str,
    *,
    rounds: int = 3,
    lam: float = 1.0,
    out: Path | None = None,
    data_dir: Path | None = None,
    masks: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,
) -> dict[str, Any]:
    """Train masks of as many weights of each part as a finished run keeps, test and print them.

    Parameters
    ----------
    run : path
        A run with wrapped parts and its weights.
    method : {'l0', 'imp'}
        Hard concrete gates (arXiv 1712.01312), of which as many as needed are kept, those most open; or iterative
        magnitude pruning in `rounds` rounds, rewound each time to a tenth of the steps (arXiv 1912.05671). The
        trainings of the latter are run folders of their own.
    rounds : int
    lam : float
        Price of an open gate, in nats. Where fewer gates are open than are to be kept, the others kept are closed ones,
        whose weights are zero: lower it then.
    out : path, optional
        File for the weights; ``pruned-METHOD.safetensors`` in `run` by default.
    data_dir : path, optional
    masks : path, optional
        File for the masks.
    quiet, as_json : bool

    Raises
    ------
    DissectError
        As `prune_run`; for an unknown method and figures out of range.
    """
    if method not in METHODS:
        raise DissectError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    if rounds < 1:
        raise DissectError(f"--rounds is {rounds}; it must be >= 1")
    folder, spec, result = finished(run)
    if spec.delete or spec.mask or spec.init:
        raise DissectError(
            f"--method {method} trains the whole model from its first weights; {run} deletes, masks or takes over some"
        )
    instrument = wrapped_model(run)
    data = data_of(run, data_dir, progress=not quiet)
    spec = spec.replace(data_dir=str(data_dir) if data_dir else spec.data_dir)
    keep = kept_by_part(instrument, masks_of(instrument, spec.rule, instrument.threshold))
    if method == "imp":
        found, dense, test, note = _imp(spec, instrument, keep, rounds, folder.path.parent, result["steps"], quiet)
    else:
        found, dense, test, note = _l0(spec, data, instrument, keep, lam, result["steps"], quiet)
    target = out or folder / pruned_name(spec, spec.rule, instrument.threshold, method)
    write_weights(dense, target)
    if masks is not None:
        write_masks(found, masks)
    kept, total = sum(int(m.sum()) for m in found.values()), sum(m.numel() for m in found.values())
    parts = {part: [keep[part], 0] for part in keep}
    for part, name, _, _ in instrument.tensors():
        parts[part][1] += found[name].numel()
    summary = {
        "run": str(run), "method": method, "kept": kept, "total": total, "parts": parts, "test": test,
        "weights": str(target), "own": {"kept": result["pruned"]["kept"], "test": result["pruned"]["test"]}, **note,
    }  # fmt: skip
    print(f"{kept:,} / {total:,} kept by {method}, as many of each part as {spec.rule} at {spec.threshold:g}")
    print(f"test HR@20 {test['hr@20']:.2f}, MRR@20 {test['mrr@20']:.2f}")
    print(", ".join(f"{part} {k:,} / {n:,}" for part, (k, n) in parts.items()))
    for name, value in note.items():
        print(f"{name.replace('_', ' ')}: {value}")
    if note.get("gates_open") == total:
        print("no gate has closed: which are kept is a ranking of open ones; train longer or raise --l0-lambda")
    print(f"weights: {target}")
    if as_json:
        print(json.dumps(summary))
    return summary


Found = tuple[dict[str, Tensor], torch.nn.Module, dict[str, float], dict[str, Any]]


def _imp(
    spec: Spec, instrument: Instrument, keep: dict[str, int], rounds: int, out: Path, steps: int, quiet: bool
) -> Found:
    names: dict[str, list[str]] = {part: [] for part in keep}
    for part, name, _, _ in instrument.tensors():
        names[part].append(name)
    early = max(1, round(REWIND * steps))
    plain = spec.replace(sparsify="none", shadows=0)
    last: list[Path] = []

    def run(steps: int, init: Path | None, masks: dict[str, Tensor] | None, **changes: Any) -> Path:
        last.append(train_as(plain.replace(steps=steps, **changes), out=out, init=init, masks=masks, quiet=quiet))
        return last[-1]

    # Without refit: weights that had seen the validation sessions would be selected on them afterwards.
    rewind = run(early, None, None, refit=False)
    epoch = finished(rewind)[2]["epoch"]  # of the early training the weights are those of its best epoch

    def train(model: torch.nn.Module, masks: dict[str, Tensor]) -> None:
        if not quiet:
            sys.stderr.write(f"training: round {len(last)} of {rounds + 1}\n")
        whole = all(bool(mask.all()) for mask in masks.values())
        load_weights(model, run(max(1, steps - early), rewind, None if whole else masks) / record.WEIGHTS)

    model = load_model(rewind).train()
    masks = iterative_magnitude(model, names, keep, rounds, train, model.state_dict())
    train(model, masks)
    note = {
        "trainings": rounds + 2,
        "trained_under_the_mask": True,
        "rewound_to_step": early,
        "rewound_to_epoch": epoch,
    }
    return masks, load_model(last[-1]), finished(last[-1])[2]["test"], note


class _Gated:
    """L0 gates as the loop's penalty, drawn once a step, with the run's own warm-up."""

    capturable = False

    def __init__(self, gates: L0, spec: Spec, steps: int) -> None:
        self.gates, self.spec, self.steps = gates, spec, steps

    def penalty(self, step: int) -> Tensor:
        return self.gates.penalty() * self.kl_weight(step)

    def kl_weight(self, step: int) -> float:
        return warmup_weight(step, self.steps, *self.spec.warmup)

    def weighted(self, weight: Tensor) -> Tensor:
        return self.gates.penalty() * weight

    def drawing(self, batch: Batch) -> Any:
        return parametrize.cached()


def _l0(
    spec: Spec, data: Dataset, instrument: Instrument, keep: dict[str, int], lam: float, steps: int, quiet: bool
) -> Found:
    splits = make_splits(data, spec, torch.device("cpu"), refit=spec.refit)
    torch.manual_seed(spec.seed)
    model = build(spec.recipe, data.items, spec.dim, spec.sigma, data.longest)
    model.prepare(splits.train)
    layers = [name for part in instrument.modules.values() for name in part]
    gates = l0_wrap(model, layers, len(splits.train), lam=lam)
    plan = Plan(len(splits.train), spec.batch_size, steps, spec.seed, spec.lr_step, spec.lr_gamma)
    groups = gates.param_groups(spec.lr, spec.lr_sigma, spec.weight_decay)
    # The gates' rate is constant, as that of log sigma^2 is: the loop knows it by that name.
    groups = [{**group, "name": "sigma" if group["name"] == "gates" else group["name"]} for group in groups]
    optimizer = make_optimizer(spec.optimizer, groups, spec.lr)
    bar = Progress(f"L0 gates on {spec.dataset}", quiet=quiet)
    Loop(model, splits.train, optimizer, plan, [bar], _Gated(gates, spec, steps)).run()
    # The most open gates; log_a is their order, shifted so that magnitude can be asked for it.
    located = {name: gate.log_a.detach() for name, gate in gates.gates.items()}
    low = min(float(log_a.min()) for log_a in located.values())
    entries = [
        (part, name, located[name] - low + 1.0, torch.zeros_like(located[name]))
        for part, name, _, _ in instrument.tensors()
    ]
    masks = select_masks(entries, keep, "magnitude")
    opened = gates.masks()
    dense = gates.export()
    apply_masks(dense, masks)
    ranks = rank_examples(dense, splits.test, ties=spec.ties, seen=splits.seen)
    note = {
        "trainings": 1, "trained_under_the_mask": False, "lambda": lam,
        "gates_open": sum(int(m.sum()) for m in opened.values()),
        "of_them_kept": sum(int((m & masks[name]).sum()) for name, m in opened.items()),
    }  # fmt: skip
    return masks, dense, metrics(ranks), note
