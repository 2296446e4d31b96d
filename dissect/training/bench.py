"""What a training step costs, by stage, and what this machine would need for it at the least."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.batch import PackedExamples
from dissect.training.evaluate import rank_examples
from dissect.training.loss import item_cross_entropy, plain_item_cross_entropy
from dissect.training.precision import fast_products, native_bf16, products
from dissect.training.train import Loop

STAGES = ("batch", "forward", "loss", "backward", "optimiser")
Step = Callable[[int], None]


def wait(device: torch.device) -> None:
    """Wait until `device` has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, bf16: bool = False, size: int = 2048, rounds: int = 8) -> float:
    """Best rate of a square matrix product on this machine, in FLOP/s.

    Parameters
    ----------
    device : torch.device
    bf16 : bool
        With bfloat16 factors where the device has products of them, else in fp32.
    """
    size = 8192 if device.type == "cuda" else size
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if bf16 and native_bf16(device.type) else None)
    out = torch.empty_like(a)
    return 2 * size**3 / _best(lambda: torch.mm(a, a, out=out), device, rounds)


def memory_rate(device: torch.device, megabytes: int = 256, rounds: int = 8) -> float:
    """Best rate of a copy far larger than the caches, in bytes read plus written a second."""
    a = torch.ones(megabytes << 18, device=device)
    b = torch.zeros_like(a)
    return 2 * a.numel() * 4 / _best(lambda: b.copy_(a), device, rounds)


def _best(what: Callable[[], Any], device: torch.device, rounds: int) -> float:
    best = math.inf
    for _ in range(rounds):
        begun = time.perf_counter()
        what()
        wait(device)
        best = min(best, time.perf_counter() - begun)
    return best


def forward_work(model: nn.Module, examples: PackedExamples, index: Tensor) -> float:
    """Useful floating-point work of a forward pass over the examples `index`.

    2 x rows x inputs x outputs for every linear map that is called, and for the scores. Padding, copies and noise
    count as no use.
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
    return flops + 2.0 * out.query.shape[0] * out.query.shape[1] * out.table.shape[0]


def step_work(model: nn.Module, examples: PackedExamples, index: Tensor) -> tuple[float, float]:
    """Useful work of one training step on the examples `index`.

    Returns
    -------
    flops : float
        Three times that of the forward pass: the backward pass has two products for each of its products.
    bytes : float
        Adam's seven passes over the parameters, 4 bytes each (read p, g, m, v; write p, m, v).
    """
    parameters = sum(p.numel() for p in model.parameters())
    return 3 * forward_work(model, examples, index), 28.0 * parameters


def loop_step(loop: Loop) -> Step:
    """The loop's own step on the i-th batch of its first epoch, as training takes it."""
    order = loop.plan.order(0)
    if loop.captured is not None:
        loop.captured.begin(order)
    order = order.to(loop.device)
    loop.step = loop.plan.steps  # past the KL's warm-up: before it there is nothing to time
    loop.model.train()

    def step(i: int) -> None:
        index = order[i * loop.plan.batch_size : (i + 1) * loop.plan.batch_size]
        if loop.captured is not None:
            loop.captured.step(i, index)
        else:
            loop.train_step(index)

    return step


class StagedStep:
    """A loop's step that notes when each stage ended; it waits for the device after each, as training does not."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.order = loop.plan.order(0).to(loop.device)
        self.times: list[list[float]] = []

    def __call__(self, i: int) -> None:
        """Train on the i-th batch and note the stages' times."""
        loop, size = self.loop, self.loop.plan.batch_size
        loop.model.train()
        marks = [time.perf_counter()]

        def mark() -> None:
            wait(loop.device)
            marks.append(time.perf_counter())

        batch = loop.examples.batch(self.order[i * size : (i + 1) * size])
        for view in loop.model.views:  # type: ignore[union-attr]
            getattr(batch, view)
        mark()
        drawing = nullcontext() if loop.penalty is None else loop.penalty.drawing(batch)
        with products(loop.bf16, loop.device), fast_products(loop.bf16, loop.device), drawing:
            out = loop.model(batch)
        mark()
        assert batch.targets is not None
        with fast_products(loop.bf16, loop.device):
            loss = loop.loss(out.query.float(), out.table, batch.targets, out.unit_items, loop.bf16)
        if out.aux_loss is not None:
            loss = loss + out.aux_loss
        if loop.penalty is not None:
            loss = loss + loop.penalty.penalty(loop.plan.steps)
        mark()
        loop.optimizer.zero_grad(set_to_none=True)
        with fast_products(loop.bf16, loop.device):
            loss.backward()
        mark()
        loop.optimizer.step()
        mark()
        self.times.append(np.diff(marks).tolist())

    def stages_ms(self, skip: int) -> dict[str, float]:
        """Median milliseconds of each stage, the first `skip` steps left out."""
        medians = np.median(np.asarray(self.times[skip:]) * 1e3, axis=0)
        return {name: round(float(ms), 3) for name, ms in zip(STAGES, medians, strict=True)}


def loss_ms(
    device: torch.device, batch: int, dim: int, items: int, *, cosine: bool, bf16: bool, rounds: int = 10
) -> dict[str, float]:
    """Milliseconds of forward and backward of the loss over items alone, in each form there is, taking turns.

    Returns
    -------
    dict
        ``tiled`` (what training uses; on CUDA mostly one block), ``plain`` (whole logits) and, where torch has it
        (2.13) and it is asked for what it can do (fp32, dot), ``torch``: its `linear_cross_entropy`, in chunks.
    """
    query = torch.randn(batch, dim, device=device, requires_grad=True)
    table = (torch.randn(items, dim, device=device) / math.sqrt(dim)).requires_grad_()
    targets = torch.randint(items, (batch,), device=device)
    forms: dict[str, Callable[[], Tensor]] = {
        "tiled": lambda: item_cross_entropy(query, table, targets, cosine, bf16),
        "plain": lambda: plain_item_cross_entropy(query, table, targets, cosine, bf16),
    }
    native: Any = getattr(F, "linear_cross_entropy", None)
    if native is not None and not cosine and not bf16:
        options: Any = getattr(nn, "LinearCrossEntropyOptions", lambda: None)()
        forms["torch"] = lambda: native(query, table, targets, options=options)

    def step(form: Callable[[], Tensor]) -> Step:
        def one(i: int) -> None:
            query.grad = table.grad = None
            with fast_products(bf16, device):
                form().backward()

        return one

    per_round = 20 if device.type == "cuda" else 1  # waited for after each one it would stand idle
    times = alternate({name: step(form) for name, form in forms.items()}, rounds, device=device, per_round=per_round)
    return {name: round(float(np.median(ms)), 3) for name, ms in times.items()}


def evaluation_rate(model: nn.Module, examples: PackedExamples, count: int = 2048) -> tuple[float, float]:
    """Full ranking of the first `count` examples.

    Returns
    -------
    examples_per_second, flops_per_second : float
        The second counts `forward_work`: the model's maps and the scores.
    """
    count, device = min(count, len(examples)), examples.clicks.device
    model.eval()
    flops = forward_work(model, examples, torch.arange(count, device=device))
    seconds = _best(lambda: rank_examples(model, examples, part=(0, count)), device, 3)
    return count / seconds, flops / seconds


def alternate(
    steps: dict[str, Step], rounds: int, warmup: int = 3, device: torch.device | None = None, per_round: int = 1
) -> dict[str, list[float]]:
    """Time several implementations on the same batches, taking turns, so that noise meets all alike.

    Parameters
    ----------
    steps : dict
        Name -> step(i).
    rounds, warmup : int
        Rounds timed, and those before them.
    device : torch.device, optional
        Waited for at the end of each turn.
    per_round : int
        Steps in a turn; an accelerator that is waited for after each one is idle in between.

    Returns
    -------
    dict
        Name -> milliseconds a step in each round.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for r in range(warmup + rounds):
        # The order turns, so that no implementation always runs in another's wake.
        for name in names[r % len(names) :] + names[: r % len(names)]:
            begun = time.perf_counter()
            for i in range(r * per_round, (r + 1) * per_round):
                steps[name](i)
            wait(device or torch.device("cpu"))
            if r >= warmup:
                times[name].append(1e3 * (time.perf_counter() - begun) / per_round)
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
