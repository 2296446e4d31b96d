"""The one batch type: packed clicks, and the views of them that encoders ask for.

A batch of B sessions with T clicks in all is three flat tensors, never a padded rectangle: prefixes of
Diginetica are 4-5 clicks long on average and 69 at most, so padding would be nine tenths of the work.
Every view is built for the whole batch by tensor operations on the batch's own device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


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
    """

    nodes: Tensor
    alias: Tensor
    source: Tensor
    target: Tensor
    in_weight: Tensor
    out_weight: Tensor


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
    """

    items: Tensor
    offsets: Tensor
    targets: Tensor | None = None

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

    @cached_property
    def session_graph(self) -> SessionGraph:
        """The graph of each session; see :class:`SessionGraph`."""
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
        return SessionGraph(keys % span, alias, source, target, in_weight, out_weight)


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
