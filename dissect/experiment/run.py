"""One run from spec to record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dissect.data import load
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.callbacks import Metrics, Recorder, Report, Selection
from dissect.experiment.checkpoint import Checkpoint
from dissect.experiment.counted import count
from dissect.experiment.held import Masks, deleted, digest, holding, read_masks, write_masks
from dissect.experiment.instrument import check_data, check_parts, instrument_of
from dissect.experiment.leakage import guard
from dissect.experiment.machine import deterministic, environment, pick_device
from dissect.experiment.outcome import Outcome
from dissect.experiment.record import RunFolder
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.weights import load_weights
from dissect.models import build
from dissect.training.distributed import World
from dissect.training.evaluate import metrics
from dissect.training.loss import LOSSES
from dissect.training.memory import keep_large_allocations
from dissect.training.optimizers import make_optimizer
from dissect.training.plan import Plan
from dissect.training.progress import Progress
from dissect.training.train import Loop


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
    masks : mapping of str to Tensor, optional
        Weights to hold at zero; `spec.mask` is their digest.
    """

    def __init__(
        self,
        spec: Spec,
        out: Path | str = "runs",
        folder: Path | str | None = None,
        quiet: bool = False,
        masks: Masks | None = None,
    ) -> None:
        self.spec, self.masks = spec, masks or {}
        check_parts(spec)
        if self.masks:
            with holding(build(spec.recipe, items=1, dim=spec.dim), self.masks):  # refuses masks of another model
                pass
        self.device = pick_device("cpu" if spec.counts else spec.device)
        self.world = World.join(self.device.type)
        if self.world.size > 1 and not spec.counts and not build(spec.recipe, items=1, dim=spec.dim).distributed:
            raise DissectError(
                f"{spec.model} can't be trained by several processes: its rows meet over the whole batch (batch "
                "normalisation, a loss over the batch, or norms that are cut); run it with one"
            )
        with self.world.main_first():  # it may have to download or parse; the others find its copy
            self.data = load(spec.dataset, data_dir=spec.data_dir or None, progress=not quiet and self.world.main)
        splits = make_splits(self.data, spec, torch.device("cpu"))  # refuses what can't be split, before any write
        check_data(spec, splits, self.data)
        self.id = spec.run_id(self.data.sha256)
        self.folder = RunFolder(folder or Path(out) / self.id, writes=self.world.main)
        self.quiet = quiet or not self.world.main

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
        masks = read_masks(there / record.MASKS) if spec.mask else None
        if masks is not None and digest(masks) != spec.mask:
            raise DissectError(f"{there / record.MASKS} is not what the run was started with; start a new run")
        run = cls(spec, folder=folder, quiet=quiet, masks=masks)
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
        done = self.world.gather(folder.result)[0]
        if done is not None:
            return done
        checked = guard(self.data, spec, self.quiet)
        keep_large_allocations()
        with deterministic(self.device, spec.deterministic), folder.taken():
            done = self.world.gather(folder.result)[0]  # another process may have had it until now
            return self._execute(checked, init) if done is None else done

    def _execute(self, checked: dict[str, Any], init: Path | None) -> dict[str, Any]:
        spec, folder = self.spec, self.folder
        state = self._saved_state()
        if init is None and (folder / record.ENVIRONMENT).exists():  # a resumed run may begin anew, or refit
            name = folder.read_json(record.ENVIRONMENT).get("init_weights")
            init = Path(name) if name else None
        if state is None:
            # The spec last: a folder that has one can be resumed.
            env = environment(self.data.sha256, self.device, self.world.size)
            folder.write_json(record.ENVIRONMENT, {**env, "init_weights": str(init.resolve()) if init else None})
            if folder.writes and self.masks:
                write_masks(self.masks, folder / record.MASKS)
            if folder.writes:
                record.write_atomically(folder / record.SPEC, spec.to_json() + "\n")
        elif init is not None and not init.exists() and spec.refit and state["phase"] == "select":
            raise DissectError(f"no weights at {init}, which the refit begins with; put them back, then resume")
        else:
            self._note_resumed(state)
        result = count(self) if spec.counts else self._learn(state, init)
        result["checks"] = checked
        folder.write_json(record.RESULT, result)
        return result

    def _note_resumed(self, state: Mapping[str, Any]) -> None:
        """Add to environment.json what differs where the run goes on: other code or another machine made the rest."""
        before = self.folder.read_json(record.ENVIRONMENT)
        resumed = before.get("resumed", [])
        last = before
        for earlier in resumed:
            last = last | earlier
        now = environment(self.data.sha256, self.device, self.world.size)
        if changed := {key: value for key, value in now.items() if last.get(key) != value}:
            row = {"phase": state["phase"], "step": state["step"], **changed}
            self.folder.write_json(record.ENVIRONMENT, {**before, "resumed": [*resumed, row]})

    def _learn(self, state: dict[str, Any] | None, init: Path | None) -> dict[str, Any]:
        """Train, select, refit where the spec asks for it, evaluate; the result."""
        spec = self.spec
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
        return outcome.finish()

    def select(self, report: Report | None = None) -> Metrics:
        """Train and select on validation as `execute` does, and no more: nothing is written, no test rank is taken.

        Parameters
        ----------
        report : callable, optional
            ``report(epoch, metrics, last)``, called after each evaluation; it may raise to end the training.

        Returns
        -------
        dict
            The validation metrics of the selected epoch: those that `execute` would record for the same spec.

        Raises
        ------
        DissectError
            Under the protocol ``paper-code``, which has no validation part.
        """
        if self.spec.protocol != "honest":
            raise DissectError(f"protocol {self.spec.protocol!r} has no validation part; use honest")
        self.folder.writes = False
        keep_large_allocations()
        with deterministic(self.device, self.spec.deterministic):
            return self._train("select", self.spec, None, None, {}, report).chosen()["valid"]

    def _saved_state(self) -> dict[str, Any] | None:
        path = self.folder / record.STATE
        if not path.exists():
            return None
        try:
            # Mapped, not read: a table of a million items is in memory once.
            return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        except Exception as error:
            raise DissectError(f"{path} is damaged ({type(error).__name__}); delete it to start over") from None

    def _train(
        self, phase: str, spec: Spec, state: dict[str, Any] | None, init: Path | None, extra: dict[str, Any],
        report: Report | None = None,
    ) -> Outcome:  # fmt: skip
        torch.manual_seed(spec.seed if spec.init_seed is None else spec.init_seed)
        splits = make_splits(self.data, spec, self.device, refit=phase == "refit")
        model = build(spec.recipe, self.data.items, spec.dim, spec.sigma, self.data.longest).to(self.device)
        model.prepare(splits.train)
        if spec.init_seed is not None:
            torch.manual_seed(spec.seed)
        if init is not None and state is None:  # a saved state has weights of its own
            load_weights(model, init, but=model.counted)  # which follow from the data of this run
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
        captured = self.device.type == "cuda" and self.world.size == 1
        optimizer = make_optimizer(spec.optimizer, groups, spec.lr, captured)
        if instrument is not None:
            instrument.guard(optimizer)
        outcome = Outcome(self, phase, splits, model, instrument, plan, extra)
        rate = spec.lr_sigma
        outcome.recorder = Recorder(
            self.folder,
            instrument,
            max(1, plan.steps // 400),
            max(1, min(plan.steps // 250, int(1 / rate) or 1)),
            phase,
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
                report=report,
            )
            if selecting
            else None
        )
        checkpoint = Checkpoint(self.folder, phase, outcome.selection)
        checkpoint.extra = extra
        kl = None if instrument is None else (lambda: float(instrument.kl()) / instrument.examples)
        bar = Progress(f"{spec.model} on {spec.dataset}", kl, outcome.recorder.latest, self.quiet)
        callbacks = [outcome.recorder, bar, *([outcome.selection] if outcome.selection else []), checkpoint]
        loop = Loop(
            model, splits.train, optimizer, plan, callbacks, instrument, LOSSES[spec.loss],
            bf16=spec.precision == "bf16", world=self.world,
        )  # fmt: skip
        self.world.reseed(spec.seed)
        outcome.loop = loop
        if state is not None:
            self.folder.cut_logs(state["logs"])
            loop.load_state_dict(state)
            state.clear()  # or the run holds a second table to its end
        elif phase == "select":
            self.folder.cut_logs({})
        held = dict(self.masks)
        for name, mask in (deleted(model, spec.delete) if spec.delete else {}).items():
            held[name] = mask & held[name].to(mask.device) if name in held else mask
        outcome.held = held
        with holding(model, held):
            loop.run()
        return outcome
