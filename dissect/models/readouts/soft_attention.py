"""SR-GNN's readout (arXiv 1811.00855, Eq. 6-7): attention queried by the last click, then a linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.models.seams import Encoded, Readout
from mixer.segments import segment_sum


class SoftAttentionReadout(Readout):
    """``s = W3 [sum_i a_i h_i || h_n]`` with ``a_i = q . sigmoid(W1 h_n + W2 h_i)``, not normalised.

    Parameters
    ----------
    dim : int
        Width d.
    """

    PARTS = {"attention": ("w1", "w2", "q"), "transformation": ("w3",)}

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, dim)
        self.w2 = nn.Linear(dim, dim)
        self.q = nn.Linear(dim, 1, bias=False)
        self.w3 = nn.Linear(2 * dim, dim)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch, h = encoded.batch, encoded.clicks
        last = h.index_select(0, batch.last)  # (B, d)
        pooled = segment_sum(self._weight(h, last, batch.rows) * h, batch.rows, len(batch))
        return self.w3(torch.cat([pooled, last], 1))

    def attention(self, encoded: Encoded) -> Tensor:
        """``a_i`` of each click, (T, 1); it may be negative."""
        h = encoded.clicks
        return self._weight(h, h.index_select(0, encoded.batch.last), encoded.batch.rows)

    def _weight(self, h: Tensor, last: Tensor, rows: Tensor) -> Tensor:
        return self.q(torch.sigmoid(self.w1(last).index_select(0, rows) + self.w2(h)))
