"""DHCN's readout: attention by content, place from the last click, and the session's mean (arXiv 2012.06852)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.models.pairs import places_from_last
from dissect.models.seams import Encoded, Readout
from mixer.segments import segment_sum


class ReversedReadout(Readout):
    """``sum_t a_t h_t`` with ``a_t = w . sigmoid(G1 tanh(W1 [p || h_t]) + G2 mean(h))``, not normalised (Eq. 5-7).

    Parameters
    ----------
    dim : int
        Width d.
    out : int, optional
        As for every readout; the query keeps the width of the states.
    positions : int, default 200
        Places that have an embedding, the last click's the first; earlier ones share the last.
    """

    PARTS = {"attention": ("w1", "g1", "g2", "w2"), "transformation": ()}

    def __init__(self, dim: int, out: int | None = None, positions: int = 200) -> None:
        super().__init__()
        if positions < 1:
            raise ValueError(f"positions is {positions}; it must be >= 1")
        self.width = dim
        self.position = nn.Embedding(positions, dim)
        self.w1 = nn.Linear(2 * dim, dim)
        self.g1 = nn.Linear(dim, dim)
        self.g2 = nn.Linear(dim, dim, bias=False)
        self.w2 = nn.Linear(dim, 1, bias=False)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, width of the states)."""
        batch, h = encoded.batch, encoded.clicks
        return segment_sum(self.attention(encoded) * h, batch.rows, len(batch))

    def attention(self, encoded: Encoded) -> Tensor:
        """``a_t`` of each click, (T, 1); it may be negative."""
        batch, h = encoded.batch, encoded.clicks
        mean = segment_sum(h, batch.rows, len(batch)) / batch.lengths[:, None]
        place = self.position(places_from_last(batch).clamp_max(self.position.num_embeddings - 1))
        placed = torch.tanh(self.w1(torch.cat([place, h], 1)))
        return self.w2(torch.sigmoid(self.g1(placed) + self.g2(mean).index_select(0, batch.rows)))
