"""Time of a forward pass before and after shrinking, in turn, in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dissect.errors import DissectError
from dissect.sparsity.shrink import ShrinkReport, tensors_of


@dataclass(frozen=True)
class Timing:
    """Time of a forward pass, dense and shrunk, in one process."""

    dense_ms: float
    shrunk_ms: float
    """Medians over the rounds, in milliseconds."""
    speedup: float
    low: float
    high: float
    """Median and quartiles of dense / shrunk, taken round by round."""
    rounds: int
    bytes_before: int
    bytes_after: int
    sentence: str
    """What came of it, for the user."""


@torch.no_grad()
def measure(
    dense: nn.Module, report: ShrinkReport, forward: Callable[[nn.Module], Any], rounds: int = 30, warmup: int = 3
) -> Timing:
    """Time the dense and the shrunk model in turn, in evaluation mode and without gradients.

    Parameters
    ----------
    dense : nn.Module
        The model that was given to `shrink`.
    report : ShrinkReport
        What it returned.
    forward : callable
        Runs a model once, such as ``lambda model: model(x)``.
    rounds : int
        Timed passes of each. Which of the two goes first changes from round to round.
    warmup : int
        Passes of each before the first timed one.

    Returns
    -------
    Timing
        Its sentence says faster only where the lower quartile of the ratio is above 1.

    Raises
    ------
    DissectError
        If there are fewer than two rounds.
    """
    if rounds < 2:
        raise DissectError(f"rounds is {rounds}; a spread needs at least 2")
    models = (dense, report.model)
    on_gpu = any(t.is_cuda for model in models for t in tensors_of(model, recurse=True))
    times: tuple[list[float], list[float]] = ([], [])
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        for model in models:
            model.eval()
        for i in range(-warmup, rounds):
            for which in (0, 1) if i % 2 else (1, 0):
                begun = time.perf_counter()
                forward(models[which])
                if on_gpu:
                    torch.cuda.synchronize()
                if i >= 0:
                    times[which].append((time.perf_counter() - begun) * 1e3)
    finally:
        for module, mode in modes.items():
            module.training = mode
    ratios = [a / b if b else math.inf for a, b in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    if report.shrunk:
        verdict = "faster" if low > 1 else "not faster"
        sentence = f"x{middle:.2f} (quartiles {low:.2f} to {high:.2f}), {verdict}; {report.sentence}"
    else:
        sentence = report.sentence
    dense_ms, shrunk_ms = map(statistics.median, times)
    return Timing(
        dense_ms=dense_ms,
        shrunk_ms=shrunk_ms,
        speedup=middle,
        low=low,
        high=high,
        rounds=rounds,
        bytes_before=report.bytes_before,
        bytes_after=report.bytes_after,
        sentence=sentence,
    )
