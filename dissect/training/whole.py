"""Cross-entropy over all items from one block of scores: the form for an accelerator.

There a kernel costs microseconds whatever it does, and softmax over a row of scores is one kernel. So nothing is gained
by tiles, and a step has fewer kernels without them. It takes memory for two blocks, 8 bytes an element: the scores and
their log-softmax, then that and the probabilities.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dissect.training.precision import factor, matmul

#: Length of a row of scores, in numbers, is a multiple of this.
WHOLE = 16


class _WholeItemCrossEntropy(torch.autograd.Function):
    """Targets are left out of the blocks and counted in fp32: where a model is sure, their probability is near 1, and a
    rounded one would leave more error than gradient.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, targets: Tensor, cosine: bool, bf16: bool) -> Tensor:
        # Rounded once, for the products of both passes.
        factors = factor(table, bf16)
        # Rows of scores begin at multiples of 32 bytes, as products like it; what fills them up has no probability.
        batch, items = query.shape[0], table.shape[0]
        block = query.new_empty(batch, -(-items // WHOLE) * WHOLE)
        block[:, items:].fill_(-torch.inf)
        scores = matmul(query, factors.t(), bf16, out=block[:, :items])
        rows, scale = table.index_select(0, targets), None
        if cosine:
            scale = torch.linalg.vector_norm(table, dim=1).clamp_min_(1e-12).reciprocal_()  # 1 / |e|
            scores.mul_(scale)
            rows = rows * scale[targets, None]
        scores.scatter_(1, targets[:, None], (query * rows).sum(1, keepdim=True))
        log_p = torch.log_softmax(block, 1)
        own = log_p.gather(1, targets[:, None])
        ctx.save_for_backward(query, table, targets)
        ctx.rest = log_p, own, rows, factors, scale, bf16
        return own.mean().neg()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        query, table, targets = ctx.saved_tensors
        log_p, own, rows, factors, scale, bf16 = ctx.rest
        share = grads[0] / query.shape[0]
        p = torch.exp(log_p, out=torch.empty_like(log_p, dtype=factors.dtype))
        p = p.scatter_(1, targets[:, None], 0)[:, : table.shape[0]]
        if scale is not None:
            p.mul_(scale)
        weighed, own = query * share, torch.expm1(own) * share  # (p - 1) of the targets
        grad_query = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_query = matmul(p, factors, bf16).mul_(share).addcmul_(own, rows)
        if ctx.needs_input_grad[1]:
            grad_table = matmul(p.t(), weighed, bf16, out=torch.empty_like(table))
            pull = query * own
            grad_table.index_add_(0, targets, pull if scale is None else pull * scale[targets, None])
            if scale is not None:  # the radial component goes
                radial = (table * grad_table).sum(1).mul_(scale.square())
                grad_table.addcmul_(table, radial[:, None], value=-1)
            grad_table.fresh = True  # type: ignore[attr-defined]  # a lookup in the same table may add its rows in place
        return grad_query, grad_table, None, None, None


def whole_item_cross_entropy(
    query: Tensor, table: Tensor, targets: Tensor, cosine: bool = False, bf16: bool = False
) -> Tensor:
    """What `item_cross_entropy` gives, from one block of scores, (B, items)."""
    return _WholeItemCrossEntropy.apply(query, table, targets, cosine, bf16)  # type: ignore[no-any-return]
