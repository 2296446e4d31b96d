"""DHCN's encoder: the item table convolved over the hypergraph of sessions (Xia et al., AAAI'21, arXiv 2012.06852)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dissect.batch import Batch, numbered
from dissect.models.gather import look_up
from dissect.models.seams import Encoded, Encoder, Examples
from mixer.segments import segment_sum

#: Entries of a row that one thread of an accelerator sums: the rows of popular items have thousands.
PIECE = 64


class CompressedRows(NamedTuple):
    """A sparse matrix in compressed rows; where `pieces` is given, in pieces of rows, row i from ``pieces[i]`` on."""

    first: Tensor
    column: Tensor
    value: Tensor
    pieces: Tensor | None = None

    def cut(self, size: int = PIECE) -> CompressedRows:
        """The same matrix with its rows in pieces of at most `size` entries."""
        count = torch.div(self.first.diff() + size - 1, size, rounding_mode="floor")
        pieces = torch.cat([self.first[:1], count.cumsum(0)])
        row = torch.repeat_interleave(count)
        begin = self.first[row] + size * (torch.arange(row.numel(), device=row.device) - pieces[row])
        return CompressedRows(torch.cat([begin, self.first[-1:]]), self.column, self.value, pieces)

    def __matmul__(self, x: Tensor) -> Tensor:
        """The product with a dense matrix, without gradients."""
        out = _sums(self.column, x, self.first, self.value)
        if self.pieces is None:
            return out
        return _sums(torch.arange(len(out), device=out.device), out, self.pieces)


class _Convolve(torch.autograd.Function):
    """``A @ x`` for A = D^-1 S with a symmetric S, whose transpose is ``D A D^-1``: one matrix serves both ways.

    A row of the product is a weighted sum of a few rows of x, as in an embedding bag, and that kernel takes a third of
    the time of the sparse product: it fetches rows ahead.
    """

    @staticmethod
    def forward(ctx: Any, matrix: CompressedRows, degree: Tensor, x: Tensor) -> Tensor:
        ctx.matrix, ctx.degree = matrix, degree
        return matrix @ x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:  # pyright: ignore
        degree = ctx.degree[:, None]
        return None, None, (ctx.matrix @ (grads[0] / degree)).mul_(degree)


def _sums(column: Tensor, x: Tensor, first: Tensor, value: Tensor | None = None) -> Tensor:
    return F.embedding_bag(column, x, first, mode="sum", per_sample_weights=value, include_last_offset=True)


def hypergraph(examples: Examples, items: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``D^-1 H B^-1 H^T`` of the training prefixes (Eq. 1-2), and the items' degrees.

    H is (items, prefixes), 1 where the prefix has the item; B counts the items of a prefix, D the prefixes of an item.
    The row of an item that no prefix has is empty, as in the released code: nothing is convolved into it.

    Parameters
    ----------
    examples
        Training examples: flat ``clicks``, ``start``, ``end`` of each prefix.
    items : int

    Returns
    -------
    first, column, value : Tensor, (items + 1,) and (nonzeros,) int64, (nonzeros,) float32
        The matrix in compressed rows, whose values sum to 1 in each that is not empty.
    degree : Tensor, (items,)
        Of an item that no prefix has it is 1, to divide by.
    """
    from scipy import sparse

    clicks, start, end = (np.asarray(torch.as_tensor(getattr(examples, n)).cpu()) for n in ("clicks", "start", "end"))
    sizes = end - start
    prefix = np.repeat(np.arange(len(sizes)), sizes)
    places = np.arange(sizes.sum()) + np.repeat(start - (np.cumsum(sizes) - sizes), sizes)
    pairs = np.unique(prefix * items + clicks[places].astype(np.int64))  # an item counts once in a prefix
    prefix, item = np.divmod(pairs, items)
    incidence = sparse.csr_matrix((np.ones(len(pairs)), (item, prefix)), (items, len(sizes)))
    degree = np.asarray(incidence.sum(1)).ravel()
    size = np.asarray(incidence.sum(0)).ravel()
    joint = (incidence @ sparse.diags(1 / np.maximum(size, 1))) @ incidence.T
    matrix = (sparse.diags(1 / np.maximum(degree, 1)) @ joint).tocsr()
    matrix.sort_indices()
    parts = (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data.astype(np.float32))
    first, column, value = (torch.from_numpy(part) for part in parts)
    return first, column, value, torch.from_numpy(np.maximum(degree, 1).astype(np.float32))


def _shuffle(count: int, device: torch.device) -> Tensor:
    """A random order, (count,); on an accelerator one that can be drawn without a look at it."""
    if device.type == "cpu":
        return torch.randperm(count)
    return torch.rand(count, device=device).argsort()


class HypergraphEncoder(Encoder):
    """The mean of the item table and of its `layers` convolutions; nothing in it is learnt (Eq. 3-4).

    Sessions are read, and scored, by convolved items. In training a second view of a session, the mean of its plain
    items convolved over the line graph of the batch, is pulled towards its query (Section 4.4, Eq. 12).

    Parameters
    ----------
    dim : int
        Width d.
    layers : int, default 3
    beta : float, default 0.01
        Weight of the self-supervised loss, a sum over the batch, as in the released code; 0 leaves it out.

    Notes
    -----
    The hypergraph comes from the training prefixes, by `prepare`; until then each item stands alone. It is kept with
    the weights. An item of no prefix is left with 1 / (layers + 1) of its embedding, and scores low.

    In the released code (github.com/xiaxin1998/DHCN) no gradient goes through the second view: a tensor is rebuilt
    from its numbers there. So it is here. What it does for single data sets alone is left out: it reads Tmall without
    positions, and drops entries of Nowplaying's matrix below 0.05.
    """

    distributed = False  # the second view meets the whole batch
    counted = ("first", "column", "value", "degree")
    first: Tensor  # of the matrix in compressed rows
    column: Tensor
    value: Tensor
    degree: Tensor

    def __init__(self, dim: int, layers: int = 3, beta: float = 0.01) -> None:
        super().__init__()
        if layers < 0 or not 0 <= beta < math.inf:
            raise ValueError(f"layers is {layers}, beta {beta}; both must be finite and >= 0")
        self.dim, self.layers, self.beta = dim, layers, beta
        self._kept: tuple[Tensor, int, Tensor] | None = None  # a table, its version, what it becomes
        self._matrix: CompressedRows | None = None
        for name, kind in (("first", torch.int64), ("column", torch.int64), ("value", None), ("degree", None)):
            self.register_buffer(name, torch.zeros(0, dtype=kind))

    def prepare(self, examples: Examples, items: int) -> None:
        """Build the hypergraph of the training examples."""
        for name, part in zip(self.counted, hypergraph(examples, items), strict=True):
            setattr(self, name, part.to(self.first.device))
        self._kept = self._matrix = None

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self.counted:  # their size is the data's
            if (held := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(held, device=getattr(self, name).device))
        self._kept = self._matrix = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def convolve(self, table: Tensor) -> Tensor:
        """Mean over the layers, (items, d); without gradients it is kept for as long as the table stays the same."""
        if not self.first.numel():
            return table
        if torch.is_grad_enabled() and (self.training or table.requires_grad):
            self._kept = None  # a step may follow, and a fused optimizer's does not count as a change of the table
            return self._convolve(table)
        version = table._version
        if self._kept is None or self._kept[0].data_ptr() != table.data_ptr() or self._kept[1] != version:
            self._kept = (table.detach(), version, self._convolve(table))  # held: its address goes to no other table
        return self._kept[2]

    def train(self, mode: bool = True) -> HypergraphEncoder:
        """Switch the mode, and forget the convolved table."""
        self._kept = None
        return super().train(mode)

    def _convolve(self, table: Tensor) -> Tensor:
        if self._matrix is None or self._matrix.value is not self.value:  # moved, or of another type
            matrix = CompressedRows(self.first, self.column, self.value)
            self._matrix = matrix if table.device.type == "cpu" else matrix.cut()
        matrix = self._matrix
        total = layer = table
        for _ in range(self.layers):
            layer = _Convolve.apply(matrix, self.degree, layer)
            total = total + layer
        return total / (self.layers + 1)

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Look each click up in the convolved table."""
        clicks, convolved = look_up(self.convolve(table), batch.items)
        plain = None
        if self.training and self.beta:
            plain = segment_sum(table.detach()[batch.items], batch.rows, len(batch)) / batch.lengths[:, None]
        return Encoded(batch, clicks, convolved, second=plain)

    def auxiliary(self, encoded: Encoded, query: Tensor) -> Tensor | None:
        """``beta sum_b -log sigmoid(q . s) - log sigmoid(-q' . s)``, q' shuffled over sessions and columns."""
        if encoded.second is None:
            return None
        view = self._line_graph(encoded.batch, encoded.second)
        if encoded.batch.span is not None:  # the last session is padding
            query, view = query[:-1], view[:-1]
        shuffled = query[_shuffle(len(query), query.device)][:, _shuffle(query.shape[1], query.device)]
        agree, differ = (query * view).sum(1), (shuffled * view).sum(1)
        return -self.beta * (F.logsigmoid(agree) + F.logsigmoid(-differ)).sum()

    def _line_graph(self, batch: Batch, sessions: Tensor) -> Tensor:
        """Mean over the layers of sessions convolved by the share of items that two of them have in common (Eq. 9)."""
        graph = batch.session_graph
        assert graph.session is not None
        if batch.span is None:
            items, column = torch.unique(graph.nodes, return_inverse=True)
            count = items.numel()
        else:
            column, count = numbered(graph.nodes)[2], graph.nodes.numel() + 1
        member = sessions.new_zeros(len(batch), count)
        member.view(-1).index_fill_(0, graph.session * count + column, 1)
        if batch.span is not None:  # padding has an item that no session has
            member[-1].zero_()
            member[-1, -1].fill_(1)
        shared, size = member @ member.t(), member.sum(1)
        overlap = shared / (size[:, None] + size - shared)
        step = overlap / overlap.sum(1, keepdim=True)
        total = layer = sessions
        for _ in range(self.layers):
            layer = step @ layer
            total = total + layer
        return total / (self.layers + 1)
