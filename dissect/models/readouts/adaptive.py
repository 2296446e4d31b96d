"""DSAN's readout: attention with alpha-entmax (Yuan et al., AAAI'21, doi 10.1609/aaai.v35i5.16603)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.models.encoders.adaptive import entmax, exponent
from dissect.models.pairs import Pairs
from dissect.models.seams import Encoded, Readout
from mixer.segments import segment_sum


class AdaptiveReadout(Readout):
    """``selu(W [sum_j a_j x_j || t])`` with ``a = entmax(w . relu(W_1 h_j + W_2 t + b))`` (Eq. 9-13).

    t is the state of the encoder's target token (its ``star``), or of the last click; x_j the click before attention
    where the encoder hands it on (``inputs``), else its state h_j.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query.
    dropout : float, default 0.5
        Of the query.
    """

    PARTS = {"attention": ("of_click", "of_target", "energy", "exponent"), "transformation": ("w",)}
    static = False

    def __init__(self, dim: int, out: int | None = None, dropout: float = 0.5) -> None:
        super().__init__()
        self.of_click = nn.Linear(dim, dim, bias=False)
        self.of_target = nn.Linear(dim, dim)
        self.energy = nn.Linear(dim, 1, bias=False)
        self.exponent = nn.Linear(dim, 1)
        self.w = nn.Linear(2 * dim, out or dim)
        self.dropout = nn.Dropout(dropout)

    def start(self) -> None:
        """Start as the released code does."""
        for layer in (self.of_click, self.of_target, self.energy):
            nn.init.normal_(layer.weight, 0, 0.05)
        nn.init.zeros_(self.of_target.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch = encoded.batch
        values = encoded.clicks if encoded.inputs is None else encoded.inputs
        pooled = segment_sum(self.attention(encoded) * values, batch.rows, len(batch))
        return self.dropout(F.selu(self.w(torch.cat([pooled, self._target(encoded)], 1))))

    def attention(self, encoded: Encoded) -> Tensor:
        """``a_j`` of each click, (T, 1)."""
        batch, target = encoded.batch, self._target(encoded)
        of_target = self.of_target(target).index_select(0, batch.rows)
        energy = self.energy(F.relu(self.of_click(encoded.clicks) + of_target)).squeeze(1)
        pairs = Pairs(batch.rows, torch.arange(len(energy), device=energy.device), batch.lengths)
        weights = entmax(pairs.rectangle(energy, -torch.inf), exponent(self.exponent(target)))
        return pairs.packed(weights)[:, None]

    @staticmethod
    def _target(encoded: Encoded) -> Tensor:
        return encoded.clicks.index_select(0, encoded.batch.last) if encoded.star is None else encoded.star
