"""The one training loop. Everything that is not forward, backward and step is a callback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dissect.batch import Batch, PackedExamples
from dissect.errors import NotFinite
from dissect.training.captured import CapturedSteps
from dissect.training.distributed import ALONE, World
from dissect.training.loss import item_cross_entropy
from dissect.training.plan import Callback, Penalty, Plan, Stop
from dissect.training.precision import fast_products, products

#: (query, table, targets, cosine, bf16) -> mean cross-entropy.
ItemLoss = Callable[[Tensor, Tensor, Tensor, bool, bool], Tensor]


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
    loss : callable, optional
        ``loss(query, table, targets, cosine, bf16)``.
    bf16 : bool
        Whether matrix products have bfloat16 factors; weights, sums and the optimizer stay in fp32.
    world : World, optional
        The processes that share each batch; by default this one alone.
    """

    def __init__(
        self,
        model: nn.Module,
        examples: PackedExamples,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        callbacks: Sequence[Callback] = (),
        penalty: Penalty | None = None,
        loss: ItemLoss = item_cross_entropy,
        bf16: bool = False,
        world: World = ALONE,
    ) -> None:
        self.model, self.examples, self.optimizer, self.plan = model, examples, optimizer, plan
        self.callbacks, self.penalty, self.loss = list(callbacks), penalty, loss
        self.bf16, self.world, self.device = bf16, world, examples.clicks.device
        self.step = 0  # optimiser steps taken
        self.base_lr = [float(group["lr"]) for group in optimizer.param_groups]
        self.nll: Tensor = torch.zeros((), device=self.device)  # of the last step's batch, over all processes
        self.lr_budget = 0.0
        self.train_seconds = 0.0  # time in steps alone: evaluation and saving are left out
        self.train_examples = 0
        self.saving_seconds = 0.0
        self.asked = self.leave = False  # whether this process was asked to stop, and whether all are to
        capturable = world.size == 1 and (penalty is None or penalty.capturable) and getattr(model, "static", True)
        self.captured: CapturedSteps | None = CapturedSteps(self) if self.device.type == "cuda" and capturable else None

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
        plan = self.plan
        self.model.train()
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            while self.step < plan.steps:
                epoch, first = divmod(self.step, plan.steps_per_epoch)
                self._set_rates(epoch)
                order = plan.order(epoch)
                if self.captured is not None:
                    self.captured.begin(order)
                order = order.to(self.device)
                for i in range(first, plan.steps_per_epoch):
                    begun, saving = time.perf_counter(), self.saving_seconds
                    index = order[i * plan.batch_size : (i + 1) * plan.batch_size]
                    if self.captured is None:
                        self.train_step(index)
                    else:
                        self.captured.step(i, index)
                        self.leave = self.asked
                    self._count()
                    if self.captured is None:
                        self.train_seconds += time.perf_counter() - begun
                    self.train_examples += index.numel()
                    for callback in self.callbacks:
                        callback.on_step(self)
                    if self.captured is not None:  # a step is only launched, and waited for in what logs it
                        self.train_seconds += time.perf_counter() - begun - (self.saving_seconds - saving)
                    if self.step == plan.steps:
                        break
                begun = time.perf_counter()
                self.check_finite()  # waits for what an accelerator has still to do
                self.train_seconds += time.perf_counter() - begun
                self.optimizer.zero_grad(set_to_none=True)  # a table's worth of memory, for the evaluation that follows
                for callback in self.callbacks:
                    callback.on_epoch(self)
        except Stop:
            pass
        finally:
            for callback in self.callbacks:
                callback.on_end(self)
            if self.captured is not None:
                self.captured.graphs.clear()

    def objective(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood of the batch's targets, and that plus the model's auxiliary loss."""
        drawing = nullcontext() if self.penalty is None else self.penalty.drawing(batch)
        with products(self.bf16, self.device), drawing:
            output = self.model(batch)
        assert batch.targets is not None
        query = output.query[: batch.targets.numel()] if batch.span is not None else output.query
        nll = self.loss(query.float(), output.table, batch.targets, output.unit_items, self.bf16)
        return nll, nll if output.aux_loss is None else nll + output.aux_loss

    def train_step(self, index: Tensor) -> None:
        """One optimiser step on the examples `index`, of which this process takes its share.

        Raises
        ------
        DissectError
            If the loss is not finite; the weights are those before the step.
        """
        mine, weight = self.world.share(index)
        with fast_products(self.bf16, self.device):
            nll, total = self.objective(self.examples.batch(mine))
            if weight != 1:
                nll, total = nll * weight, total * weight
            if self.penalty is not None:
                total = total + self.penalty.penalty(self.step)
            if self.world.size == 1 and not math.isfinite(value := total.item()):
                raise self.not_finite(value)
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
        self.nll = nll.detach()
        if self.world.size > 1:
            # All see the same numbers, and so stop at the same step, for a bad loss or for a signal to one of them.
            values = torch.stack([self.nll, total.detach(), self.nll.new_tensor(float(self.asked))])
            values = self.world.average((p.grad for p in self.model.parameters()), values)
            self.nll, self.leave = values[0], float(values[2]) > 0
            if not math.isfinite(value := float(values[1])):
                raise self.not_finite(value)
        else:
            self.leave = self.asked
        self.optimizer.step()

    def check_finite(self) -> None:
        """Raise a DissectError if a step so far had a loss that is not finite.

        On a CPU each step does so before it changes a weight. An accelerator would have to wait for every step; it is
        asked from time to time, and before anything is saved.
        """
        if self.captured is not None and not self.captured.all_finite():
            raise self.not_finite(float("nan"))

    def not_finite(self, value: float) -> NotFinite:
        """The error for a loss of that value."""
        return NotFinite(
            f"loss is {value} at step {self.step + 1} (epoch {self.epoch + 1}); stopped, the "
            "last good state is kept; a smaller --lr may help",
            1,
        )

    def _count(self) -> None:
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
        how = [{name: group.get(name) for name in ("fused", "capturable")} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, flags in zip(self.optimizer.param_groups, how, strict=True):
            group.update(flags)  # this device's, not those of the device that the state comes from
        for key in ("step", "lr_budget", "train_seconds", "train_examples"):
            setattr(self, key, state[key])
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu())
        self.world.reseed(self.plan.seed, self.step)
        for callback in self.callbacks:
            if callback.name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.name])

    def _set_rates(self, epoch: int) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            constant = group.get("name") == "sigma"
            group["lr"] = base if constant else base * self.plan.lr_factor(epoch)
