"""Parts of a session model set to zero, for one evaluation or for a whole training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dissect.models import SessionModel
from dissect.sparsity import hold_masks


def matrices(model: SessionModel, part: str) -> list[str]:
    """Full names of the weights of a part, biases left out; empty for a part without parameters."""
    names = []
    for module in model.parts().get(part, ()):
        for name, parameter in model.get_submodule(module).named_parameters():
            if parameter.dim() > 1 and "log_sigma2" not in name and "shadow_" not in name:
                names.append(f"{module}.{name}")
    return names


def all_dropped(model: SessionModel, part: str) -> dict[str, Tensor]:
    """Masks under which a part keeps nothing: its linear maps give their biases, whatever comes in."""
    return {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in matrices(model, part)}


@contextmanager
def holding(model: nn.Module, masks: Mapping[str, Tensor], restore: bool = False) -> Iterator[None]:
    """Inside, the masked-out weights are zero and stay so in training.

    Parameters
    ----------
    model : Module
        With plain dense parameters of those names.
    masks : mapping of str to Tensor
        Parameter -> where it is kept.
    restore : bool
        Whether the weights come back on exit.
    """
    before = {name: model.get_parameter(name).detach().clone() for name in masks} if restore else {}
    try:
        with hold_masks(model, masks):
            yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                model.get_parameter(name).copy_(value)
