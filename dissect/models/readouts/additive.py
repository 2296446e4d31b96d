"""NARM's readout: additive attention and the last state, a bilinear decoder (Li et al., CIKM'17, arXiv 1711.04725)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.models.seams import Encoded, Readout
from mixer.segments import segment_sum


class AdditiveReadout(Readout):
    """``B [sum_j a_j h_j || h_t]`` with ``a_j = v . sigmoid(A_1 h_j + A_2 h_t)``, not normalised (Eq. 8-11).

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query, and so of the items.
    dropout : float, default 0.5
        Of what the decoder B reads.

    Notes
    -----
    The authors' code (github.com/lijingsdu/sessionRec_NARM) has hard sigmoids, and a softmax over the session that the
    equations lack; RecBole's has neither, nor has this.
    """

    PARTS = {"attention": ("a1", "a2", "v"), "transformation": ("decoder",)}

    def __init__(self, dim: int, out: int | None = None, dropout: float = 0.5) -> None:
        super().__init__()
        self.a1 = nn.Linear(dim, dim, bias=False)
        self.a2 = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(2 * dim, out or dim, bias=False)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch, h = encoded.batch, encoded.clicks
        pooled = segment_sum(self.attention(encoded) * h, batch.rows, len(batch))
        return self.decoder(self.dropout(torch.cat([pooled, h.index_select(0, batch.last)], 1)))

    def attention(self, encoded: Encoded) -> Tensor:
        """``a_j`` of each click, (T, 1); it may be negative."""
        batch, h = encoded.batch, encoded.clicks
        of_last = self.a2(h.index_select(0, batch.last)).index_select(0, batch.rows)
        return self.v(torch.sigmoid(self.a1(h) + of_last))
