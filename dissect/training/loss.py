"""Cross-entropy over all items, as one operation tiled over the item table.

The plain path, ``cross_entropy(query @ table.T, targets)``, writes and reads the (B, items) logits and their
gradient half a dozen times. Here a tile of the table is scored, exponentiated and left in cache; the backward
pass multiplies what is left and writes each row of the table's gradient once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Items in a tile: with a batch of 100, the tile's logits (800 KB) stay in a core's cache.
TILE = 2048


class _ItemCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, targets: Tensor, cosine: bool) -> Tensor:
        batch, items = query.shape[0], table.shape[0]
        scale = table.norm(dim=1).clamp_min_(1e-12).reciprocal_() if cosine else None  # 1 / |e|
        tiles = [(i, min(i + TILE, items)) for i in range(0, items, TILE)]
        exps = query.new_empty(batch * items)  # tile after tile, each a dense (B, tile) block
        peaks = query.new_empty(len(tiles), batch)
        sums = query.new_empty(len(tiles), batch)
        peak = query.new_full((batch,), -torch.inf)
        for k, (i, j) in enumerate(tiles):
            block = exps[batch * i : batch * j].view(batch, j - i)
            torch.mm(query, table[i:j].t(), out=block)
            if scale is not None:
                block.mul_(scale[i:j])
            # A running maximum: exps of earlier tiles are brought to the last maximum by one factor a row.
            peak = torch.maximum(peak, block.amax(1))
            peaks[k] = peak
            torch.sum(block.sub_(peak[:, None]).exp_(), 1, out=sums[k])
        factors = torch.exp(peaks - peak)  # (tiles, B)
        total = (sums * factors).sum(0)
        rows = table[targets]
        if scale is not None:
            rows = rows * scale[targets][:, None]
        loss = (total.log() + peak - (query * rows).sum(1)).mean()
        ctx.save_for_backward(query, table, targets, exps, factors / (total * batch), scale, rows)
        ctx.tiles = tiles
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        query, table, targets, exps, factors, scale, rows = ctx.saved_tensors
        batch = query.shape[0]
        grad_table = torch.empty_like(table)
        grad_query = torch.zeros_like(query)
        part = torch.empty_like(query)
        for k, (i, j) in enumerate(ctx.tiles):
            block = exps[batch * i : batch * j].view(batch, j - i)
            weight = (factors[k] * grads[0])[:, None]  # softmax = exps * weight; weight is moved to the queries
            rows_ij = table[i:j]
            torch.mm(block.t(), query * weight, out=grad_table[i:j])
            if scale is not None:
                rows_ij = rows_ij * scale[i:j, None]
            grad_query.addcmul_(torch.mm(block, rows_ij, out=part), weight)
        share = grads[0] / batch
        grad_query.sub_(rows * share)
        grad_table.index_add_(0, targets, query * -share)
        if scale is not None:
            for i, j in ctx.tiles:
                # d(e/|e|): remove the radial component, then divide by the norm.
                out, norm = grad_table[i:j], scale[i:j, None]
                unit = table[i:j] * norm
                out.sub_(unit.mul_((unit * out).sum(1, keepdim=True))).mul_(norm)
        return grad_query, grad_table, None, None


def item_cross_entropy(query: Tensor, table: Tensor, targets: Tensor, cosine: bool = False) -> Tensor:
    """Mean cross-entropy of the targets under a softmax over all items.

    Parameters
    ----------
    query : Tensor, (B, d)
        As the scorer gives it (scaled and normalised already for a cosine).
    table : Tensor, (items, d)
    targets : Tensor, (B,) int64
    cosine : bool
        Whether the table's rows are to be L2-normalised.

    Returns
    -------
    Tensor
        A scalar, in nats.

    Notes
    -----
    Memory: one (B, items) block of exponentials in the queries' precision, kept for the backward pass.
    """
    return _ItemCrossEntropy.apply(query, table, targets, cosine)  # type: ignore[no-any-return]


def plain_item_cross_entropy(query: Tensor, table: Tensor, targets: Tensor, cosine: bool = False) -> Tensor:
    """The same value by way of the whole logits; the reference that the tests hold the tiled form to."""
    return F.cross_entropy(query @ (F.normalize(table, dim=1) if cosine else table).t(), targets)
