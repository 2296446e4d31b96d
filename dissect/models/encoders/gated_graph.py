"""A gated graph network over each session's graph: the encoder of SR-GNN (arXiv 1811.00855) and NISER+."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.batch import Batch
from dissect.models.gather import look_up
from dissect.models.recurrence import GRUCell
from dissect.models.seams import Encoded, Encoder
from mixer.segments import segment_sum


class GatedGraphEncoder(Encoder):
    """Messages along in- and out-edges, averaged by degree, combined by a gated recurrent unit (Eq. 1-5).

    For a node i with in-neighbours ``I`` and out-neighbours ``O``, each counted once,
    ``a_i = [mean_{j in I} (W_in h_j + c_in) + b_in || mean_{j in O} (W_out h_j + c_out) + b_out]``, a mean of none
    being zero; then ``h_i <- GRU(a_i, h_i)``, as in `dissect.models.recurrence.GRUCell`.

    Parameters
    ----------
    dim : int
        Width d.
    steps : int, default 1
        Propagation steps with shared weights.

    Notes
    -----
    SR-GNN's released code (github.com/CRIPAC-DIG/SR-GNN) has a further map, ``linear_edge_f``, that it never uses.
    """

    PARTS = {"propagation": ("edge_in", "edge_out"), "combination": ("cell.input", "cell.hidden")}
    views = ("session_graph",)

    def __init__(self, dim: int, steps: int = 1) -> None:
        super().__init__()
        if steps < 1:  # without a step nothing would propagate, unsaid; the encoder identity says so
            raise ValueError(f"steps is {steps}; it must be >= 1")
        self.steps = steps
        self.edge_in = nn.Linear(dim, dim)
        self.edge_out = nn.Linear(dim, dim)
        # Added after aggregation, so that a node without edges still has an input.
        self.bias_in = nn.Parameter(torch.zeros(dim))
        self.bias_out = nn.Parameter(torch.zeros(dim))
        self.cell = GRUCell(2 * dim, dim)

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each session's graph; ``nodes`` and ``clicks`` of the result are set."""
        h, table = self.embed(batch, table)
        for _ in range(self.steps):
            h = self.step(h, batch)
        return Encoded(batch, h.index_select(0, batch.session_graph.alias), table, nodes=h)

    def embed(self, batch: Batch, table: Tensor) -> tuple[Tensor, Tensor]:
        """States that the nodes start from, (M, d), and the table to score against."""
        return look_up(table, batch.session_graph.nodes)

    def step(self, h: Tensor, batch: Batch) -> Tensor:
        """One round of messages and one step of the unit: (M, d) -> (M, d)."""
        graph = batch.session_graph
        count = graph.nodes.numel()
        m_in = self.edge_in(h).index_select(0, graph.source) * graph.in_weight[:, None]  # (E, d)
        m_out = self.edge_out(h).index_select(0, graph.target) * graph.out_weight[:, None]
        a_in = segment_sum(m_in, graph.target, count) + self.bias_in
        a_out = segment_sum(m_out, graph.source, count) + self.bias_out
        return self.cell(torch.cat([a_in, a_out], 1), h)


class NormalisedGraphEncoder(GatedGraphEncoder):
    """The same from L2-normalised items, with dropout before: NISER+ (Gupta et al. 2019, arXiv 1909.04276).

    ``h_i = x_i / ||x_i||`` with ``x_i = dropout(E_i)``; then steps as above.

    Parameters
    ----------
    dim : int
        Width d.
    steps : int, default 1
    dropout : float, default 0.1
        Of the items' embeddings, in training.

    Notes
    -----
    Held to RecBole-GNN's niser.py (632ef88858). A version is about that computes the graph's output and then reads the
    items as they came in; this one reads the output.
    """

    def __init__(self, dim: int, steps: int = 1, dropout: float = 0.1) -> None:
        super().__init__(dim, steps)
        self.dropout = nn.Dropout(dropout)

    def embed(self, batch: Batch, table: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of the nodes' items, (M, d), and the table to score against."""
        h, table = super().embed(batch, table)
        return F.normalize(self.dropout(h), dim=1), table
