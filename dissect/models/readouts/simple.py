"""Readouts without attention: the last item, the mean of all, and both through a linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.models.seams import Encoded, Readout
from mixer.segments import segment_sum


class LastItemReadout(Readout):
    """The hidden state of the last click; no parameters.

    Parameters
    ----------
    dim : int
        Width d; accepted so that every readout is built alike.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        return encoded.clicks.index_select(0, encoded.batch.last)


class MeanReadout(LastItemReadout):
    """The mean of a session's L2-normalised hidden states; no parameters.

    Normalised, it reads what Atten-Mixer reads, with equal weights: the control that its attention must beat.
    """

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch = encoded.batch
        total = segment_sum(F.normalize(encoded.clicks, dim=1), batch.rows, len(batch))
        return total / batch.lengths[:, None]


class MeanLastReadout(Readout):
    """``W_m [L2(mean) || h_n]``: Atten-Mixer with every attention weight equal, and so without its maps.

    Parameters
    ----------
    dim : int
        Width d.
    output : {"linear", "residual"}
        ``residual`` adds the mean itself, as Atten-Mixer's option of that name does.
    """

    PARTS = {"attention": (), "transformation": ("w_m",)}

    def __init__(self, dim: int, output: str = "linear") -> None:
        super().__init__()
        if output not in ("linear", "residual"):
            raise ValueError(f"unknown output {output!r}; choose from: linear, residual")
        self.output = output
        self.w_m = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch = encoded.batch
        hidden = F.normalize(encoded.clicks, dim=1)
        pooled = F.normalize(segment_sum(hidden, batch.rows, len(batch)), dim=1)
        mapped = self.w_m(torch.cat([pooled, hidden.index_select(0, batch.last)], 1))
        return pooled + mapped if self.output == "residual" else mapped
