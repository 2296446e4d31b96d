"""Row gathers from the item table, in a form that is cheap in both directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _LookUp(torch.autograd.Function):
    """Both uses of the table in one node, so that their gradients meet in one backward call."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(index)
        ctx.set_materialize_grads(False)
        ctx.like = table.shape, table.dtype, table.device
        return table.index_select(0, index), table.view_as(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:  # pyright: ignore
        rows, table = grads
        (index,) = ctx.saved_tensors
        if rows is None:
            return table, None
        if table is None:
            shape, dtype, device = ctx.like
            table = torch.zeros(shape, dtype=dtype, device=device)
        elif not getattr(table, "fresh", False):
            table = table.clone(memory_format=torch.contiguous_format)  # it may be somebody's, or expanded
        # The loss over items marks the gradient that it makes as fresh: no one else has it, and a copy would cost a
        # tenth of a training step.
        return table.index_add_(0, index, rows.to(table.dtype)), None


def look_up(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `index` of an item table, and the table to score against.

    Parameters
    ----------
    table : Tensor, (items, d)
    index : Tensor, (n,) int64

    Returns
    -------
    rows : Tensor, (n, d)
    table : Tensor, (items, d)
        The same values. Use it in place of the argument from here on: the dense gradient of the scores then takes up
        the few rows of this lookup in place, where a gradient of its own would cost two more passes over a table.
    """
    rows, scored = _LookUp.apply(table, index)  # type: ignore[misc]
    return rows, scored
