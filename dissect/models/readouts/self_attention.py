"""GC-SAN's readout: self-attention blocks, of which the last click's state is read (Xu et al., IJCAI'19)."""

from __future__ import annotations

from torch import Tensor, nn

from dissect.models.blocks import SelfAttentionBlock
from dissect.models.pairs import all_pairs
from dissect.models.seams import Encoded, Readout


class SelfAttentionReadout(Readout):
    """``w a_n + (1 - w) h_n``: the last click's state after the blocks, and before them (Eq. 8-11).

    Parameters
    ----------
    dim : int
        Width d.
    out : int, optional
        As for every readout; the query keeps the width of the states.
    blocks : int, default 1
    weight : float, default 0.6
        w, in [0, 1].
    dropout : float, default 0.2
    """

    static = False

    def __init__(
        self, dim: int, out: int | None = None, blocks: int = 1, weight: float = 0.6, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if blocks < 1 or not 0 <= weight <= 1:
            raise ValueError(f"blocks is {blocks}, weight {weight}; they must be >= 1 and in [0, 1]")
        self.width, self.weight = dim, weight
        self.blocks = nn.ModuleList(SelfAttentionBlock(dim, dropout) for _ in range(blocks))
        self.PARTS = {
            "attention": tuple(f"blocks.{i}.{name}" for i in range(blocks) for name in SelfAttentionBlock.ATTENTION),
            "transformation": tuple(f"blocks.{i}.{n}" for i in range(blocks) for n in SelfAttentionBlock.FORWARD),
        }

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, width of the states)."""
        batch, h = encoded.batch, encoded.clicks
        pairs = all_pairs(batch.lengths)
        attended = h
        for block in self.blocks:
            attended = block(attended, pairs)
        read = self.weight * attended + (1 - self.weight) * h
        return read.index_select(0, batch.last)

    def attention(self, encoded: Encoded) -> Tensor:
        """What the last click gives to each click in the last block, (T, 1)."""
        batch, h = encoded.batch, encoded.clicks
        pairs = all_pairs(batch.lengths)
        for block in self.blocks[:-1]:
            h = block(h, pairs)
        of_last = pairs.query == batch.last.index_select(0, batch.rows).index_select(0, pairs.query)
        last = self.blocks[-1]
        assert isinstance(last, SelfAttentionBlock)
        return last.weights(h, pairs)[of_last]
