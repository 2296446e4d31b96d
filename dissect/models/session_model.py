"""A session model: item table -> encoder -> readout -> scorer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.scorers import Scorer
from dissect.models.seams import Encoder, Output, Parts, Readout


class SessionModel(nn.Module):
    """Two halves and a scorer over one item table.

    Parameters
    ----------
    items : int
        Number of items; the table has exactly one row for each, none for padding.
    dim : int
        Width d.
    encoder : Encoder
    readout : Readout
    scorer : Scorer

    Notes
    -----
    Every parameter starts at U(-1/sqrt(d), 1/sqrt(d)), as in SR-GNN (arXiv 1811.00855, released code), but for those
    that a module's own `start` sets.
    """

    def __init__(self, items: int, dim: int, encoder: Encoder, readout: Readout, scorer: Scorer) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items, dim)
        self.encoder = encoder
        self.readout = readout
        self.scorer = scorer
        bound = 1 / math.sqrt(dim)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound)
        for module in self.modules():
            if callable(start := getattr(module, "start", None)):
                start()

    def forward(self, batch: Batch) -> Output:
        """Queries of the batch's sessions, (B, d), and the table to score them against, (items, d)."""
        encoded = self.encoder(batch, self.embedding.weight)
        table, unit_items = self.scorer.table(encoded.table, self.training)
        return Output(self.scorer.query(self.readout(encoded)), table, unit_items=unit_items)

    def scores(self, batch: Batch) -> Tensor:
        """Scores of every item for each session, (B, items)."""
        encoded = self.encoder(batch, self.embedding.weight)
        return self.scorer.scores(self.readout(encoded), encoded.table)

    @property
    def views(self) -> tuple[str, ...]:
        """Views of a batch that the encoder reads."""
        return self.encoder.views

    def parts(self) -> Parts:
        """Part -> names of its modules in this model."""
        halves = (("encoder", self.encoder), ("readout", self.readout))
        return {
            part: tuple(f"{half}.{name}" for name in names)
            for half, module in halves
            for part, names in module.PARTS.items()
        }
