"""What happens around the steps of a recorded run: logs, and the selection of an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from dissect.experiment import record
from dissect.experiment.record import RunFolder
from dissect.sparsity import Instrument, moved, settled
from dissect.training.plan import Callback
from dissect.training.train import Loop

Metrics = dict[str, float]
#: ``report(epoch, metrics, last)``: what an epoch's evaluation gave, and whether it is the last one.
Report = Callable[[int, Metrics, bool], None]
#: Densities are logged under these rules, whichever of them the run prunes by.
LOGGED_RULES = ("log-alpha", "magnitude")


class Recorder(Callback):
    """Append step rows and density rows to the run folder.

    Parameters
    ----------
    folder : RunFolder
    instrument : Instrument, optional
    phase : str
        Rows of the phase ``refit`` carry its name: their steps start from 0 again.
    every, density_every : int
        Steps between rows, every fourth row of densities with those under the
        other `LOGGED_RULES` too. Density rows are at most a nat of lr budget apart, so that `settled`, which looks
        at the last three, can be judged from the record.
    """

    name = "recorder"

    def __init__(
        self, folder: RunFolder, instrument: Instrument | None, every: int, density_every: int, phase: str = "select"
    ) -> None:
        self.folder, self.instrument = folder, instrument
        self.mark = {} if phase == "select" else {"phase": phase}
        self.every, self.density_every = every, density_every
        self.sum: Any = 0.0  # of nll; a tensor while it runs, so that an accelerator need not be waited for
        self.count = 0
        self.history: dict[str, list[tuple[float, float]]] = {}  # part -> (lr budget, density)
        self.latest: dict[str, float] = {}

    def on_start(self, loop: Loop) -> None:
        """Log the densities before any training."""
        if loop.step == 0 and not self.history:
            self._log_density(loop)

    def on_step(self, loop: Loop) -> None:
        """Log every few steps."""
        self.sum = self.sum + loop.nll.to(torch.float32 if loop.device.type == "mps" else torch.float64)
        self.count += 1
        if loop.step % self.every == 0 or loop.step == loop.plan.steps:
            row: dict[str, Any] = {
                "kind": "step",
                "step": loop.step,
                "epoch": round(loop.step / loop.plan.steps_per_epoch, 4),
                "nll": round(float(self.sum) / self.count, 6),
                "kl": None if self.instrument is None else round(float(self.instrument.kl()), 3),
                "kl_weight": None if self.instrument is None else self._kl_weight(loop.step),
                "lr": loop.lr,
                "lr_budget": round(loop.lr_budget, 6),
                "examples_per_second": round(loop.train_examples / max(loop.train_seconds, 1e-9), 1),
            }
            self.sum, self.count = 0.0, 0
            self.folder.append(record.METRICS, [row | self.mark])
        if self.instrument is not None and (loop.step % self.density_every == 0 or loop.step == loop.plan.steps):
            self._log_density(loop)

    def _kl_weight(self, step: int) -> float:
        # Logged without 1 / N: 0 .. kl_scale, comparable between data sets.
        assert self.instrument is not None
        return round(self.instrument.kl_weight(step) * self.instrument.examples, 6)

    def _log_density(self, loop: Loop) -> None:
        if self.instrument is None:
            return
        epoch = round(loop.step / loop.plan.steps_per_epoch, 4)
        rows = self.instrument.density()
        for row in rows:
            if row["tensor"] is None and row["total"]:
                self.history.setdefault(row["part"], []).append((loop.lr_budget, row["density"]))
                self.latest[row["part"]] = row["density"]
        if loop.step % (4 * self.density_every) == 0 or loop.step == loop.plan.steps:
            for rule in LOGGED_RULES:
                if rule != self.instrument.rule:
                    rows += self.instrument.density(rule)
        self.folder.append(record.DENSITY, [{"step": loop.step, "epoch": epoch, **row, **self.mark} for row in rows])

    def settled(self, part: str, loop: Loop, warmup_end: float) -> bool:
        """Whether a part's density has come to rest (see `dissect.sparsity.settled`)."""
        rate = sum(g["lr"] for g in loop.optimizer.param_groups if g.get("name") == "sigma")
        end = warmup_end * loop.plan.steps * rate
        return settled(self.history.get(part, []), loop.lr_budget, end)

    def moved(self, part: str, loop: Loop) -> float | None:
        """What a part's density changed by over the last quarter of the run (see `dissect.sparsity.moved`)."""
        change = moved(self.history.get(part, []), loop.lr_budget)
        return None if change is None else round(change, 6)

    def state_dict(self) -> dict[str, Any]:
        """The running mean and the densities so far."""
        return {"sum": float(self.sum), "count": self.count, "history": self.history, "latest": self.latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.sum, self.count = state["sum"], state["count"]
        self.history = state["history"]
        self.latest.update(state["latest"])  # in place: the progress bar reads this dict


class Selection(Callback):
    """Evaluate after each epoch, keep the best weights, stop when nothing improves.

    Parameters
    ----------
    folder : RunFolder
    evaluate : callable
        ``evaluate(pruned) -> metrics`` on the split that selects.
    split : str
        Its name, for the record.
    sparse : bool
        Under variational dropout the best epoch lies before sparsity, so the last one counts: nothing is
        selected, nothing stops early, and each epoch is evaluated with the pruned weights too.
    patience : int
        Epochs without a better MRR@20 (under `either`: nor HR@20) before training stops.
    either : bool
        Whether a better HR@20 also counts as progress: SR-GNN's released loop looks at both. (Its counter of epochs
        without gain is never set back; this one is.)
    report : callable, optional
        ``report(epoch, metrics, last)``, called after each evaluation; it may raise to end the run.
    """

    name = "selection"

    def __init__(
        self,
        folder: RunFolder,
        evaluate: Callable[[bool], Metrics],
        split: str,
        *,
        sparse: bool,
        patience: int,
        either: bool = False,
        report: Report | None = None,
    ) -> None:
        self.folder, self.evaluate, self.split = folder, evaluate, split
        self.sparse, self.patience, self.either, self.report = sparse, patience, either, report
        self.best: dict[str, float] = {}
        self.best_epoch: dict[str, int] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.metrics: Metrics = {}
        self.metrics_pruned: Metrics | None = None
        self.bad = 0

    def on_epoch(self, loop: Loop) -> None:
        """Evaluate and compare."""
        epoch = math.ceil(loop.step / loop.plan.steps_per_epoch)
        found = {False: self.evaluate(False)} | ({True: self.evaluate(True)} if self.sparse else {})
        self.folder.append(
            record.METRICS,
            [
                {
                    "kind": "evaluation", "step": loop.step, "epoch": epoch, "split": self.split,
                    "pruned": pruned, **values,
                }
                for pruned, values in found.items()
            ],
        )  # fmt: skip
        improved = [name for name, value in found[False].items() if value > self.best.get(name, -1.0)]
        for name in improved:
            self.best[name], self.best_epoch[name] = found[False][name], epoch
        if self.sparse or "mrr@20" in improved:
            self.metrics, self.metrics_pruned = found[False], found.get(True)
            if not self.sparse:
                self.weights = {k: v.detach().clone() for k, v in loop.model.state_dict().items()}
        progress = "mrr@20" in improved or (self.either and "hr@20" in improved)
        self.bad = 0 if progress else self.bad + 1
        if self.report is not None:
            self.report(epoch, found[False], loop.step >= loop.plan.steps or self.exhausted)

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return not self.sparse and self.bad >= self.patience

    def restore(self, model: torch.nn.Module) -> None:
        """Move the selected weights into `model`; training is over."""
        if self.weights:
            model.load_state_dict(self.weights)
            self.weights = {}

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        names = ("best", "best_epoch", "weights", "metrics", "metrics_pruned", "bad")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)
