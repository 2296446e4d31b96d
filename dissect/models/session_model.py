"""A session model: item table -> encoder -> readout -> scorer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dissect.batch import Batch
from dissect.errors import DissectError
from dissect.models.recurrence import GRUCell
from dissect.models.scorers import Scorer
from dissect.models.seams import Encoded, Encoder, Examples, Output, Parts, Readout

#: Names of what `SessionModel` takes as `start`.
STARTS = ("uniform", "torch", "small", "xavier")
#: Modules that start as torch starts them, whatever the others do: at a gain of 1, at a slope of 1/4.
_AS_THEY_ARE = (nn.LayerNorm, nn.BatchNorm1d, nn.PReLU)


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
    start : {"uniform", "torch", "small", "xavier"}
        Where weights start: every one at U(-1/sqrt(d), 1/sqrt(d)), as in SR-GNN (arXiv 1811.00855, released code) and
        the models that grew from it; or as torch's own modules do, items at N(0, 1), or ``small``, at N(0, 0.02^2),
        or ``xavier``, where the item table and every linear map but a recurrent unit's start as `xavier_normal_` does,
        biases at 0, as in RecBole's NARM. Norms start at gain 1 and PReLUs at slope 1/4, and what a module's own
        `start` sets is as it says.
    window : int
        Where positive, only a session's last `window` clicks are seen.
    max_norm : float
        Where positive, the largest norm of an item's embedding: what is looked up, or scored without normalisation, is
        scaled back to it first, in place, as `torch.nn.Embedding` does.

    Notes
    -----
    A readout whose query has not the width of the items is followed by a linear map, `fit`, to that width; it counts
    as transformation.
    """

    def __init__(
        self,
        items: int,
        dim: int,
        encoder: Encoder,
        readout: Readout,
        scorer: Scorer,
        *,
        start: str = "uniform",
        window: int = 0,
        max_norm: float = 0.0,
    ) -> None:
        super().__init__()
        if start not in STARTS:
            raise DissectError(f"unknown start {start!r}; choose from {', '.join(STARTS)}")
        self.window, self.max_norm = window, max_norm
        self.embedding = nn.Embedding(items, dim)
        self.encoder = encoder
        self.readout = readout
        self.scorer = scorer
        width = readout.width or dim
        self.fit = nn.Linear(width, dim, bias=False) if width != dim else None
        if start == "uniform":
            bound = 1 / math.sqrt(dim)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.uniform_(-bound, bound)
        elif start == "small":
            nn.init.normal_(self.embedding.weight, std=0.02)
        elif start == "xavier":
            units = {part for cell in self.modules() if isinstance(cell, GRUCell) for part in cell.modules()}
            for module in self.modules():
                if isinstance(module, nn.Embedding | nn.Linear) and module not in units:
                    nn.init.xavier_normal_(module.weight)
                    if isinstance(module, nn.Linear) and module.bias is not None:
                        nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, _AS_THEY_ARE):
                module.reset_parameters()
        for module in self.modules():  # after those: a module's own start may be about a norm in it
            if callable(begin := getattr(module, "start", None)):
                begin()

    def forward(self, batch: Batch) -> Output:
        """Queries of the batch's sessions, (B, d), and the table to score them against, (items, d)."""
        encoded, query = self._read(batch)
        auxiliary = self.encoder.auxiliary(encoded, query) if self.training else None
        table, unit_items = self.scorer.table(encoded.table, self.training)
        return Output(self.scorer.query(query), table, auxiliary, unit_items)

    def query(self, batch: Batch) -> Tensor:
        """The queries alone, (B, d), as `forward` gives them, without what it does to the whole table."""
        return self.scorer.query(self._read(batch)[1])

    def scores(self, batch: Batch) -> Tensor:
        """Scores of every item for each session, (B, items)."""
        encoded, query = self._read(batch)
        return self.scorer.scores(query, encoded.table)

    def seen(self, batch: Batch) -> Batch:
        """What is read of a batch: all of it, or the last clicks of each session."""
        return batch.tail(self.window) if self.window else batch

    def encode(self, batch: Batch) -> Encoded:
        """What the readout reads of a batch."""
        batch = self.seen(batch)
        table = self.embedding.weight
        if self.max_norm:
            with torch.no_grad():
                if self.scorer.unit_items:
                    torch.embedding_renorm_(table.detach(), batch.items, self.max_norm, 2.0)
                else:
                    table.mul_((self.max_norm / table.norm(dim=1, keepdim=True)).clamp_max(1))
        return self.encoder(batch, table)

    def _read(self, batch: Batch) -> tuple[Encoded, Tensor]:
        encoded = self.encode(batch)
        query = self.readout(encoded)
        return encoded, query if self.fit is None else self.fit(query)

    def prepare(self, examples: Examples) -> None:
        """Learn what follows from the training examples by counting alone, such as DHCN's hypergraph."""
        self.encoder.prepare(examples, self.embedding.num_embeddings)

    @property
    def counted(self) -> tuple[str, ...]:
        """Names of what `prepare` makes; weights of any size are loaded into these."""
        return tuple(f"encoder.{name}" for name in self.encoder.counted)

    @property
    def static(self) -> bool:
        """Whether the shapes of a step follow from the numbers of sessions and clicks alone."""
        looked_at = bool(self.max_norm) and self.scorer.unit_items  # norms of the items looked up: a wait
        return self.encoder.static and self.readout.static and not looked_at

    @property
    def distributed(self) -> bool:
        """Whether several processes train what one would: not where rows of a whole batch meet."""
        return self.encoder.distributed and self.readout.distributed and not self.max_norm

    @property
    def views(self) -> tuple[str, ...]:
        """Views of a batch that the encoder reads."""
        return self.encoder.views

    def parts(self) -> Parts:
        """Part -> names of its modules in this model."""
        halves = (("encoder", self.encoder), ("readout", self.readout))
        found = {
            part: tuple(f"{half}.{name}" for name in names)
            for half, module in halves
            for part, names in module.PARTS.items()
        }
        if self.fit is not None:
            found["transformation"] = (*found["transformation"], "fit")
        return found
