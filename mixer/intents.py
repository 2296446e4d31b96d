"""Multi-level user intents: queries from the last 1, 2, ... L items (Atten-Mixer, arXiv 2206.12781, Eq. 6)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mixer import checks

#: Kind of intent -> what it is.
INTENTS = {
    "sets": "W_l of the sum of the last l items (Eq. 6)",
    "all": "W_l of the sum of all items: ablation -IP, no inherent priority",
    "concatenated": "W_l of the last l items side by side: ablation -LI, no local invariance",
    "subsets": "W_l of the sum of every subset of l items: -pr (Section 4.3), neither bias; exponential in n",
}
#: Longest session from whose items every subset is taken: 1,023 queries.
MOST_SUBSETS = 10


class Intents(nn.Module):
    """Queries of each session, one a level.

    Parameters
    ----------
    dim : int
        Width d.
    levels : int
        L. Under ``subsets`` the largest subset, and at least the longest session.
    kind : str
        A key of `INTENTS`.
    bias : bool
        Whether the W_l have biases; the released code's have.

    Notes
    -----
    A session of n < L items repeats its full sum at the levels above n, each with that level's own W_l: "we consider
    all items in them" (Section 4.2.1).
    """

    def __init__(self, dim: int, levels: int, kind: str = "sets", bias: bool = False) -> None:
        super().__init__()
        checks.whole("dim", dim)
        checks.whole("levels", levels)
        checks.choice("intents", kind, INTENTS)
        checks.flag("bias", bias)
        if kind == "subsets" and levels > MOST_SUBSETS:
            raise ValueError(f"levels is {levels}; intents from every subset are offered up to {MOST_SUBSETS} items")
        self.dim, self.levels, self.kind = dim, levels, kind
        widths = [dim * (level + 1) if kind == "concatenated" else dim for level in range(levels)]
        self.maps = nn.ModuleList(nn.Linear(width, dim, bias=bias) for width in widths)

    def forward(self, hidden: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        """Packed states (T, d) -> queries (B, L, d); not for ``subsets``, whose number differs by session."""
        if self.kind == "subsets":
            raise ValueError("intents from every subset differ in number by session; call subsets(hidden, lengths)")
        checks.states("hidden", hidden, 2, self.dim, "(T, d)", self)
        checks.segments(lengths, rows, hidden.shape[0])
        if self.kind == "all":
            total = hidden.new_zeros(lengths.numel(), hidden.shape[1]).index_add(0, rows, hidden)
            return torch.stack([m(total) for m in self.maps], 1)
        back = torch.arange(self.levels, device=hidden.device)
        place = (lengths.cumsum(0)[:, None] - 1 - back).clamp_min(0)
        # index_select, whose gradient is a plain sum of rows; that of hidden[place] sorts.
        last = hidden.index_select(0, place.flatten()).view(*place.shape, -1)  # (B, L, d), the last item first
        last = torch.where((back < lengths[:, None])[..., None], last, 0)
        if self.kind == "concatenated":
            flat, width = last.flatten(1), hidden.shape[1]
            return torch.stack([m(flat[:, : (i + 1) * width]) for i, m in enumerate(self.maps)], 1)
        # Added one by one: a cumsum of floats has no deterministic form on CUDA.
        sums = itertools.accumulate(last.unbind(1))
        return torch.stack([m(u) for m, u in zip(self.maps, sums, strict=True)], 1)

    def subsets(self, hidden: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Every subset's query, sessions of one length at a time.

        Yields
        ------
        clicks : Tensor, (G, n) int64
            The clicks of the G sessions of a length n, as rows of `hidden`.
        queries : Tensor, (G, 2^n - 1, d)

        Raises
        ------
        ValueError
            For a session of more than `levels` items, for states or lengths that don't fit, and of another kind.
        """
        if self.kind != "subsets":
            raise ValueError(f"intents are {self.kind!r}, one a level; call forward(hidden, lengths, rows)")
        checks.states("hidden", hidden, 2, self.dim, "(T, d)", self)
        checks.whole_tensor("lengths", lengths, "(B,)")
        if lengths.dim() != 1:
            raise ValueError(f"lengths is {tuple(lengths.shape)}; it must be (B,)")
        checks.filled(lengths, hidden.shape[0])
        longest = int(lengths.max())
        if longest > self.levels:
            raise ValueError(
                f"a session has {longest} items, more than {self.levels}: intents from every subset (-pr) would take "
                f"{2**longest - 1:,} queries for it, which grows as 2^n; use sets, or the last {self.levels} items"
            )
        starts = lengths.cumsum(0) - lengths
        for n in lengths.unique().tolist():
            sessions = (lengths == n).nonzero()[:, 0]
            clicks = starts[sessions][:, None] + torch.arange(n, device=hidden.device)
            numbers = torch.arange(1, 2**n, device=hidden.device)
            chosen = (numbers[:, None] >> torch.arange(n, device=hidden.device)) & 1  # (2^n - 1, n)
            size = chosen.sum(1)
            order = size.argsort(stable=True)
            sums = chosen[order].to(hidden.dtype) @ hidden[clicks]  # (G, 2^n - 1, d)
            parts = sums.split(torch.bincount(size)[1:].tolist(), 1)
            yield clicks, torch.cat([m(u) for m, u in zip(self.maps, parts, strict=False)], 1)
