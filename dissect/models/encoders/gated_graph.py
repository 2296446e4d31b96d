"""SR-GNN's encoder: a gated graph network over each session's graph (Wu et al., AAAI'19, arXiv 1811.00855)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.gather import look_up
from dissect.models.seams import Encoded, Encoder
from mixer.segments import segment_sum


class GRUCell(nn.Module):
    """A gated recurrent unit whose two maps are plain linear layers, so that each can be wrapped by name.

    The formula is that of `torch.nn.GRUCell`: with ``(r, z, n)`` the three thirds of the maps' outputs,
    ``n = tanh(i_n + sigmoid(i_r + h_r) * h_n)`` and ``h' = n + sigmoid(i_z + h_z) * (h - n)``.

    Parameters
    ----------
    inputs, hidden : int
        Widths of the input and of the state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 3 * hidden)
        self.hidden = nn.Linear(hidden, 3 * hidden)

    def forward(self, a: Tensor, h: Tensor) -> Tensor:
        """One step: input `a` (M, inputs), state `h` (M, hidden) -> (M, hidden)."""
        i_r, i_z, i_n = self.input(a).chunk(3, 1)
        h_r, h_z, h_n = self.hidden(h).chunk(3, 1)
        n = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
        return n + torch.sigmoid(i_z + h_z) * (h - n)


class GatedGraphEncoder(Encoder):
    """Messages along in- and out-edges, averaged by degree, combined by a gated recurrent unit (Eq. 1-5).

    Parameters
    ----------
    dim : int
        Width d.
    steps : int, default 1
        Propagation steps with shared weights.
    """

    PARTS = {"propagation": ("edge_in", "edge_out"), "combination": ("cell.input", "cell.hidden")}
    views = ("session_graph",)

    def __init__(self, dim: int, steps: int = 1) -> None:
        super().__init__()
        self.steps = steps
        self.edge_in = nn.Linear(dim, dim)
        self.edge_out = nn.Linear(dim, dim)
        # Added after aggregation, so that a node without edges still has an input.
        self.bias_in = nn.Parameter(torch.zeros(dim))
        self.bias_out = nn.Parameter(torch.zeros(dim))
        self.cell = GRUCell(2 * dim, dim)

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each session's graph; ``nodes`` and ``clicks`` of the result are set."""
        graph = batch.session_graph
        h, table = look_up(table, graph.nodes)  # (M, d)
        count = graph.nodes.numel()
        for _ in range(self.steps):
            m_in = self.edge_in(h).index_select(0, graph.source) * graph.in_weight[:, None]  # (E, d)
            m_out = self.edge_out(h).index_select(0, graph.target) * graph.out_weight[:, None]
            a_in = segment_sum(m_in, graph.target, count) + self.bias_in
            a_out = segment_sum(m_out, graph.source, count) + self.bias_out
            h = self.cell(torch.cat([a_in, a_out], 1), h)
        return Encoded(batch, h.index_select(0, graph.alias), table, nodes=h)
