"""NARM's encoder: a recurrent unit along the session (Li et al., CIKM'17, arXiv 1711.04725)."""

from __future__ import annotations

from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.gather import look_up
from dissect.models.recurrence import GRUCell, run_cell
from dissect.models.seams import Encoded, Encoder


class RecurrentEncoder(Encoder):
    """A gated recurrent unit over the clicks, after dropout of the items' embeddings (Section 3.2, Eq. 1-5).

    ``h_t = GRU(dropout(x_t), h_{t-1})`` from ``h_0 = 0``, without biases: ``n = tanh(W_n x + r * (U_n h))``,
    ``r = sigmoid(W_r x + U_r h)``, ``h_t = n + z * (h - n)`` with ``z = sigmoid(W_z x + U_z h)``. (The paper's z is the
    share of n, this one's that of h: one map is the other's negative. The paper resets h before U_n, torch after it.)

    What one click hands to the next goes through the unit's map of its state: that is the propagation here; the map
    of its input, which meets the state in the gates, is the combination.

    Parameters
    ----------
    dim : int
        Width d of the items.
    factor : int, default 1
        Width of the state over d.
    dropout : float, default 0.25
    """

    PARTS = {"propagation": ("cell.hidden",), "combination": ("cell.input",)}
    static = False

    def __init__(self, dim: int, factor: int = 1, dropout: float = 0.25) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor is {factor}; it must be >= 1")
        self.width = factor * dim
        self.dropout = nn.Dropout(dropout)
        self.cell = GRUCell(dim, self.width, bias=False)

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each click with those before it."""
        clicks, table = look_up(table, batch.items)
        states, _ = run_cell(self.cell, self.dropout(clicks), batch.lengths)
        return Encoded(batch, states, table)
