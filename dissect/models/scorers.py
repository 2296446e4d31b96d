"""Scorers: how a query meets the item table. They have no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import DissectError

#: Name -> formula.
SCORERS = {
    "dot": "q . e",
    "cosine": "sigma cos(q, e) (NISER, arXiv 1909.04276)",
    "centred": "sigma cos(q - mean(q), e - mean(e)) (SGNN-HN, its released code)",
    "unit-items": "sigma q . e / |e| (Atten-Mixer, arXiv 2206.12781, Eq. 4-5)",
}


@dataclass(frozen=True)
class Scorer:
    """How a query meets the item table; see `SCORERS`.

    Attributes
    ----------
    name : str
        A key of `SCORERS`.
    sigma : float
        Scale; unused by ``dot``.
    dropout : float
        Dropout of the item table, after its normalisation, in training (Atten-Mixer's released code).
    """

    name: str = "dot"
    sigma: float = 12.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in SCORERS:
            raise DissectError(f"unknown scorer {self.name!r}; choose from {', '.join(SCORERS)}")

    @property
    def unit_items(self) -> bool:
        """Whether items are L2-normalised."""
        return self.name != "dot"

    def query(self, query: Tensor) -> Tensor:
        """The query, (B, d), as it is multiplied with the (normalised) table."""
        if self.name == "centred":
            query = _centred(query)
        if self.name in ("cosine", "centred"):
            query = F.normalize(query, dim=1)
        return query if self.name == "dot" else query * self.sigma

    def table(self, table: Tensor, training: bool) -> tuple[Tensor, bool]:
        """The table to multiply with, (items, d), and whether its rows have still to be normalised.

        The loss over items normalises while it reads them; only dropout, which comes after, has it done here.
        """
        if self.name == "centred":
            table = _centred(table)
        if not (training and self.dropout):
            return table, self.unit_items
        return F.dropout(F.normalize(table, dim=1) if self.unit_items else table, self.dropout), False

    def scores(self, query: Tensor, table: Tensor) -> Tensor:
        """All scores, (B, items); the plain path, for a few sessions or for tests."""
        table, unit_items = self.table(table, False)
        return self.query(query) @ (F.normalize(table, dim=1) if unit_items else table).t()


class _Centre(torch.autograd.Function):
    """Rows less their mean; centring is its own transpose. By autograd the way back takes four passes over a table."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return rows - rows.mean(1, keepdim=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore
        return grads[0] - grads[0].mean(1, keepdim=True)


def _centred(rows: Tensor) -> Tensor:
    return cast(Tensor, _Centre.apply(rows))
