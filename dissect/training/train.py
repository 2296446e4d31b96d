"""The one training loop. Everything that is not forward, backward and step is a callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dissect.batch import Batch, PackedExamples
from dissect.errors import DissectError
from dissect.training.loss import item_cross_entropy


class Penalty(Protocol):
    """What the loop needs of an instrument: the regulariser at a step, already scaled and warmed up."""

    def penalty(self, step: int) -> Tensor:
        """The term to add to the mean loss."""
        ...


class Stop(Exception):
    """Raised by a callback to end training before its last step."""


@dataclass(frozen=True)
class Plan:
    """How long and in what order to train.

    Attributes
    ----------
    examples : int
        Training examples in an epoch, after augmentation.
    batch_size : int
    steps : int
        Optimiser steps in all.
    seed : int
        Orders the examples: epoch e is shuffled by (seed, e) alone, so a resumed epoch has the same order.
    lr_step, lr_gamma
        The rate of every group but ``sigma`` is multiplied by `lr_gamma` after each `lr_step` epochs.
    """

    examples: int
    batch_size: int
    steps: int
    seed: int = 0
    lr_step: int = 3
    lr_gamma: float = 0.1

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def epochs(self) -> int:
        """Epochs begun."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def order(self, epoch: int) -> Tensor:
        """The shuffled example numbers of an epoch, (examples,) int64."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        return torch.randperm(self.examples, generator=generator)

    def lr_factor(self, epoch: int) -> float:
        """What the base learning rate is multiplied by in an epoch."""
        return self.lr_gamma ** (epoch // self.lr_step)


class Callback:
    """Something that watches the loop; every method may be left out.

    A callback whose `state_dict` is not empty has it saved and given back on resume.
    """

    name = ""

    def on_start(self, loop: Loop) -> None:
        """Before the first step, after a state has been restored."""

    def on_step(self, loop: Loop) -> None:
        """After each optimiser step."""

    def on_epoch(self, loop: Loop) -> None:
        """After the last step of each epoch, and after the last step of all."""

    def on_end(self, loop: Loop) -> None:
        """When the loop is left, by an exception too."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of this callback."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class Loop:
    """Train `model` on `examples` as `plan` says.

    Parameters
    ----------
    model : Module
        ``model(batch)`` gives query, table and aux_loss.
    examples : PackedExamples
    optimizer : Optimizer
        Each group has a ``name``; the group ``sigma`` keeps a constant rate.
    plan : Plan
    callbacks : sequence of Callback
        Called in this order.
    penalty : Penalty, optional
        Adds ``penalty(step)`` to the mean loss.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: PackedExamples,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        callbacks: Sequence[Callback] = (),
        penalty: Penalty | None = None,
        loss: Callable[[Tensor, Tensor, Tensor, bool], Tensor] = item_cross_entropy,
    ) -> None:
        self.model, self.examples, self.optimizer, self.plan = model, examples, optimizer, plan
        self.callbacks, self.penalty, self.loss = list(callbacks), penalty, loss
        self.step = 0  # optimiser steps taken
        self.base_lr = [float(group["lr"]) for group in optimizer.param_groups]
        self.nll: Tensor = torch.zeros(())
        self.lr_budget = 0.0
        self.train_seconds = 0.0  # time in steps alone: evaluation and saving are left out
        self.train_examples = 0

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.plan.steps_per_epoch

    @property
    def lr(self) -> float:
        """Learning rate of the group of ordinary weights."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def run(self) -> None:
        """Train to the plan's last step, or to the first `Stop`."""
        plan, device = self.plan, self.examples.clicks.device
        self.model.train()
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            while self.step < plan.steps:
                epoch, first = divmod(self.step, plan.steps_per_epoch)
                self._set_rates(epoch)
                order = plan.order(epoch).to(device)
                for i in range(first, plan.steps_per_epoch):
                    begun = time.perf_counter()
                    index = order[i * plan.batch_size : (i + 1) * plan.batch_size]
                    self.train_step(self.examples.batch(index))
                    self.train_seconds += time.perf_counter() - begun
                    self.train_examples += index.numel()
                    for callback in self.callbacks:
                        callback.on_step(self)
                    if self.step == plan.steps:
                        break
                for callback in self.callbacks:
                    callback.on_epoch(self)
        except Stop:
            pass
        finally:
            for callback in self.callbacks:
                callback.on_end(self)

    def train_step(self, batch: Batch) -> None:
        """One optimiser step on `batch`.

        Raises
        ------
        DissectError
            If the loss is not finite; the weights are those before the step.
        """
        output = self.model(batch)
        assert batch.targets is not None
        nll = self.loss(output.query, output.table, batch.targets, self.model.scorer.cosine)  # type: ignore
        total = nll if output.aux_loss is None else nll + output.aux_loss
        if self.penalty is not None:
            total = total + self.penalty.penalty(self.step)
        self.nll = nll.detach()
        if not math.isfinite(total.item()):
            raise DissectError(
                f"loss is {float(total.detach())} at step {self.step + 1} (epoch {self.epoch + 1}); stopped, the "
                "last good state is kept; a smaller --lr may help",
                1,
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        self.step += 1
        self.lr_budget += sum(g["lr"] for g in self.optimizer.param_groups if g.get("name") == "sigma")

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed loop needs to go on as if it had not stopped."""
        return {
            "step": self.step,
            "lr_budget": self.lr_budget,
            "train_seconds": self.train_seconds,
            "train_examples": self.train_examples,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.examples.clicks.is_cuda else None,
            "callbacks": {c.name: c.state_dict() for c in self.callbacks if c.state_dict()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for key in ("step", "lr_budget", "train_seconds", "train_examples"):
            setattr(self, key, state[key])
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu())
        for callback in self.callbacks:
            if callback.name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.name])

    def _set_rates(self, epoch: int) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            constant = group.get("name") == "sigma"
            group["lr"] = base if constant else base * self.plan.lr_factor(epoch)
