"""The training step of SR-GNN's released PyTorch code, for `dissect bench --against`.

Clone https://github.com/CRIPAC-DIG/SR-GNN (none of it is part of this project), install networkx, which it
imports, and name its folder:

    export SRGNN_RELEASED=/path/to/SR-GNN/pytorch_code
    dissect bench srgnn --dataset diginetica --against analyses/peers/srgnn_released.py:step
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

from dissect.errors import DissectError


def step(
    *,
    sessions: list[list[int]],
    targets: list[int],
    items: int,
    dim: int,
    batch_size: int,
    longest: int,
    lr: float,
    weight_decay: float,
) -> Any:
    """Build the released model over these examples; returns its step, batch preparation included."""
    if "SRGNN_RELEASED" not in os.environ:
        raise DissectError("set SRGNN_RELEASED to pytorch_code in your clone of github.com/CRIPAC-DIG/SR-GNN")
    sys.path.insert(0, os.environ["SRGNN_RELEASED"])
    import model as released  # type: ignore[import-not-found]
    import torch
    import utils  # type: ignore[import-not-found]

    options = SimpleNamespace(
        hiddenSize=dim, batchSize=batch_size, nonhybrid=False, step=1, lr=lr, l2=weight_decay,
        lr_dc_step=3, lr_dc=0.1,
    )  # fmt: skip
    # Its ids start at 1, and it pads every session to the longest of the whole data set.
    inputs = [[i + 1 for i in s] for s in sessions] + [[1] * longest]
    data = utils.Data((inputs, [t + 1 for t in targets] + [1]))
    net = released.SessionGraph(options, items + 1)
    net.train()

    def one(i: int) -> None:
        net.optimizer.zero_grad()
        index = range(i * batch_size, (i + 1) * batch_size)
        aims, scores = released.forward(net, list(index), data)
        loss = net.loss_function(scores, torch.as_tensor(aims).long() - 1)
        loss.backward()
        net.optimizer.step()
        loss.item()

    return one
