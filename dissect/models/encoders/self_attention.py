"""Self-attention between a session's clicks, as an encoder of its own for the grid of halves."""

from __future__ import annotations

from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.blocks import SelfAttentionBlock
from dissect.models.gather import look_up
from dissect.models.pairs import all_pairs, places
from dissect.models.seams import Encoded, Encoder


class SelfAttentionEncoder(Encoder):
    """Items and places, then blocks of self-attention with residuals around them.

    ``h_i <- E_i + P_place(i)``, then ``H <- H + block(H)`` for each `SelfAttentionBlock`: GC-SAN's block (IJCAI'19, Eq.
    8-9), in which every click sees all of its session, on embedded places as in SASRec (arXiv 1808.09781), without
    that model's causal mask and layer norms. It is nobody's published model. Attention is the propagation; the
    feed-forward maps, where a click's own state meets what it gathered, are the combination.

    Parameters
    ----------
    dim : int
        Width d.
    layers : int, default 1
    positions : int, default 200
        Places that have an embedding; later ones share the last.
    """

    static = False

    def __init__(self, dim: int, layers: int = 1, positions: int = 200) -> None:
        super().__init__()
        if layers < 1 or positions < 1:
            raise ValueError(f"layers is {layers}, positions {positions}; both must be >= 1")
        self.position = nn.Embedding(positions, dim)
        self.blocks = nn.ModuleList(SelfAttentionBlock(dim) for _ in range(layers))
        self.PARTS = {
            "propagation": tuple(f"blocks.{i}.{name}" for i in range(layers) for name in SelfAttentionBlock.ATTENTION),
            "combination": tuple(f"blocks.{i}.{name}" for i in range(layers) for name in SelfAttentionBlock.FORWARD),
        }

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each click with all of its session."""
        items, table = look_up(table, batch.items)
        h = items + self.position(places(batch).clamp_max(self.position.num_embeddings - 1))
        pairs = all_pairs(batch.lengths)
        for block in self.blocks:
            h = h + block(h, pairs)
        return Encoded(batch, h, table)
