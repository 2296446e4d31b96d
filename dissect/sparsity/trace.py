"""What a forward pass calls, and with what, found without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dissect.sparsity.raw import RawParameters

Shape = tuple[int, ...]


@torch.no_grad()
def traced(
    model: nn.Module, modules: Mapping[str, nn.Module], run_forward: Callable[[], Any]
) -> dict[str, list[Shape]]:
    """Shapes of the first inputs of every call of the named modules in `run_forward`.

    A module whose weight is used without calling the module counts as not called: no noise reaches it that
    way. Hooks, training modes, buffers and the state of the random number generators are as before
    afterwards, after an exception too.

    Parameters
    ----------
    model : nn.Module
        The model that runs.
    modules : mapping of str to nn.Module
        The modules to watch. The owner of a raw parameter is watched for reads of it instead: its name is then that of
        the parameter, and a read has the empty shape.
    run_forward : callable
        Runs the model once, in the mode that it is in, without gradients.

    Returns
    -------
    dict of str to list of tuple of int
        In the order of `modules`; an empty list for one that is not called.
    """
    calls: dict[str, list[Shape]] = {name: [] for name in modules}
    raw = {name: module for name, module in modules.items() if isinstance(module, RawParameters)}

    def watch(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            first = next((a for a in args if isinstance(a, Tensor)), None)
            calls[name].append(() if first is None else tuple(first.shape))

        return note

    modes = {module: module.training for module in model.modules()}
    buffers = [(b, b.clone()) for b in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    handles = []
    try:
        for owner in raw.values():
            owner._read = set()
        with torch.random.fork_rng(devices=devices):
            handles += [m.register_forward_pre_hook(watch(name)) for name, m in modules.items() if name not in raw]
            run_forward()
        for name, owner in raw.items():
            assert owner._read is not None
            if name.rpartition(".")[2] in owner._read:
                calls[name].append(())
    finally:
        for owner in raw.values():
            owner._read = None
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
    return calls


def called(model: nn.Module, modules: Mapping[str, nn.Module], run_forward: Callable[[], Any]) -> set[str]:
    """Names of the modules that `run_forward` calls; see `traced`."""
    return {name for name, calls in traced(model, modules, run_forward).items() if calls}
