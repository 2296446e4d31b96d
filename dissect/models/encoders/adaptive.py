"""DSAN's encoder: sparse self-attention with a target token (Yuan et al., AAAI'21, doi 10.1609/aaai.v35i5.16603)."""

from __future__ import annotations

import math

import torch
from entmax import entmax_bisect
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.batch import Batch
from dissect.models.gather import look_up
from dissect.models.pairs import all_pairs, places
from dissect.models.seams import Encoded, Encoder

#: Largest norm of an item's, a place's and the token's embedding in the released code.
MAX_NORM = 1.5


def at_least_fp32(x: Tensor) -> Tensor:
    """x, in fp32 where it has fewer bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def entmax(logits: Tensor, alpha: Tensor) -> Tensor:
    """alpha-entmax of each row, (R, C), with an exponent of its own, (R, 1).

    In fp32 at the least: in bfloat16 an exponent near 1 is 1, by which entmax divides.
    """
    return entmax_bisect(at_least_fp32(logits), alpha, dim=1)  # type: ignore[arg-type]  # its annotation knows numbers alone


def exponent(logits: Tensor) -> Tensor:
    """Exponent of entmax, in (1, 2): ``1 + sigmoid``, kept off 1, where entmax is softmax (Eq. 5)."""
    alpha = torch.sigmoid(at_least_fp32(logits)) + 1
    return alpha.masked_fill(alpha == 1, 1.00001)


class AdaptiveEncoder(Encoder):
    """Self-attention with alpha-entmax over a session's clicks and a target token at its end (Section 4.2).

    A click is ``x_j = [item || place]``, the token x_s a learnt item at the place after the last. Queries are
    relu-mapped, keys and values the states themselves: ``A = entmax_alpha(relu(X W_Q + b) X^T / sqrt(2 d))`` with
    ``alpha = 1 + sigmoid(w . x_s + b)``; then ``C = A X`` and ``h = LN(W_2 relu(W_1 C + b_1) + b_2 + C)``.

    Parameters
    ----------
    dim : int
        Width d of the items.
    positions : int, default 200
        Places that have an embedding; later ones share the last.
    dropout : float, default 0.5

    Notes
    -----
    ``clicks`` and ``star``, the token's state, have the width 2 d; ``inputs`` are the clicks before attention, which
    DSAN's readout pools. The released code (github.com/SamHaoYuan/DSANForAAAI2021) has one map for the exponents of
    both halves; here each half has its own, so that halves can be swapped. Its items, places and token have a norm of
    at most 1.5, renewed whenever they are looked up.
    """

    PARTS = {"propagation": ("query", "exponent"), "combination": ("inner", "outer")}
    static = False
    distributed = False  # norms are cut where they are looked up

    def __init__(self, dim: int, positions: int = 200, dropout: float = 0.5) -> None:
        super().__init__()
        if positions < 2:
            raise ValueError(f"positions is {positions}; it must be >= 2")
        self.width = wide = 2 * dim
        self.position = nn.Embedding(positions, dim, max_norm=MAX_NORM)
        self.token = nn.Embedding(1, dim, max_norm=MAX_NORM)
        self.exponent = nn.Linear(wide, 1)
        self.query = nn.Linear(wide, wide)
        self.inner = nn.Linear(wide, wide)
        self.outer = nn.Linear(wide, wide)
        self.norm = nn.LayerNorm(wide)
        self.dropout = nn.Dropout(dropout)

    def start(self) -> None:
        """Start as the released code does, where it differs from torch."""
        nn.init.zeros_(self.query.bias)

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each click, and the token of each session."""
        items, table = look_up(table, batch.items)
        lengths = batch.lengths + 1
        ends = lengths.cumsum(0) - 1
        clicks = torch.arange(batch.items.numel(), device=items.device) + batch.rows  # a token ends each session
        count = items.shape[0] + len(batch)
        token = self.token(ends.new_zeros(len(batch)))
        joined = items.new_empty(count, items.shape[1]).index_copy(0, clicks, items).index_copy(0, ends, token)
        place = ends.new_empty(count).index_copy_(0, clicks, places(batch)).index_copy_(0, ends, batch.lengths)
        x = torch.cat([joined, self.position(place.clamp_max(self.position.num_embeddings - 1))], 1)

        pairs = all_pairs(lengths)
        query = self.dropout(F.relu(self.query(x))).index_select(0, pairs.query)
        scores = (query * x.index_select(0, pairs.key)).sum(1) / math.sqrt(x.shape[1])
        rows = torch.repeat_interleave(lengths, output_size=count)
        alpha = exponent(self.exponent(x.index_select(0, ends))).index_select(0, rows)
        weights = pairs.packed(entmax(pairs.rectangle(scores, -torch.inf), alpha))
        attended = pairs.gather(weights[:, None], x)
        attended = self.norm(self.dropout(self.outer(F.relu(self.inner(attended)))) + attended)
        return Encoded(
            batch,
            attended.index_select(0, clicks),
            table,
            star=attended.index_select(0, ends),
            inputs=x.index_select(0, clicks),
        )
