"""A self-attention block over packed sessions: GC-SAN's readout has it, and the self-attention encoder."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from dissect.models.pairs import Pairs


class SelfAttentionBlock(nn.Module):
    """One head of self-attention, then a feed-forward map with a residual (GC-SAN, IJCAI'19, Eq. 8-9).

    ``F = softmax(H W_Q (H W_K)^T / sqrt(d)) H W_V``; the block gives ``relu(F W_1 + b_1) W_2 + b_2 + F``.

    Parameters
    ----------
    dim : int
        Width d.
    dropout : float
        Of the feed-forward map's result.
    """

    ATTENTION = ("query", "key", "value")
    FORWARD = ("inner", "outer")

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.inner = nn.Linear(dim, dim)
        self.outer = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def weights(self, h: Tensor, pairs: Pairs, gathering: Tensor | None = None) -> Tensor:
        """Attention of each pair, (P, 1)."""
        query = self.query(h if gathering is None else h.index_select(0, gathering)).index_select(0, pairs.query)
        logits = (query * self.key(h).index_select(0, pairs.key)).sum(1, keepdim=True)
        return pairs.softmax(logits / math.sqrt(h.shape[1]))

    def forward(self, h: Tensor, pairs: Pairs, gathering: Tensor | None = None) -> Tensor:
        """(T, d) -> (T, d), or (Q, d) for the rows `gathering`, (Q,), alone, which the pairs then number."""
        attended = pairs.gather(self.weights(h, pairs, gathering), self.value(h))
        return self.dropout(self.outer(F.relu(self.inner(attended)))) + attended
