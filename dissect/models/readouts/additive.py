"""NARM's readout: additive attention and the last state, a bilinear decoder (Li et al., CIKM'17, arXiv 1711.04725)."""

from __future__ import annotations

from torch import Tensor, nn

from dissect.models.readouts.soft_attention import SoftAttentionReadout


class AdditiveReadout(SoftAttentionReadout):
    """``B [sum_j a_j h_j || h_t]`` with ``a_j = v . sigmoid(A_1 h_j + A_2 h_t)``, not normalised (Eq. 8-11).

    SR-GNN's has the same form, with biases and without dropout. A_1, A_2, v and B are w1, w2, q and w3 here; the last
    click goes through A_2, where SR-GNN has W1.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query, and so of the items.
    dropout : float, default 0.5
        Of what the decoder B reads.

    Notes
    -----
    The authors' code (github.com/lijingsdu/sessionRec_NARM) has hard sigmoids, and a softmax over the session that the
    equations lack; RecBole's has neither, nor has this.
    """

    BIAS = False

    def __init__(self, dim: int, out: int | None = None, dropout: float = 0.5) -> None:
        super().__init__(dim, out)
        self.dropout = nn.Dropout(dropout)

    @property
    def maps(self) -> tuple[nn.Module, nn.Module]:
        """A_2, of the last click, and A_1, of each."""
        return self.w2, self.w1

    def transform(self, both: Tensor) -> Tensor:
        """The query of what is left of both after dropout."""
        return super().transform(self.dropout(both))
