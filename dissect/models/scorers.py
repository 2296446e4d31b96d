"""Scorers: how a query meets the item table. They have no weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Scorer:
    """``dot``: ``q . e``; ``cosine``: ``sigma * cos(q, e)`` (NISER, arXiv 1909.04276).

    Attributes
    ----------
    name : str
        ``dot`` or ``cosine``.
    sigma : float
        Scale of the cosine; unused by ``dot``.
    """

    name: str = "dot"
    sigma: float = 12.0

    @property
    def cosine(self) -> bool:
        """Whether queries and items are L2-normalised."""
        return self.name == "cosine"

    def query(self, query: Tensor) -> Tensor:
        """The query, (B, d), as it is multiplied with the (normalised) table."""
        return F.normalize(query, dim=1) * self.sigma if self.cosine else query

    def scores(self, query: Tensor, table: Tensor) -> Tensor:
        """All scores, (B, items); the plain path, for a few sessions or for tests."""
        return self.query(query) @ (F.normalize(table, dim=1) if self.cosine else table).t()
