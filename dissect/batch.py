"""The one batch type: packed clicks, and the views of them that encoders ask for.

A batch of B sessions with T clicks in all is three flat tensors, never a padded rectangle: prefixes of
Diginetica are 4-5 clicks long on average and 69 at most, so padding would be nine tenths of the work.
Every view is built for the whole batch by tensor operations on the batch's own device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

_ODD = -7046029254386353131  # 2^64 over the golden ratio, as a signed number


@dataclass(frozen=True)
class SessionGraph:
    """The session graphs of a batch (SR-GNN, arXiv 1811.00855, Section 3.2), disjoint and packed.

    Attributes
    ----------
    nodes : Tensor, (M,) int64
        Item of each node; a session has one node for each distinct item.
    alias : Tensor, (T,) int64
        Node of each click.
    source, target : Tensor, (E,) int64
        Distinct directed edges between consecutive clicks, as node numbers.
    in_weight, out_weight : Tensor, (E,) float32
        ``1 / in-degree(target)`` and ``1 / out-degree(source)``.
    session : Tensor, (M,) int64, optional
        Session of each node.
    order : Tensor, (T,) int64, optional
        Nodes of each session in the order that the edges follow, where that is not the clicks' own.
    """

    nodes: Tensor
    alias: Tensor
    source: Tensor
    target: Tensor
    in_weight: Tensor
    out_weight: Tensor
    session: Tensor | None = None
    order: Tensor | None = None

    @property
    def walk(self) -> Tensor:
        """Node of each step along the edges, (T,): the clicks', session by session."""
        return self.alias if self.order is None else self.order


@dataclass(frozen=True)
class Batch:
    """B packed sessions.

    Parameters
    ----------
    items : Tensor, (T,) int64
        Clicked items, session after session, in click order; ids 0 .. items - 1.
    offsets : Tensor, (B + 1,) int64
        Session b is ``items[offsets[b]:offsets[b + 1]]``; no session is empty.
    targets : Tensor, (B,) int64, optional
        The item that followed.
    span : int, optional
        A number above every id. Where it is given the views have shapes that depend on T alone, and building them
        never waits for the device: see `PackedExamples.static_batch`.
    window : int
        Clicks to which the sessions of a static batch were cut; 0 for all.
    """

    items: Tensor
    offsets: Tensor
    targets: Tensor | None = None
    span: int | None = None
    window: int = 0

    @classmethod
    def from_lists(cls, sessions: list[list[int]], targets: list[int] | None = None, device: str = "cpu") -> Batch:
        """Pack Python lists; for tests, examples and single recommendations."""
        lengths = torch.tensor([0] + [len(s) for s in sessions])
        items = torch.tensor([i for s in sessions for i in s], dtype=torch.int64)
        aims = None if targets is None else torch.tensor(targets, dtype=torch.int64).to(device)
        return cls(items.to(device), lengths.cumsum(0).to(device), aims)

    def __len__(self) -> int:
        return self.offsets.numel() - 1

    @cached_property
    def lengths(self) -> Tensor:
        """Clicks in each session, (B,) int64."""
        return self.offsets.diff()

    @cached_property
    def rows(self) -> Tensor:
        """Session of each click, (T,) int64."""
        every = torch.arange(len(self), device=self.items.device)
        return torch.repeat_interleave(every, self.lengths, output_size=self.items.numel())

    @cached_property
    def last(self) -> Tensor:
        """Position of each session's last click in the packed order, (B,) int64."""
        return self.offsets[1:] - 1

    def tail(self, window: int) -> Batch:
        """The last `window` clicks of each session, or all where there are fewer; a static batch was cut when made."""
        if self.span is not None:
            if self.window != window:
                raise ValueError(f"a static batch was cut to {self.window or 'all'} clicks; asked for are {window}")
            return self
        if int(self.lengths.max()) <= window:
            return self
        kept = self.lengths.clamp_max(window)
        offsets = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
        count = int(offsets[-1])
        shift = torch.repeat_interleave(self.offsets[1:] - offsets[1:], kept, output_size=count)
        items = self.items.index_select(0, torch.arange(count, device=shift.device) + shift)
        return Batch(items, offsets, self.targets, self.span)

    def keys(self) -> Tensor:
        """A number for each session, (B,) int64, that follows from its clicks and their order alone."""
        return self._keys

    @cached_property
    def _keys(self) -> Tensor:
        scrambled = (self.items + 1) * _ODD
        place = torch.arange(self.items.numel(), device=self.items.device) - self.offsets[:-1][self.rows]
        scrambled = (scrambled ^ ((scrambled >> 29) & 0x7FFFFFFFF)) * (2 * place + 1)  # wraps around: a hash
        total = torch.zeros(len(self), dtype=torch.int64, device=self.items.device)
        return total.index_add_(0, self.rows, scrambled)

    def session_of(self, count: int) -> Tensor | None:
        """Session of each of `count` rows, (count,) int64, as an encoder or a readout has them; None for other numbers.

        Sessions, clicks and nodes of the session graph are told apart by how many there are. Where two of these numbers
        are equal, so are the sessions of their rows; other rows must not be as many (give them an axis of sessions).
        In a static batch nodes are as many as clicks, and of other sessions: None.
        """
        if self.span is not None:
            return None
        if count == len(self):
            return torch.arange(count, device=self.items.device)
        if count == self.items.numel():
            return self.rows
        nodes = self.session_graph.session
        return nodes if nodes is not None and count == nodes.numel() else None

    @cached_property
    def session_graph(self) -> SessionGraph:
        """The graph of each session; see :class:`SessionGraph`."""
        if self.span is not None:
            return _static_graph(self.rows, self.items, self.span, len(self) - 1)
        rows, items = self.rows, self.items
        span = int(items.max()) + 1
        # One sorted unique over (session, item) numbers the nodes of every session at once.
        keys, alias = torch.unique(rows * span + items, return_inverse=True)
        joined = rows[1:] == rows[:-1]
        count = keys.numel()
        edges = torch.unique((alias[:-1] * count + alias[1:])[joined])
        source = torch.div(edges, count, rounding_mode="floor")
        target = edges - source * count
        in_weight = torch.bincount(target, minlength=count)[target].float().reciprocal()
        out_weight = torch.bincount(source, minlength=count)[source].float().reciprocal()
        session = torch.div(keys, span, rounding_mode="floor")
        return SessionGraph(keys - session * span, alias, source, target, in_weight, out_weight, session)


def shuffled_graph(batch: Batch, generator: torch.Generator) -> SessionGraph:
    """The session graphs of the same clicks in random order: the nodes stay, the edges say nothing.

    Parameters
    ----------
    batch : Batch
        Not a static one.
    generator : torch.Generator
        On the CPU; draws the order of each session's clicks.
    """
    order = torch.rand(batch.items.numel(), generator=generator).to(batch.items.device)
    shuffled = (batch.rows + order * 0.999).argsort()  # sorts within sessions
    graph = Batch(batch.items[shuffled], batch.offsets).session_graph
    # Nodes are in the order of items in both.
    return replace(graph, alias=batch.session_graph.alias, order=graph.alias)


def numbered(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number the distinct keys in ascending order, without a look at how many there are, which would wait.

    Returns
    -------
    ascending, place, number : Tensor, (N,) int64
        The keys in order, the number of each of these, and the number of each key as it was given.
    """
    ascending, order = torch.sort(keys)
    place = torch.cat([keys.new_zeros(1), (ascending.diff() != 0).long()]).cumsum(0)
    return ascending, place, torch.empty_like(place).scatter_(0, order, place)


def _static_graph(rows: Tensor, items: Tensor, span: int, padding: int) -> SessionGraph:
    """Session graphs with T nodes and T - 1 edges, whatever the sessions.

    Nodes past the last distinct one are left over: no click and no edge refers to them, and they count as nodes of the
    session `padding`, the last. Repeated edges, and those that would join two sessions, are there with weight 0.
    """
    count = items.numel()
    keys, place, alias = numbered(rows * span + items)  # `place`: node of each sorted click
    nodes = torch.zeros_like(place).scatter_(0, place, keys % span)
    session = torch.full_like(place, padding).scatter_(0, place, torch.div(keys, span, rounding_mode="floor"))
    joined = rows[1:] == rows[:-1]
    edges = torch.sort(torch.where(joined, alias[:-1] * count + alias[1:], count * count)).values
    first = torch.cat([edges.new_ones(1), (edges.diff() != 0).long()])[: edges.numel()]
    weight = (first * (edges < count * count)).float()
    source = torch.div(edges, count, rounding_mode="floor").clamp_max_(count - 1)
    target = edges % count
    in_degree = weight.new_zeros(count).index_add_(0, target, weight).clamp_min_(1)
    out_degree = weight.new_zeros(count).index_add_(0, source, weight).clamp_min_(1)
    return SessionGraph(nodes, alias, source, target, weight / in_degree[target], weight / out_degree[source], session)


class PackedExamples:
    """All examples of a split, resident on one device, from which batches are gathered.

    Parameters
    ----------
    clicks : Tensor, (C,) integer
        Flat clicks of all sessions.
    start, end : Tensor, (N,) integer
        Example i is the prefix ``clicks[start[i]:end[i]]`` with target ``clicks[end[i]]``.
    """

    def __init__(self, clicks: Tensor, start: Tensor, end: Tensor, device: torch.device | str = "cpu") -> None:
        self.clicks = clicks.to(device=device, dtype=torch.int64)
        self.start = start.to(device=device, dtype=torch.int64)
        self.end = end.to(device=device, dtype=torch.int64)

    def __len__(self) -> int:
        return self.start.numel()

    def batch(self, index: Tensor) -> Batch:
        """Gather the examples numbered by `index`, (B,) int64, as one packed batch."""
        start, end = self.start[index], self.end[index]
        offsets = torch.zeros(index.numel() + 1, dtype=torch.int64, device=index.device)
        torch.cumsum(end - start, 0, out=offsets[1:])
        total = int(offsets[-1])
        shift = torch.repeat_interleave(start - offsets[:-1], end - start, output_size=total)
        positions = torch.arange(total, device=index.device).add_(shift)
        return Batch(self.clicks[positions], offsets, self.clicks[end])

    def static_batch(self, index: Tensor, size: int, window: int = 0) -> Batch:
        """As `batch`, with exactly `size` clicks and B + 1 sessions, the last of which is padding.

        Every tensor has a shape known beforehand, and nothing waits for the device, so that a training step on it can
        be captured once and replayed. `targets` has the B real sessions only.

        Parameters
        ----------
        index : Tensor, (B,) int64
        size : int
            More than the clicks of the B examples together.
        window : int
            Where positive, only the last `window` clicks of an example count.
        """
        zero = index.new_zeros(1)
        start, end = self.start[index], self.end[index]
        start = torch.cat([torch.maximum(start, end - window) if window else start, zero])
        offsets = torch.cat([zero, torch.cumsum(end - start[:-1], 0), zero + size])
        shift = torch.repeat_interleave(start - offsets[:-1], offsets.diff(), output_size=size)
        positions = torch.arange(size, device=index.device).add_(shift).clamp_max_(self.clicks.numel() - 1)
        return Batch(self.clicks[positions], offsets, self.clicks[end], self.span, window)

    @cached_property
    def span(self) -> int:
        """One more than the largest item id."""
        return int(self.clicks.max()) + 1

    @cached_property
    def host_lengths(self) -> Tensor:
        """Clicks of each example, (N,) int64, on the CPU: what a batch will hold is known before it is made."""
        return (self.end - self.start).cpu()
