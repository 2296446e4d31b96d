"""SGNN-HN's encoder: a star graph with highway gates (Pan et al., CIKM'20, doi 10.1145/3340531.3412014)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.encoders.gated_graph import GatedGraphEncoder
from dissect.models.seams import Encoded
from mixer.segments import segment_softmax, segment_sum


class StarGraphEncoder(GatedGraphEncoder):
    """Gated graph steps, after each of which every node takes up the session's star node, and it them (Eq. 3-11).

    ``h <- (1 - a) h + a s`` with ``a = sigmoid(h . s / sqrt d)``; ``s <- softmax(h . s)``-weighted sum of h. The star
    starts as the mean of the nodes. A highway gate ``g = sigmoid(W [h0 || hL])`` mixes what came in, h0, with what
    came out: ``g h0 + (1 - g) hL``.

    Parameters
    ----------
    dim : int
        Width d.
    steps : int, default 6
    highway : bool, default True
        False leaves it out, as RecBole-GNN's version does.

    Notes
    -----
    The authors' code (bitbucket.org/nudtpanzq/sgnn-hn) could not be had. Of versions that follow it, RecBole-GNN's
    (632ef88858; ours equals it on the same weights) has no gate, and that of
    github.com/RickySkywalker/SR-PredictAO-official uses it as here. The paper has projections of h and s before their
    products, neither of these has; here there are none.
    """

    PARTS = {
        "propagation": ("edge_in", "edge_out"),
        "combination": ("cell.input", "cell.hidden", "highway"),
    }

    def __init__(self, dim: int, steps: int = 6, highway: bool = True) -> None:
        super().__init__(dim, steps)
        self.highway = nn.Linear(2 * dim, dim, bias=False) if highway else None
        if not highway:
            self.PARTS = {**GatedGraphEncoder.PARTS}

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each session's graph and star; ``nodes``, ``star`` and ``clicks`` of the result are set."""
        graph = batch.session_graph
        assert graph.session is not None
        first, table = self.embed(batch, table)  # (M, d)
        session = graph.session
        lengths = segment_sum(torch.ones_like(session), session, len(batch))  # `bincount` would wait for an accelerator
        h = first
        star = segment_sum(h, session, len(batch)) / lengths[:, None]
        for _ in range(self.steps):
            h = self.step(h, batch)
            of = star.index_select(0, session)
            share = torch.sigmoid((h * of).sum(1, keepdim=True) / math.sqrt(h.shape[1]))
            h = (1 - share) * h + share * of
            weights = segment_softmax((h * of).sum(1, keepdim=True), lengths, session)
            star = segment_sum(weights * h, session, len(batch))
        if self.highway is not None:
            gate = torch.sigmoid(self.highway(torch.cat([first, h], 1)))
            h = gate * first + (1 - gate) * h
        return Encoded(batch, h.index_select(0, graph.alias), table, nodes=h, star=star)
