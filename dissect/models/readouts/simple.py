"""Readouts without attention: the last item, the mean of all, and both through a linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.models.pairs import places_from_last
from dissect.models.seams import Encoded, Readout
from mixer.attention import divisors
from mixer.segments import segment_softmax, segment_sum


class LastItemReadout(Readout):
    """The hidden state of the last click; no parameters.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        As for every readout; the query keeps the width of the states.
    """

    def __init__(self, dim: int, out: int | None = None) -> None:
        super().__init__()
        self.width = dim

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


class LastLinearReadout(Readout):
    """The hidden state of the last click through a linear map: what NextItNet scores items by (arXiv 1808.05163).

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query.
    """

    PARTS = {"attention": (), "transformation": ("w",)}

    def __init__(self, dim: int, out: int | None = None) -> None:
        super().__init__()
        self.w = nn.Linear(dim, out or dim)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        return self.w(encoded.clicks.index_select(0, encoded.batch.last))


class MeanLastReadout(Readout):
    """``W_m [L2(mean) || h_n]``: Atten-Mixer with every attention weight equal, and so without its maps.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query.
    output : {"linear", "residual"}
        ``residual`` adds the mean itself, as Atten-Mixer's option of that name does.
    positions : int
        Where positive, weights are not equal but learnt for each of the last `positions` places of a session, the same
        in every session: what a position bias does without any content.
    heads : int
        Slices with weights of their own, where there are positions.
    """

    PARTS = {"attention": (), "transformation": ("w_m",)}

    def __init__(
        self, dim: int, out: int | None = None, output: str = "linear", positions: int = 0, heads: int = 8
    ) -> None:
        super().__init__()
        if output not in ("linear", "residual"):
            raise ValueError(f"unknown output {output!r}; choose from: linear, residual")
        if positions < 0:
            raise ValueError(f"positions is {positions}; it must be >= 0")
        if positions and (heads < 1 or dim % heads):
            raise ValueError(f"heads is {heads}; it must divide the width {dim}: {divisors(dim)}")
        self.output, self.heads = output, heads
        self.position = nn.Embedding(positions, heads) if positions else None
        self.width = dim if output == "residual" else None  # what is added has the width of the states
        self.w_m = nn.Linear(2 * dim, self.width or out or dim, bias=False)

    def start(self) -> None:
        """Let the weights of places start equal."""
        if self.position is not None:
            nn.init.zeros_(self.position.weight)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch = encoded.batch
        hidden = F.normalize(encoded.clicks, dim=1)
        weights = self.attention(encoded)
        weighted = (
            hidden if weights is None else hidden.unflatten(1, (self.heads, -1)).mul(weights[..., None]).flatten(1)
        )
        pooled = F.normalize(segment_sum(weighted, batch.rows, len(batch)), dim=1)
        mapped = self.w_m(torch.cat([pooled, hidden.index_select(0, batch.last)], 1))
        return pooled + mapped if self.output == "residual" else mapped

    def attention(self, encoded: Encoded) -> Tensor | None:
        """Weight of each click and head, (T, H), by its place alone; None where all are equal."""
        if self.position is None:
            return None
        batch = encoded.batch
        bias = self.position(places_from_last(batch).clamp_max(self.position.num_embeddings - 1))
        return segment_softmax(bias, batch.lengths, batch.rows)
