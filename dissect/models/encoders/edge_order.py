"""LESSR's encoder: edge-order preserving aggregation and shortcut attention (Chen and Wong, KDD'20)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dissect.batch import Batch
from dissect.models.gather import look_up
from dissect.models.norm import BatchNorm
from dissect.models.pairs import Arrivals, Pairs, arrivals, shortcut_pairs
from dissect.models.recurrence import GRUCell, run_cell
from dissect.models.seams import Encoded, Encoder


class EdgeOrderLayer(nn.Module):
    """EOPA (Eq. 3): a GRU over the nodes that each node was reached from, in time order.

    ``prelu(W_self x + W_neigh GRU(x of the sources))``. The GRU reads x after dropout, W_self before, as in the
    released code.

    Parameters
    ----------
    inputs, dim : int
        Widths of what comes in and goes out.
    dropout : float
    """

    def __init__(self, inputs: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(inputs)
        self.dropout = nn.Dropout(dropout)
        self.cell = GRUCell(inputs, inputs)
        self.own = nn.Linear(inputs, dim, bias=False)
        self.neighbours = nn.Linear(inputs, dim, bias=False)
        self.activation = nn.PReLU(dim)

    def forward(self, x: Tensor, reached: Arrivals) -> Tensor:
        """(M, inputs) -> (M, dim)."""
        x = self.norm(x)
        out = self.own(x)
        if reached.node.numel():
            _, last = run_cell(self.cell, self.dropout(x).index_select(0, reached.source), reached.lengths)
            out = out.index_add(0, reached.node, self.neighbours(last))
        return self.activation(out)


class ShortcutLayer(nn.Module):
    """SGAT (Eq. 5): attention of each node over all that were clicked no later, ``softmax(w . sigmoid(q + k))``.

    Parameters
    ----------
    inputs, dim : int
        Widths of what comes in and goes out.
    dropout : float
    """

    def __init__(self, inputs: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(inputs)
        self.dropout = nn.Dropout(dropout)
        # In the released code the source of an edge has the query, and its bias, the gathering node the key.
        self.query = nn.Linear(inputs, dim)
        self.key = nn.Linear(inputs, dim, bias=False)
        self.value = nn.Linear(inputs, dim, bias=False)
        self.energy = nn.Linear(dim, 1, bias=False)
        self.activation = nn.PReLU(dim)

    def forward(self, x: Tensor, pairs: Pairs) -> Tensor:
        """(M, inputs) -> (M, dim)."""
        x = self.dropout(self.norm(x))
        both = self.query(x).index_select(0, pairs.key) + self.key(x).index_select(0, pairs.query)
        weights = pairs.softmax(self.energy(torch.sigmoid(both)))
        return self.activation(pairs.gather(weights, self.value(x)))


class EdgeOrderEncoder(Encoder):
    """EOPA and SGAT layers in turn, each reading all that came before it, side by side (Section 4.4).

    Parameters
    ----------
    dim : int
        Width d of the items and of each layer.
    layers : int, default 4
    dropout : float, default 0.2

    Notes
    -----
    ``clicks`` and ``nodes`` have the width (layers + 1) d. Released code: github.com/twchen/lessr.
    """

    views = ("session_graph",)
    static = False
    distributed = False  # batch normalisation is over one process's rows

    def __init__(self, dim: int, layers: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers is {layers}; it must be >= 1")
        kinds = (EdgeOrderLayer, ShortcutLayer)
        self.layers = nn.ModuleList(kinds[i % 2](dim * (i + 1), dim, dropout) for i in range(layers))
        self.width = dim * (layers + 1)
        order, shortcut = range(0, layers, 2), range(1, layers, 2)
        self.PARTS = {
            "propagation": (
                *(f"layers.{i}.cell.{name}" for i in order for name in ("input", "hidden")),
                *(f"layers.{i}.{name}" for i in shortcut for name in ("query", "key", "value", "energy")),
            ),
            "combination": tuple(f"layers.{i}.{name}" for i in order for name in ("own", "neighbours")),
        }

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each session's two graphs; ``nodes`` and ``clicks`` of the result are set."""
        graph = batch.session_graph
        x, table = look_up(table, graph.nodes)
        reached = arrivals(batch)
        pairs = shortcut_pairs(batch) if len(self.layers) > 1 else None
        for layer in self.layers:
            x = torch.cat([layer(x, reached if isinstance(layer, EdgeOrderLayer) else pairs), x], 1)
        return Encoded(batch, x.index_select(0, graph.alias), table, nodes=x)
