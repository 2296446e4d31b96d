"""GC-SAN's readout: self-attention blocks, of which the last click's state is read (Xu et al., IJCAI'19).

doi 10.24963/ijcai.2019/547.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.blocks import SelfAttentionBlock
from dissect.models.pairs import Pairs, all_pairs
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

    Notes
    -----
    No code of the authors' was found. A public version (github.com/johnny12150/GC-SAN, 6231d3e1a7) has biases in the
    attention and a map of its result, one block used over and over, and attention to the padding. The paper has none of
    these: here blocks have weights of their own, and nothing is padded. Without them that version equals this on the
    same weights.
    """

    def __init__(
        self, dim: int, out: int | None = None, blocks: int = 1, weight: float = 0.6, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if blocks < 1 or not 0 <= weight <= 1:
            raise ValueError(f"blocks is {blocks}, weight {weight}; they must be >= 1 and in [0, 1]")
        self.width, self.weight = dim, weight
        self.static = blocks == 1  # all pairs of a batch are as many as its sessions' lengths make them
        self.blocks = nn.ModuleList(SelfAttentionBlock(dim, dropout) for _ in range(blocks))
        self.PARTS = {
            "attention": tuple(f"blocks.{i}.{name}" for i in range(blocks) for name in SelfAttentionBlock.ATTENTION),
            "transformation": tuple(f"blocks.{i}.{n}" for i in range(blocks) for n in SelfAttentionBlock.FORWARD),
        }

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, width of the states)."""
        batch = encoded.batch
        attended = self.blocks[-1](self._before_last(encoded), _of_last(batch), batch.last)
        return self.weight * attended + (1 - self.weight) * encoded.clicks.index_select(0, batch.last)

    def attention(self, encoded: Encoded) -> Tensor:
        """What the last click gives to each click in the last block, (T, 1)."""
        last, batch = self.blocks[-1], encoded.batch
        assert isinstance(last, SelfAttentionBlock)
        return last.weights(self._before_last(encoded), _of_last(batch), batch.last)

    def _before_last(self, encoded: Encoded) -> Tensor:
        """What the last block reads, (T, d)."""
        h = encoded.clicks
        if len(self.blocks) > 1:
            pairs = all_pairs(encoded.batch.lengths)
            for block in self.blocks[:-1]:
                h = block(h, pairs)
        return h


def _of_last(batch: Batch) -> Pairs:
    """Each session's last click with all of its clicks: of the last block no other click's state is read."""
    return Pairs(batch.rows, torch.arange(batch.items.numel(), device=batch.items.device), batch.lengths)
