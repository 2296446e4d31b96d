"""Readouts without parameters: the last item, and the mean of all."""

from __future__ import annotations

from torch import Tensor

from dissect.models.gather import segment_sum
from dissect.models.seams import Encoded, Readout


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
    """The mean hidden state of a session's clicks; no parameters."""

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch = encoded.batch
        total = segment_sum(encoded.clicks, batch.rows, len(batch))
        return total / batch.lengths[:, None]
