"""LESSR's readout: attention over the nodes of a session's graph (Chen and Wong, KDD'20, Section 4.5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.norm import BatchNorm
from dissect.models.seams import Encoded, Readout
from mixer.segments import segment_softmax, segment_sum


class GraphAttentionReadout(Readout):
    """``fc [x_last || prelu(W_out sum_i softmax(w . sigmoid(U x_i + V x_last)) x_i)]`` over distinct items.

    Batch normalisation and dropout before the attention and before the last map, as in the released code
    (github.com/twchen/lessr). Where an encoder has no nodes, clicks stand in.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        Width d of the query.
    dropout : float, default 0.2
    """

    static = False
    distributed = False  # batch normalisation is over one process's rows

    def __init__(self, dim: int, out: int | None = None, dropout: float = 0.2) -> None:
        super().__init__()
        out = out or dim
        self.norm = BatchNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.u = nn.Linear(dim, out, bias=False)
        self.v = nn.Linear(dim, out)
        self.energy = nn.Linear(out, 1, bias=False)
        self.pooled = nn.Linear(dim, out, bias=False) if out != dim else None
        self.activation = nn.PReLU(out)
        self.norm_both = BatchNorm(dim + out)
        self.both = nn.Linear(dim + out, out, bias=False)
        self.PARTS = {
            "attention": ("u", "v", "energy"),
            "transformation": ("both",) if self.pooled is None else ("pooled", "both"),
        }

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        batch, raw, session, last = _nodes(encoded)
        x = self.dropout(self.norm(raw))
        weights = self._weights(x, session, last, len(batch))
        pooled = segment_sum(weights * x, session, len(batch))
        if self.pooled is not None:
            pooled = self.pooled(pooled)
        both = torch.cat([raw.index_select(0, last), self.activation(pooled)], 1)
        return self.both(self.dropout(self.norm_both(both)))

    def attention(self, encoded: Encoded) -> Tensor:
        """Weight of each click's node, (T, 1)."""
        batch, raw, session, last = _nodes(encoded)
        weights = self._weights(self.norm(raw), session, last, len(batch))
        return weights if encoded.nodes is None else weights.index_select(0, batch.session_graph.alias)

    def _weights(self, x: Tensor, session: Tensor, last: Tensor, count: int) -> Tensor:
        of_last = self.v(x.index_select(0, last)).index_select(0, session)
        energy = self.energy(torch.sigmoid(self.u(x) + of_last))
        return segment_softmax(energy, torch.bincount(session, minlength=count), session)


def _nodes(encoded: Encoded) -> tuple[Batch, Tensor, Tensor, Tensor]:
    """Batch, states, their sessions and each session's last, over nodes where there are any, else over clicks."""
    batch = encoded.batch
    if encoded.nodes is None:
        return batch, encoded.clicks, batch.rows, batch.last
    graph = batch.session_graph
    assert graph.session is not None
    return batch, encoded.nodes, graph.session, graph.alias.index_select(0, batch.last)
