"""What an accelerator does during a training step, from a profile: its kernels, and when it does nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch

from dissect.training.bench import Step, wait

#: Kind of kernel -> what its names have in them; a name is of the first kind that it fits.
KINDS = {
    "optimiser": ("adam", "multi_tensor", "foreach", "sgd"),
    "matrix products": ("gemm", "cutlass", "xmma", "cublas", "gemv", "splitk", "nvjet"),
    "copies and casts": ("memcpy", "memset", "copy_kernel"),
}
REST = "the rest"


def kind_of(name: str) -> str:
    """Kind of a kernel of that name, a key of `KINDS` or `REST`."""
    low = name.lower()
    return next((kind for kind, marks in KINDS.items() if any(mark in low for mark in marks)), REST)


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of the spans (begin, end) lasts.

    Examples
    --------
    >>> busy([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def profile_steps(step: Step, first: int, count: int, device: torch.device) -> dict[str, Any] | None:
    """Profile `count` steps from number `first` on.

    Parameters
    ----------
    step : callable
        ``step(i)`` trains on the i-th batch.
    first, count : int
    device : torch.device
        A CUDA device.

    Returns
    -------
    dict or None
        Of a step: ``kernels`` (how many), ``span_ms`` (first kernel to last, over the steps), ``busy_ms`` (some kernel
        ran), ``kinds`` (kind -> milliseconds, which may overlap), ``longest`` (name, milliseconds). None where the
        driver shows no kernels.
    """
    for i in range(first, first + count):  # what is captured, is captured here
        step(i)
    wait(device)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(activities=activities) as profile:
            for i in range(first, first + count):
                step(i)
            wait(device)
    found = [e for e in profile.events() or () if e.device_type.name == "CUDA"]
    spans = [(float(e.time_range.start), float(e.time_range.end)) for e in found]  # microseconds
    if not spans:
        return None
    kinds, names = dict.fromkeys((*KINDS, REST), 0.0), dict[str, float]()
    for event, (begin, end) in zip(found, spans, strict=True):
        kinds[kind_of(event.name)] += end - begin
        names[event.name] = names.get(event.name, 0.0) + end - begin
    scale = 1e-3 / count
    return {
        "kernels": round(len(found) / count, 1),
        "span_ms": round(scale * (max(b for _, b in spans) - min(a for a, _ in spans)), 4),
        "busy_ms": round(scale * busy(spans), 4),
        "kinds": {kind: round(scale * t, 4) for kind, t in kinds.items()},
        "longest": [(n[:90], round(scale * t, 4)) for n, t in sorted(names.items(), key=lambda x: -x[1])[:12]],
    }
