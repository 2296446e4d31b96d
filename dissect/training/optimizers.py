"""The optimizers that published settings name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

#: Name -> what it is.
OPTIMIZERS = {
    "adam": "Adam; decay is added to the gradient",
    "amsgrad": "Adam with the largest second moment so far (Reddi et al. 2018)",
    "adamw": "Adam with decoupled decay of matrices, none of biases and norms (Loshchilov and Hutter 2019)",
}


def make_optimizer(
    name: str, groups: Iterable[dict[str, Any]], lr: float, capturable: bool = False
) -> torch.optim.Optimizer:
    """An optimizer over parameter groups.

    Parameters
    ----------
    name : str
        A key of `OPTIMIZERS`.
    groups : iterable of dict
        As torch takes them; ``name`` of each is kept.
    lr : float
        Of groups without a rate of their own.
    capturable : bool
        Whether its steps can be captured as a CUDA graph.
    """
    how: dict[str, Any] = {"lr": lr, "fused": True, "capturable": capturable}
    if name == "adamw":
        return torch.optim.AdamW([part for group in groups for part in _split(group)], **how)
    return torch.optim.Adam(list(groups), amsgrad=name == "amsgrad", **how)


def _split(group: dict[str, Any]) -> list[dict[str, Any]]:
    if not group.get("weight_decay"):
        return [group]
    vectors = [p for p in group["params"] if p.dim() < 2]
    matrices = [p for p in group["params"] if p.dim() >= 2]
    parts = [{**group, "params": vectors, "weight_decay": 0.0}, {**group, "params": matrices}]
    return [part for part in parts if part["params"]]
