"""What a training step costs, by stage, and what this machine would need for it at the least."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dissect.batch import PackedExamples
from dissect.training.loss import item_cross_entropy
from dissect.training.train import Penalty

STAGES = ("batch", "forward", "loss", "backward", "optimiser")
Step = Callable[[int], None]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, size: int = 2048, rounds: int = 8) -> float:
    """Best rate of a square fp32 matrix product on this machine, in FLOP/s."""
    a = torch.randn(size, size, device=device)
    out = torch.empty_like(a)
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def memory_rate(device: torch.device, megabytes: int = 256, rounds: int = 8) -> float:
    """Best rate of a copy far larger than the caches, in bytes read plus written a second."""
    a = torch.ones(megabytes << 18, device=device)
    b = torch.zeros_like(a)
    best = float("inf")
    for _ in range(rounds):
        begun = time.perf_counter()
        b.copy_(a)
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * a.numel() * 4 / best


def step_work(model: nn.Module, examples: PackedExamples, index: Tensor, penalised: int = 0) -> tuple[float, float]:
    """Useful work of one training step on the examples `index`.

    Returns
    -------
    flops : float
        2 x rows x inputs x outputs for every linear map that is called, and for the scores; three times, for the
        forward pass and the two products of the backward pass. Padding, copies and noise count as no use.
    bytes : float
        Adam's seven passes over the parameters, 4 bytes each (read p, g, m, v; write p, m, v).
    """
    flops = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flops
        assert isinstance(module, nn.Linear)
        rows = inputs[0].numel() // module.in_features
        flops += 2.0 * rows * module.in_features * module.out_features

    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_hook(count) for m in linears]
    try:
        with torch.no_grad():
            out = model(examples.batch(index))
    finally:
        for hook in hooks:
            hook.remove()
    flops += 2.0 * out.query.shape[0] * out.query.shape[1] * out.table.shape[0]
    parameters = sum(p.numel() for p in model.parameters())
    return 3 * flops, 28.0 * parameters


class StagedStep:
    """A training step that notes when each stage ended.

    Parameters
    ----------
    model, examples, optimizer
        As for the loop.
    order : Tensor
        Example numbers; step i takes the i-th `batch_size` of them.
    penalty : Penalty, optional
    at : int
        The step number given to the penalty (past its warm-up, or there is nothing to time).
    """

    def __init__(
        self,
        model: nn.Module,
        examples: PackedExamples,
        optimizer: torch.optim.Optimizer,
        order: Tensor,
        batch_size: int,
        penalty: Penalty | None = None,
        at: int = 0,
    ) -> None:
        self.model, self.examples, self.optimizer = model, examples, optimizer
        self.order, self.batch_size, self.penalty, self.at = order, batch_size, penalty, at
        self.times: list[list[float]] = []

    def __call__(self, i: int) -> None:
        """Train on the i-th batch and note the stages' times."""
        device = self.examples.clicks.device
        marks = [time.perf_counter()]

        def mark() -> None:
            _wait(device)
            marks.append(time.perf_counter())

        batch = self.examples.batch(self.order[i * self.batch_size : (i + 1) * self.batch_size])
        for view in getattr(self.model, "views", ()):
            getattr(batch, view)
        mark()
        out = self.model(batch)
        mark()
        assert batch.targets is not None
        loss = item_cross_entropy(out.query, out.table, batch.targets, self.model.scorer.cosine)  # type: ignore
        if self.penalty is not None:
            loss = loss + self.penalty.penalty(self.at)
        loss.item()  # wait for it, as training does
        mark()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        mark()
        self.optimizer.step()
        mark()
        self.times.append(np.diff(marks).tolist())


def alternate(steps: dict[str, Step], rounds: int, warmup: int = 3) -> dict[str, list[float]]:
    """Time several implementations on the same batches, taking turns, so that noise meets all alike.

    Returns
    -------
    dict
        Name -> milliseconds of each round.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for i in range(warmup + rounds):
        # The order turns, so that no implementation always runs in another's wake.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            begun = time.perf_counter()
            steps[name](i)
            if i >= warmup:
                times[name].append(1e3 * (time.perf_counter() - begun))
    return times


def ratio(of: list[float], to: list[float]) -> dict[str, Any]:
    """Median of the rounds' ratios, with its 95% bootstrap interval."""
    pairs = np.asarray(of) / np.asarray(to)
    draws = np.random.default_rng(0).integers(0, len(pairs), (2000, len(pairs)))
    low, high = np.percentile(np.median(pairs[draws], 1), (2.5, 97.5))
    return {
        "ratio": round(float(np.median(pairs)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }
