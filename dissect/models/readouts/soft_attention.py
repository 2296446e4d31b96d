"""SR-GNN's readout (arXiv 1811.00855, Eq. 6-7): attention queried by the last click, then a linear map."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dissect.models.seams import Encoded, Readout
from mixer.segments import segment_sum


class SoftAttentionReadout(Readout):
    """``s = W3 [sum_i a_i h_i || h_n]`` with ``a_i = q . sigmoid(W1 h_n + W2 h_i)``, not normalised.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query; that of the states by default.
    """

    PARTS = {"attention": ("w1", "w2", "q"), "transformation": ("w3",)}
    BIAS: ClassVar[bool] = True

    def __init__(self, dim: int, out: int | None = None) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, dim, bias=self.BIAS)
        self.w2 = nn.Linear(dim, dim, bias=self.BIAS)
        self.q = nn.Linear(dim, 1, bias=False)
        self.w3 = nn.Linear(2 * dim, out or dim, bias=self.BIAS)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch, h = encoded.batch, self.states(encoded)
        pooled = segment_sum(self.weights(h, encoded) * h, batch.rows, len(batch))
        return self.transform(torch.cat([pooled, h.index_select(0, batch.last)], 1))

    def transform(self, both: Tensor) -> Tensor:
        """The query, (B, d), of what is pooled and the last state, (B, 2 dim)."""
        return self.w3(both)

    def attention(self, encoded: Encoded) -> Tensor:
        """``a_i`` of each click, (T, 1); it may be negative."""
        return self.weights(self.states(encoded), encoded)

    def states(self, encoded: Encoded) -> Tensor:
        """What is attended to, (T, dim): the hidden states."""
        return encoded.clicks

    def weights(self, h: Tensor, encoded: Encoded) -> Tensor:
        """``a_i`` of each click, (T, 1)."""
        batch = encoded.batch
        map_last, map_each = self.maps
        of_last = map_last(h.index_select(0, batch.last)).index_select(0, batch.rows)
        return self.q(torch.sigmoid(of_last + map_each(h)))

    @property
    def maps(self) -> tuple[nn.Module, nn.Module]:
        """The maps of the last click and of each."""
        return self.w1, self.w2
