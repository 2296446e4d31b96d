"""Comparators that have to train: L0 gates, and iterative magnitude pruning with rewinding.

Both end with as many weights of each part as the run's own rule keeps, and are tested as `dissect prune` tests.
"""

from __future__ import annotations

import json
import math
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from dissect.batch import Batch
from dissect.data import load
from dissect.errors import DissectError
from dissect.experiment.held import write_masks
from dissect.experiment.main import start_run
from dissect.experiment.prune import masks_of
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.use import finished, load_model, wrapped_model
from dissect.models import build
from dissect.sparsity import L0, Instrument, apply_masks, l0_wrap, select_masks
from dissect.sparsity.comparators import imp_schedule
from dissect.training.evaluate import metrics, rank_examples
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
        Price of an open gate, in nats.
    out : path, optional
        Directory for run folders; by default the one that `run` is in.
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
    _, spec, result = finished(run)
    instrument = wrapped_model(run)
    where = {"data_dir": str(data_dir) if data_dir else spec.data_dir}
    spec = spec.replace(**where)
    train = _imp if method == "imp" else _l0
    found, test, note = train(run, spec, instrument, {"rounds": rounds, "lam": lam}, out or run.parent, quiet)
    if masks is not None:
        write_masks(found, masks)
    kept, total = sum(int(m.sum()) for m in found.values()), sum(m.numel() for m in found.values())
    summary = {
        "run": str(run), "method": method, "kept": kept, "total": total, "test": test,
        "own": {"kept": result["pruned"]["kept"], "test": result["pruned"]["test"]}, **note,
    }  # fmt: skip
    print(f"{kept:,} / {total:,} kept by {method}, as many of each part as {spec.rule} at {spec.threshold:g}")
    print(f"test HR@20 {test['hr@20']:.2f}, MRR@20 {test['mrr@20']:.2f}")
    for name, value in note.items():
        print(f"{name.replace('_', ' ')}: {value}")
    if as_json:
        print(json.dumps(summary))
    return summary


def _keep(instrument: Instrument, masks: dict[str, Tensor]) -> dict[str, int]:
    keep = {part: 0 for part, _, _, _ in instrument.tensors()}
    for part, name, _, _ in instrument.tensors():
        keep[part] += int(masks[name].sum())
    return keep


def _imp(
    run: Path, spec: Spec, instrument: Instrument, how: dict[str, Any], out: Path, quiet: bool
) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
    keep = _keep(instrument, masks_of(instrument, spec.rule, instrument.threshold))
    names: dict[str, list[str]] = {part: [] for part in keep}
    for part, name, _, _ in instrument.tensors():
        names[part].append(name)
    total_steps = finished(run)[2]["steps"]
    early = max(1, round(REWIND * total_steps))
    plain = spec.replace(sparsify="none", init="", shadows=0)

    def train(steps: int, init: Path | None, masks: dict[str, Tensor] | None) -> Path:
        options = {k: v for k, v in vars(plain.replace(steps=steps)).items() if k not in ("model", "mask")}
        with redirect_stdout(StringIO()):
            found = start_run(spec.model, options, out=out, init=init, force=False, quiet=quiet, mask=masks)
        return out / found["run_id"]

    rewind = train(early, None, None)
    masks: dict[str, Tensor] | None = None
    folder = rewind
    for i in range(how["rounds"] + 1):
        if not quiet:
            sys.stderr.write(f"training: round {i + 1} of {how['rounds'] + 1}\n")
        folder = train(total_steps - early, rewind, masks)
        if i == how["rounds"]:
            break
        model = load_model(folder)
        counts = {}
        for part, held in names.items():
            size = sum(model.get_parameter(name).numel() for name in held)
            counts[part] = imp_schedule(size, keep[part], how["rounds"])[i]
        entries = [
            # What is masked out is zero; -1 in the log variance's place is not read by magnitude.
            (part, name, _survivors(model.get_parameter(name).detach(), None if masks is None else masks[name]),
             torch.zeros_like(model.get_parameter(name)))
            for part, held in names.items() for name in held
        ]  # fmt: skip
        masks = select_masks(entries, counts, "magnitude")
    assert masks is not None
    return masks, finished(folder)[2]["test"], {"rounds": how["rounds"], "rewound_to_step": early}


def _survivors(weight: Tensor, mask: Tensor | None) -> Tensor:
    """Weights whose order by magnitude puts those that are masked out last, behind zeros that are not."""
    shifted = weight.abs() + 1.0
    return shifted if mask is None else shifted * mask


class _Gated:
    """L0 gates as the loop's penalty, drawn once a step."""

    capturable = False

    def __init__(self, gates: L0) -> None:
        self.gates = gates

    def penalty(self, step: int) -> Tensor:
        return self.gates.penalty()

    def kl_weight(self, step: int) -> float:
        return 1.0

    def weighted(self, weight: Tensor) -> Tensor:
        return self.gates.penalty() * weight

    def drawing(self, batch: Batch) -> Any:
        return parametrize.cached()


def _l0(
    run: Path, spec: Spec, instrument: Instrument, how: dict[str, Any], out: Path, quiet: bool
) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
    keep = _keep(instrument, masks_of(instrument, spec.rule, instrument.threshold))
    data = load(spec.dataset, data_dir=spec.data_dir or None, progress=not quiet)
    device = torch.device("cpu")
    splits = make_splits(data, spec, device, refit=spec.refit)
    torch.manual_seed(spec.seed)
    model = build(spec.recipe, data.items, spec.dim, spec.sigma, data.longest)
    layers = [name for part in instrument.modules.values() for name in part]
    gates = l0_wrap(model, layers, len(splits.train), lam=how["lam"])
    per_epoch = math.ceil(len(splits.train) / spec.batch_size)
    steps = finished(run)[2]["steps"]
    plan = Plan(len(splits.train), spec.batch_size, steps, spec.seed, spec.lr_step, spec.lr_gamma)
    groups = gates.param_groups(spec.lr, spec.lr_sigma, spec.weight_decay)
    # The gates' rate is constant, as that of log sigma^2 is: the loop knows it by that name.
    groups = [{**group, "name": "sigma" if group["name"] == "gates" else group["name"]} for group in groups]
    optimizer = torch.optim.Adam(groups, fused=True)
    bar = Progress(f"L0 gates on {spec.dataset}, {steps // per_epoch or 1} epochs", quiet=quiet)
    Loop(model, splits.train, optimizer, plan, [bar], _Gated(gates)).run()
    parts = [(part, name) for part, name, _, _ in instrument.tensors()]
    own = gates.kept()
    # The most open gates; log_a is their order, shifted so that magnitude can be asked for it.
    low = min(float(gate.log_a.detach().min()) for gate in gates.gates.values())
    entries = [
        (part, name, gates.gates[name].log_a.detach() - low + 1.0, torch.zeros_like(gates.gates[name].log_a))
        for part, name in parts
    ]
    masks = select_masks(entries, keep, "magnitude")
    dense = gates.export()
    apply_masks(dense, masks)
    ranks = rank_examples(dense, splits.test, ties=spec.ties, seen=splits.seen)
    kept = int(np.sum([k for k, _ in own.values()]))
    return masks, metrics(ranks), {"lambda": how["lam"], "gates_open_of_all": kept}
