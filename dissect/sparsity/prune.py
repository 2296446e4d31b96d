"""Pruning: the dense model that is left when the dropped weights are zero."""

from __future__ import annotations

import copy

import torch
from torch import nn

from dissect.sparsity.density import keep_mask
from dissect.sparsity.layers import to_dense
from dissect.sparsity.raw import RawParameters, to_dense_parameter
from dissect.sparsity.variational import named_variational, variational_modules


def prune_counts(model: nn.Module, rule: str = "log-alpha", threshold: float | None = None) -> tuple[int, int]:
    """Kept and total number of wrapped weights, tied ones once."""
    kept = total = 0
    for _, theta, s in named_variational(model):
        kept += int(keep_mask(theta, s, rule, threshold).sum())
        total += theta.numel()
    return kept, total


@torch.no_grad()
def pruned_copy(model: nn.Module, rule: str = "log-alpha", threshold: float | None = None) -> nn.Module:
    """A deep copy with dense layers in place of the variational ones and zeros for the dropped weights.

    Parameter names are those of the model before wrapping. The zeros are unstructured: the copy is neither
    smaller nor faster than the dense model. Where a pruned matrix is tied to a parameter of a layer that
    isn't wrapped (an embedding), the tie is cut in the copy, since the other use is not pruned.
    """
    twin = copy.deepcopy(model)
    wrapped = [module for _, module in variational_modules(twin)]
    inside = {id(module) for module in wrapped}
    outside = {
        id(p) for m in twin.modules() if id(m) not in inside for p in m.parameters(recurse=False) if p is not None
    }
    for _, theta, s in list(named_variational(twin)):
        mask = keep_mask(theta, s, rule, threshold)
        if id(theta) not in outside:
            theta.masked_fill_(~mask, 0)  # no negative zeros
            continue
        pruned = nn.Parameter(theta.masked_fill(~mask, 0), requires_grad=theta.requires_grad)
        for module in wrapped:
            for name, other, _ in list(module.pairs()):
                if other is theta:
                    setattr(module, name, pruned)
    for module in wrapped:
        if isinstance(module, RawParameters):
            for name, _ in module.PAIRS:
                to_dense_parameter(module, name)
        else:
            to_dense(module)
    return twin
