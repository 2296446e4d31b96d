"""One run from spec to record."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dissect.batch import PackedExamples
from dissect.data import Dataset, Examples, expand, load, split_validation, subset
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.callbacks import Checkpoint, Recorder, Selection
from dissect.experiment.record import RunFolder
from dissect.experiment.spec import SCHEMA, Spec
from dissect.models import SessionModel, build
from dissect.sparsity import Instrument, resolve_parts, wrap
from dissect.training.baselines import baseline_ranks
from dissect.training.evaluate import Ranks, by_length, metrics, rank_examples
from dissect.training.memory import keep_large_allocations
from dissect.training.progress import Progress, counting
from dissect.training.train import Loop, Plan


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA, then MPS, then the CPU, whichever is there first.

    Raises
    ------
    DissectError
        If the device asked for is not there.
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if name == "auto":
        return torch.device(there[0])
    if name.split(":")[0] not in there:
        raise DissectError(f"device {name!r} is not available here; choose from: auto, {', '.join(there)}")
    return torch.device(name)


def peak_memory_mb() -> float | None:
    """The most memory this process has held resident so far, in MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


@dataclass
class Splits:
    """The three splits on a device, and what their targets' training saw."""

    train: PackedExamples
    valid: PackedExamples | None
    test: PackedExamples
    train_examples: Examples
    valid_examples: Examples | None
    test_examples: Examples
    seen: torch.Tensor
    """Items that occur in training, (items,) bool."""


def packed(examples: Examples, device: torch.device) -> PackedExamples:
    """Put a split on the device."""
    tensors = (torch.from_numpy(np.array(a)) for a in (examples.clicks, examples.start, examples.end))
    return PackedExamples(*tensors, device=device)


def make_splits(data: Dataset, spec: Spec, device: torch.device, refit: bool = False) -> Splits:
    """Split by session first, then expand into prefixes; no sibling of a prefix crosses a split."""
    train, valid = data.train, None
    if spec.protocol == "honest" and not refit:
        train, valid = split_validation(train, spec.valid_fraction)
    if spec.max_train:
        train = subset(train, spec.max_train, spec.seed)
    examples = expand(train)
    if not len(examples):
        raise DissectError(f"data set {data.name!r}: no training session has two clicks")
    valid_examples = None if valid is None else expand(valid)
    seen = np.zeros(data.items, bool)
    seen[train.clicks] = True
    return Splits(
        packed(examples, device),
        None if valid_examples is None else packed(valid_examples, device),
        packed(data.test, device),
        examples,
        valid_examples,
        data.test,
        torch.from_numpy(seen).to(device),
    )


def environment(data: Dataset, device: torch.device) -> dict[str, Any]:
    """Versions, device, commit and the data's hash."""
    try:
        here = Path(__file__).resolve().parent
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        git = None
    names = ("sbr-dissect", "torch", "numpy", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {n: metadata.version(n) for n in names},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "git_commit": git,
        "data_sha256": data.sha256,
    }


def device_name(device: torch.device) -> str:
    """``cpu``, or the kind of accelerator with its name."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


class Run:
    """One run: a spec, its data, and a folder that holds what happened.

    Parameters
    ----------
    spec : Spec
    out : path
        The run's folder goes into this directory.
    folder : path, optional
        Continue the run in this folder instead.
    quiet : bool
        No progress bars.
    """

    def __init__(
        self, spec: Spec, out: Path | str = "runs", folder: Path | str | None = None, quiet: bool = False
    ) -> None:
        self.spec, self.quiet = spec, quiet
        check_parts(spec)
        self.device = pick_device(spec.device)
        self.data = load(spec.dataset, data_dir=spec.data_dir or None)
        self.id = spec.run_id(self.data.sha256)
        self.folder = RunFolder(folder or Path(out) / self.id)

    @classmethod
    def resume(cls, folder: Path | str, data_dir: str | None = None, quiet: bool = False) -> Run:
        """Take up the run in `folder` with its own spec.

        Raises
        ------
        DissectError
            If it is no run folder, or its data set's content has changed since.
        """
        there = RunFolder(folder)
        if not there.path.is_dir():
            raise DissectError(f"no run folder at {folder}")
        spec = Spec.from_json(json.dumps(there.read_json(record.SPEC)), str(there / record.SPEC))
        if data_dir:
            spec = spec.replace(data_dir=data_dir)
        run = cls(spec, folder=folder, quiet=quiet)
        recorded = there.read_json(record.ENVIRONMENT).get("data_sha256")
        if recorded != run.data.sha256:
            raise DissectError(
                f"can't resume {folder}: data set {spec.dataset!r} has changed since "
                f"(SHA-256 {str(recorded)[:12]}… then, {run.data.sha256[:12]}… now); start a new run"
            )
        return run

    def execute(self, init: Path | None = None) -> dict[str, Any]:
        """Train, evaluate and record; go on from a saved state where there is one.

        Returns
        -------
        dict
            The content of result.json.
        """
        spec, folder = self.spec, self.folder
        if (done := folder.result) is not None:
            return done
        keep_large_allocations()
        folder.create()
        state = self._saved_state()
        if state is None:
            # The spec last: a folder that has one can be resumed.
            if init is None and (folder / record.ENVIRONMENT).exists():
                name = folder.read_json(record.ENVIRONMENT).get("init_weights")
                init = Path(name) if name else None
            env = environment(self.data, self.device)
            folder.write_json(record.ENVIRONMENT, {**env, "init_weights": str(init) if init else None})
            record.write_atomically(folder / record.SPEC, spec.to_json() + "\n")
        if state is None or state["phase"] == "select":
            outcome = self._train("select", spec, state, init, {})
            if spec.refit and spec.protocol == "honest":
                chosen = outcome.chosen()
                again = spec.replace(epochs=chosen["epoch"], steps=chosen["steps"] if spec.steps else 0)
                outcome = self._train("refit", again, None, init, chosen)
        else:
            chosen = state["extra"]
            again = spec.replace(epochs=chosen["epoch"], steps=chosen["steps"] if spec.steps else 0)
            outcome = self._train("refit", again, state, init, chosen)
        result = outcome.finish()
        folder.write_json(record.RESULT, result)
        folder.close()
        return result

    def _saved_state(self) -> dict[str, Any] | None:
        path = self.folder / record.STATE
        if not path.exists():
            return None
        try:
            return torch.load(path, weights_only=True, map_location=self.device)
        except Exception as error:
            raise DissectError(f"{path} is damaged ({type(error).__name__}); delete it to start over") from None

    def _train(
        self, phase: str, spec: Spec, state: dict[str, Any] | None, init: Path | None, extra: dict[str, Any]
    ) -> Outcome:
        torch.manual_seed(spec.seed)
        splits = make_splits(self.data, spec, self.device, refit=phase == "refit")
        model = build(spec.recipe, self.data.items, spec.dim, spec.sigma).to(self.device)
        if init is not None:
            load_weights(model, init)
        per_epoch = math.ceil(len(splits.train) / spec.batch_size)
        plan = Plan(
            len(splits.train), spec.batch_size, spec.steps or spec.epochs * per_epoch, spec.seed,
            spec.lr_step, spec.lr_gamma,
        )  # fmt: skip
        instrument = instrument_of(model, spec, plan, splits) if spec.sparse else None
        if instrument is not None:
            groups = instrument.param_groups(spec.lr, spec.lr_sigma, spec.weight_decay)
        else:
            everything = list(model.parameters())
            groups = [{"name": "rest", "params": everything, "lr": spec.lr, "weight_decay": spec.weight_decay}]
        optimizer = torch.optim.Adam(groups, lr=spec.lr, fused=True)
        # The encoders' sparse lookups are added into the dense gradient of the loss (see models.gather).
        outcome = Outcome(self, phase, splits, model, instrument, plan, extra)
        rate = spec.lr_sigma
        self.recorder = Recorder(
            self.folder,
            instrument,
            max(1, plan.steps // 400),
            max(1, min(plan.steps // 250, int(1 / rate) or 1)),
        )
        selecting = phase == "select"
        outcome.selection = (
            Selection(
                self.folder,
                lambda pruned: metrics(outcome.rank(outcome.split, pruned)),
                outcome.split,
                sparse=spec.sparse,
                patience=spec.patience,
                either=spec.protocol == "paper-code",
            )
            if selecting
            else None
        )
        checkpoint = Checkpoint(self.folder, phase, outcome.selection)
        checkpoint.extra = extra
        kl = None if instrument is None else (lambda: float(instrument.kl()) / instrument.examples)
        bar = Progress(f"{spec.model} on {spec.dataset}", kl, self.recorder.latest, self.quiet)
        callbacks = [self.recorder, bar, *([outcome.selection] if outcome.selection else []), checkpoint]
        loop = Loop(model, splits.train, optimizer, plan, callbacks, instrument)
        outcome.loop = loop
        if state is not None:
            self.folder.cut_logs(state["logs"])
            loop.load_state_dict(state)
        elif phase == "select":
            self.folder.cut_logs({})
        loop.run()
        return outcome


def check_parts(spec: Spec) -> None:
    """Raise a DissectError, before anything is written, unless the parts to wrap exist and have weights."""
    if spec.sparse:
        model = build(spec.recipe, items=1, dim=1)
        if not any(resolve_parts(model, model.parts(), spec.which).values()):
            raise DissectError(
                f"--sparsify {spec.sparsify}: these parts of {spec.model!r} have no weights; use --sparsify none"
            )


def instrument_of(model: SessionModel, spec: Spec, plan: Plan, splits: Splits) -> Instrument:
    """Wrap the parts that the spec names; weights that no forward pass calls are left out."""
    instrument = wrap(
        model, model.parts(), spec.which, examples=plan.examples, steps=plan.steps, noise=spec.noise,
        prior=spec.prior, log_sigma2=spec.log_sigma2, kl_scale=spec.kl_scale, warmup=spec.warmup,
        rule=spec.rule, threshold=spec.threshold,
    )  # fmt: skip
    probe = splits.train.batch(torch.zeros(1, dtype=torch.int64, device=splits.train.clicks.device))
    dead = instrument.check_dead(lambda: model(probe))
    if dead:
        instrument.exclude(dead)
        print(f"left out, never called in a forward pass: {', '.join(dead)}", file=sys.stderr)
    return instrument


def write_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's parameters as safetensors, whole or not at all."""
    from safetensors.torch import save

    record.write_atomically(path, save({k: v.contiguous().cpu() for k, v in model.state_dict().items()}))


def load_weights(model: SessionModel, path: Path) -> None:
    """Load model.safetensors of a run into `model`.

    Raises
    ------
    DissectError
        If it is not there or of another shape.
    """
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except OSError:
        raise DissectError(f"no weights at {path}") from None
    own = model.state_dict()
    wrong = [k for k in own if k not in weights or weights[k].shape != own[k].shape]
    if wrong:
        raise DissectError(f"{path} does not fit this model: {', '.join(wrong[:3])} missing or of another shape")
    model.load_state_dict({k: weights[k] for k in own})


class Outcome:
    """A trained model with all that is needed to judge and record it."""

    loop: Loop
    selection: Selection | None

    def __init__(
        self,
        run: Run,
        phase: str,
        splits: Splits,
        model: SessionModel,
        instrument: Instrument | None,
        plan: Plan,
        extra: dict[str, Any],
    ) -> None:
        self.run, self.phase, self.splits, self.model = run, phase, splits, model
        self.instrument, self.plan, self.extra = instrument, plan, extra
        self.split = "test" if run.spec.protocol == "paper-code" else "valid"

    def rank(self, split: str, pruned: bool = False) -> Ranks:
        """Ranks of a split's targets, by the mean weights or by the kept ones alone."""
        examples = {"valid": self.splits.valid, "test": self.splits.test}[split]
        assert examples is not None
        ties, seen = self.run.spec.ties, self.splits.seen
        with counting(f"ranking {split}", self.run.quiet) as progress:
            if pruned:
                assert self.instrument is not None
                with self.instrument.masked():
                    return rank_examples(self.model, examples, ties=ties, seen=seen, progress=progress)
            return rank_examples(self.model, examples, ties=ties, seen=seen, progress=progress)

    def chosen(self) -> dict[str, Any]:
        """The epoch that selection found, and its validation metrics."""
        s = self.selection
        assert s is not None
        last = math.ceil(self.loop.step / self.plan.steps_per_epoch)
        epoch = last if self.run.spec.sparse else s.best_epoch["mrr@20"]
        steps = min(epoch * self.plan.steps_per_epoch, self.loop.step)
        return {"epoch": epoch, "steps": steps, "valid": s.metrics, "valid_pruned": s.metrics_pruned}

    def finish(self) -> dict[str, Any]:
        """Evaluate on the test set and write weights, ranks and curves; returns the result."""
        run, spec, folder = self.run, self.run.spec, self.run.folder
        chosen = self.extra if self.phase == "refit" else self.chosen()
        if self.selection is not None:
            self.selection.restore(self.model)
        optimistic = spec.protocol == "paper-code"
        ranks = self.rank("test")
        test = metrics(ranks)
        test_examples = self.splits.test_examples
        arrays = {
            "rank": ranks,
            "session": np.asarray(test_examples.session, np.int32),
            "length": np.asarray(test_examples.lengths, np.int32),
        }
        pruned = density = None
        if self.instrument is not None:
            arrays["rank_pruned"] = self.rank("test", pruned=True)
            kept, total = self.instrument.prune_counts()
            pruned = {
                "test": metrics(arrays["rank_pruned"]),
                "valid": chosen.get("valid_pruned") if not optimistic else None,
                "by_length": by_length(arrays["rank_pruned"], arrays["length"]),
                "kept": kept,
                "total": total,
            }
            density = {
                row["part"]: {
                    "kept": row["kept"],
                    "total": row["total"],
                    "density": row["density"],
                    "settled": run.recorder.settled(row["part"], self.loop, spec.warmup[1]),
                }
                for row in self.instrument.density()
                if row["tensor"] is None
            }
            curves = {r: self.instrument.thresholds(r) for r in ("log-alpha", "magnitude")}
            folder.write_json(record.THRESHOLDS, curves)
            dense = self.instrument.export()
            write_weights(dense, folder / record.PRUNED_WEIGHTS)
        protocol: dict[str, Any] = {
            "name": spec.protocol, "refit": spec.refit, "ties": spec.ties, "optimistic": optimistic,
        }  # fmt: skip
        if optimistic and self.selection is not None and not spec.sparse:
            # The released habit: each metric's best epoch on the test set. Never comparable with an honest one.
            test = {k: self.selection.best[k] for k in test}
            protocol["epochs"] = self.selection.best_epoch
        write_weights(self.model, folder / record.WEIGHTS)  # variances too: `dissect prune` needs them
        np.savez_compressed(folder / record.RANKS, **arrays)  # type: ignore[arg-type]
        loop, recipe = self.loop, spec.recipe
        rate = loop.train_examples / max(loop.train_seconds, 1e-9)
        unseen = {s: self._unseen(e) for s, e in (("valid", self.splits.valid), ("test", self.splits.test))}
        return {
            "schema": SCHEMA,
            "run_id": run.id,
            "model": spec.model,
            "recipe": {"encoder": recipe.encoder, "readout": recipe.readout, "scorer": recipe.scorer},
            "seed": spec.seed,
            "dataset": {
                "name": run.data.name,
                "sha256": run.data.sha256,
                "items": run.data.items,
                "first_id": run.data.first_id,
                "train_examples": len(self.splits.train),
                "valid_examples": 0 if self.splits.valid is None else len(self.splits.valid),
                "test_examples": len(self.splits.test),
                "max_train": spec.max_train,
                "unseen_targets": unseen,
            },
            "protocol": protocol,
            "sparsify": {
                "parts": list(self.instrument.modules), "prior": spec.prior, "noise": spec.noise,
                "rule": spec.rule, "threshold": spec.threshold, "kl_scale": spec.kl_scale,
            } if self.instrument is not None else None,
            "epoch": chosen["epoch"],
            "steps": loop.step,
            "valid": chosen["valid"] if not optimistic else None,
            "test": test,
            "by_length": by_length(ranks, arrays["length"]),
            "baselines": self._baselines(),
            "density": density or {},
            "lr_budget": round(loop.lr_budget, 4),
            "pruned": pruned,
            "parameters": sum(v.numel() for k, v in self.model.named_parameters() if "log_sigma2" not in k),
            "seconds_per_epoch": round(len(self.splits.train) / rate, 2),
            "examples_per_second": round(rate, 1),
            "device": device_name(run.device),
            "peak_memory_mb": peak_memory_mb(),
        }  # fmt: skip

    def _unseen(self, examples: PackedExamples | None) -> int:
        if examples is None:
            return 0
        return int((~self.splits.seen[examples.clicks[examples.end]]).sum())

    def _baselines(self) -> dict[str, dict[str, dict[str, float]]]:
        """Popularity and last-item transitions, counted on the same training examples."""
        splits = self.splits
        out: dict[str, dict[str, dict[str, float]]] = {}
        for name, examples in (("valid", splits.valid_examples), ("test", splits.test_examples)):
            if examples is None:
                continue
            found = baseline_ranks(
                splits.train_examples, examples, self.run.data.items, ties=self.run.spec.ties,
                seen=splits.seen.cpu().numpy(),
            )  # fmt: skip
            for baseline, ranks in found.items():
                out.setdefault(baseline, {})[name] = metrics(ranks)
        return out
