"""Pairs of clicks, and of nodes, within the sessions of a batch: what attention and other dense graphs run over.

Sessions are short (4-5 clicks on average), so that all pairs of a batch are few: a padded square of scores for each
session would be many times as large.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dissect.batch import Batch
from mixer.segments import segment_softmax, segment_sum


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, ordered by the row that gathers.

    Attributes
    ----------
    query, key : Tensor, (P,) int64
        Row that gathers, and row that it gathers from.
    lengths : Tensor, (Q,) int64
        Pairs of each row that gathers; none has none.
    """

    query: Tensor
    key: Tensor
    lengths: Tensor

    def softmax(self, logits: Tensor) -> Tensor:
        """Softmax of (P, H) over the pairs of each gathering row."""
        return segment_softmax(logits, self.lengths, self.query)

    def gather(self, weights: Tensor, values: Tensor) -> Tensor:
        """Sum over the pairs of each gathering row of weight, (P, 1), times value, rows of (., d): (Q, d)."""
        return segment_sum(weights * values.index_select(0, self.key), self.query, self.lengths.numel())

    def rectangle(self, values: Tensor, fill: float) -> Tensor:
        """Values of the pairs, (P,), as a rectangle of one line for each gathering row, (Q, longest), filled up."""
        longest = int(self.lengths.max())
        place = torch.arange(self.query.numel(), device=values.device) - self._first.index_select(0, self.query)
        out = values.new_full((self.lengths.numel() * longest,), fill)
        return out.index_copy(0, self.query * longest + place, values).view(-1, longest)

    def packed(self, rectangle: Tensor) -> Tensor:
        """The pairs' values, (P,), from such a rectangle."""
        longest = rectangle.shape[1]
        place = torch.arange(self.query.numel(), device=rectangle.device) - self._first.index_select(0, self.query)
        return rectangle.reshape(-1).index_select(0, self.query * longest + place)

    @property
    def _first(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths


def all_pairs(lengths: Tensor) -> Pairs:
    """Every ordered pair of rows in the same segment, itself included, of segments of `lengths`, (B,) int64."""
    count = int(lengths.sum())
    own = torch.repeat_interleave(lengths, lengths, output_size=count)  # length of each row's segment
    first = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths, output_size=count)
    return _pairs(own, first)


def earlier_pairs(batch: Batch) -> Pairs:
    """Every click with itself and each earlier one of its session."""
    first = batch.offsets[:-1].index_select(0, batch.rows)
    clicks = torch.arange(batch.items.numel(), device=batch.items.device)
    return _pairs(clicks - first + 1, first)


def _pairs(lengths: Tensor, first: Tensor) -> Pairs:
    """`lengths` keys, from `first` on, for each row."""
    rows = torch.arange(lengths.numel(), device=lengths.device)
    query = torch.repeat_interleave(rows, lengths)
    shift = (first - (lengths.cumsum(0) - lengths)).index_select(0, query)
    return Pairs(query, torch.arange(query.numel(), device=query.device) + shift, lengths)


def shortcut_pairs(batch: Batch) -> Pairs:
    """Every node with each distinct node that was clicked no later: LESSR's shortcut graph (Section 4.3.2).

    There is a pair where some click of the gathering node comes after, or is, some click of the other.
    """
    graph, clicks = batch.session_graph, earlier_pairs(batch)
    count = graph.nodes.numel()
    edges = torch.unique(graph.walk[clicks.query] * count + graph.walk[clicks.key])
    query = torch.div(edges, count, rounding_mode="floor")
    return Pairs(query, edges - query * count, torch.bincount(query, minlength=count))


@dataclass(frozen=True)
class Arrivals:
    """The clicks that each node was reached from, in time order: LESSR's edge-order preserving multigraph.

    Attributes
    ----------
    node : Tensor, (N,) int64
        Nodes that were reached from another click, ascending.
    source : Tensor, (E,) int64
        Nodes that they were reached from, node after node, oldest first.
    lengths : Tensor, (N,) int64
        Sources of each node.
    """

    node: Tensor
    source: Tensor
    lengths: Tensor


def arrivals(batch: Batch) -> Arrivals:
    """See :class:`Arrivals`."""
    walk = batch.session_graph.walk
    joined = (batch.rows[1:] == batch.rows[:-1]).nonzero().squeeze(1)
    target = walk[joined + 1]
    order = target.argsort(stable=True)
    node, lengths = torch.unique_consecutive(target[order], return_counts=True)
    return Arrivals(node, walk[joined[order]], lengths)


def places(batch: Batch) -> Tensor:
    """Place of each click in its session, (T,) int64, the first at 0."""
    return torch.arange(batch.items.numel(), device=batch.items.device) - batch.offsets[:-1].index_select(0, batch.rows)


def places_from_last(batch: Batch) -> Tensor:
    """Place of each click counted from the last one, (T,) int64, which is at 0."""
    clicks = torch.arange(batch.items.numel(), device=batch.items.device)
    return batch.last.index_select(0, batch.rows) - clicks
