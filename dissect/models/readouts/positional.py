"""SR-GNN's attention with embeddings of the places: NISER+'s readout (arXiv 1909.04276), and SGNN-HN's with a star."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.models.pairs import places
from dissect.models.readouts.soft_attention import SoftAttentionReadout
from dissect.models.seams import Encoded
from mixer.segments import segment_sum


class PositionalAttentionReadout(SoftAttentionReadout):
    """Soft attention over states to which the embedding of their place in the session is added (NISER+, Section 4.3).

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query.
    positions : int, default 200
        Places that have an embedding, counted from the first click; later ones share the last.
    """

    def __init__(self, dim: int, out: int | None = None, positions: int = 200) -> None:
        super().__init__(dim, out)
        if positions < 1:
            raise ValueError(f"positions is {positions}; it must be >= 1")
        self.position = nn.Embedding(positions, dim)

    def states(self, encoded: Encoded) -> Tensor:
        """Hidden states with their places, (T, dim)."""
        place = places(encoded.batch).clamp_max(self.position.num_embeddings - 1)
        return encoded.clicks + self.position(place)


class StarAttentionReadout(PositionalAttentionReadout):
    """The same with the session's star in it: ``a_i = q . sigmoid(W1 h_n + W2 h_i + W_star s)`` (SGNN-HN, Eq. 13).

    Where an encoder has no star, the mean of the states stands in.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query.
    positions : int, default 200
    """

    PARTS = {"attention": ("w1", "w2", "w_star", "q"), "transformation": ("w3",)}

    def __init__(self, dim: int, out: int | None = None, positions: int = 200) -> None:
        super().__init__(dim, out, positions)
        self.w_star = nn.Linear(dim, dim)

    def weights(self, h: Tensor, encoded: Encoded) -> Tensor:
        """``a_i`` of each click, (T, 1)."""
        batch, star = encoded.batch, encoded.star
        if star is None:
            star = segment_sum(encoded.clicks, batch.rows, len(batch)) / batch.lengths[:, None]
        of_session = self.w1(h.index_select(0, batch.last)) + self.w_star(star)
        return self.q(torch.sigmoid(of_session.index_select(0, batch.rows) + self.w2(h)))
