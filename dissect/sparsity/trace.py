"""Which modules a forward pass calls, found without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def called(model: nn.Module, modules: Mapping[str, nn.Module], run_forward: Callable[[], Any]) -> set[str]:
    """Names of the modules that `run_forward` calls.

    A module whose weight is used without calling the module counts as not called: no noise reaches it that
    way. Hooks, training modes, buffers and the state of the random number generators are as before
    afterwards, after an exception too.

    Parameters
    ----------
    model : nn.Module
        The model that runs.
    modules : mapping of str to nn.Module
        The modules to watch.
    run_forward : callable
        Runs the model once, in the mode that it is in, without gradients.
    """
    seen: set[str] = set()

    def watch(name: str) -> Callable[..., None]:
        return lambda *_: seen.add(name)

    modes = {module: module.training for module in model.modules()}
    buffers = [(b, b.clone()) for b in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    handles = []
    try:
        with torch.random.fork_rng(devices=devices):
            handles += [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
            run_forward()
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
    return seen
