"""No propagation: the control that the paper argues for."""

from __future__ import annotations

from torch import Tensor

from dissect.batch import Batch
from dissect.models.gather import look_up
from dissect.models.seams import Encoded, Encoder


class IdentityEncoder(Encoder):
    """Hands on the item embeddings as they are; it has no parameters.

    Parameters
    ----------
    dim : int
        Width d; accepted so that every encoder is built alike.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Embed each click."""
        clicks, table = look_up(table, batch.items)
        return Encoded(batch, clicks, table)
