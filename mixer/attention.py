"""Attention maps of every query and head, and their mixture (Atten-Mixer, arXiv 2206.12781, Eq. 7-8)."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor, nn

from mixer import checks
from mixer.segments import segment_softmax

#: How the maps of the levels become one.
MIXTURES = ("lp", "max")


def lp_mixture(maps: Tensor, p: float = 4.0) -> Tensor:
    """``(sum_l a_l^p)^(1/p)`` over dimension 1, with a gradient that is finite where maps are zero.

    Parameters
    ----------
    maps : Tensor, (T, L, H), not negative
    p : float
        At least 1.

    Returns
    -------
    Tensor, (T, H)

    Raises
    ------
    ValueError
        For another p, and for maps that are no floating tensor of three dimensions.

    Notes
    -----
    The maps are divided by the largest first, which changes neither the value nor, the function being homogeneous of
    degree one, the gradient; without it ``a^p`` underflows and the gradient is 0 * inf. Where all maps are zero the
    gradient is taken as zero.
    """
    checks.exponent(p)
    checks.tensor("maps", maps, "(T, L, H)")
    if maps.dim() != 3 or not maps.shape[1] or not maps.is_floating_point():
        raise ValueError(f"maps is {tuple(maps.shape)} of {maps.dtype}; it must be (T, L, H), floating, with L >= 1")
    peak = maps.detach().amax(1, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    total = (maps / peak).pow(p).sum(1)
    # Where all maps are zero: without the last factor, tiny^(1 + 1/p), which from p = 6 on is no zero in float32.
    return peak[:, 0] * total.clamp_min(torch.finfo(maps.dtype).tiny).pow(1 / p) * (total > 0)


def divisors(dim: int) -> str:
    """The numbers of heads that a width can be cut into, as text."""
    return ", ".join(str(h) for h in range(1, dim + 1) if dim % h == 0)


def check_width(dim: int, heads: int) -> None:
    """Refuse a width that is none, and heads that it can't be cut into."""
    checks.whole("dim", dim)
    if isinstance(heads, bool) or not isinstance(heads, Integral) or heads < 1 or dim % heads:
        raise ValueError(f"heads is {heads!r}; it must divide the width {dim}: {divisors(dim)}")


def head_products(queries: Tensor, keys: Tensor, rows: Tensor, heads: int, at_once: bool) -> Tensor:
    """Products of each click with its own session's queries, summed over each head's slice: (T, L, H).

    They are L x n a session, and none of another's.

    Parameters
    ----------
    queries : Tensor, (B, L, d)
    keys : Tensor, (T, d)
    rows : Tensor, (T,) int64
        Session of each click.
    heads : int
        H, which divides d.
    at_once : bool
        Whether all levels are multiplied in one go, which an accelerator likes; else one by one, since (T, d) stays in
        a CPU's cache where (T, L, d) does not.
    """
    if at_once:
        products = queries.index_select(0, rows) * keys[:, None]
        return products.view(*products.shape[:2], heads, -1).sum(-1)
    levels = (level.index_select(0, rows) * keys for level in queries.unbind(1))
    return torch.stack([p.view(len(keys), heads, -1).sum(-1) for p in levels], 1)


class AttentionMaps(nn.Module):
    """Softmax over a session's clicks of ``sharpness / sqrt(d) * q_h . k_h``, for every level and head (after Eq. 7).

    ``q_h`` and ``k_h`` are the h-th d/H slices of ``Q W^Q`` and ``K W^K``, whose W^Q and W^K, d x d, all heads share.

    Parameters
    ----------
    dim : int
        Width d.
    heads : int
        H, which divides d.
    sharpness : float
        Factor on the logits. 1 keeps the paper's divisor, sqrt(d); ``math.sqrt(heads)`` makes it sqrt(d/H), the usual
        one. See the notes.
    learn_sharpness : bool
        Whether each head learns a factor of its own besides, exp(t) with t from 0. Ours.
    positions : int
        Where positive, each level and head learns a bias for each of the last `positions` places of a session; those
        before share the last bias. Ours.
    levels : int
        L; read where `positions` is positive only.

    Notes
    -----
    What Eq. 7 says is ``softmax(Q W_h^Q (K W_h^K)^T / sqrt(d))`` with a W_h^Q and a W_h^K of d x d for every head: a
    head's product runs over d features. Here it runs over the head's own d/H, and is divided by sqrt(d) all the same.
    That is Eq. 7 where W_h^Q and W_h^K are zero but for d/H columns: 2 d^2 weights, not 2 H d^2, and a head's form
    ``W_h^Q W_h^K^T`` has rank d/H at most. The released code cuts slices of d/H too (by a reshape that mixes items, and
    under a sigmoid with no divisor; see `mixer.official`).

    Multi-head attention elsewhere (arXiv 1706.03762) divides a product over d/H features by sqrt(d/H). Logits here are
    smaller by the factor sqrt(H), 2.8 for 8 heads, and the maps flatter. With random weights that is also the ratio to
    Eq. 7's full-width heads, in standard deviation. ``sharpness=math.sqrt(heads)`` takes the factor away, to
    rounding: the maps are then those of `torch.nn.MultiheadAttention`. With one head all three are the same.

    `position` is a table that is looked up, and `log_sharpness` H scalars: neither maps a state, and neither is a part
    for those who prune maps or put noise on their weights, as little as an embedding or a bias is. The maps are W_l,
    W^Q, W^K and W_v, which belong to the attention, and W_m, which belongs to the transformation.
    """

    def __init__(
        self, dim: int, heads: int, *, sharpness: float = 1.0, learn_sharpness: bool = False, positions: int = 0,
        levels: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        check_width(dim, heads)
        checks.positive("sharpness", sharpness)
        checks.flag("learn_sharpness", learn_sharpness)
        checks.whole("positions", positions, 0)
        checks.whole("levels", levels)
        self.dim, self.heads, self.levels = dim, heads, levels
        self.scale = sharpness / math.sqrt(dim)
        self.w_q = nn.Linear(dim, dim, bias=False)
        self.w_k = nn.Linear(dim, dim, bias=False)
        self.log_sharpness = nn.Parameter(torch.zeros(heads)) if learn_sharpness else None
        self.position = nn.Embedding(positions, levels * heads) if positions else None
        self.start()

    def start(self) -> None:
        """Let the learnt sharpness and the position bias start at nothing, so that maps start as the paper's do."""
        with torch.no_grad():
            if self.log_sharpness is not None:
                self.log_sharpness.zero_()
            if self.position is not None:
                self.position.weight.zero_()

    def forward(self, queries: Tensor, keys: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        """Queries (B, L, d) and packed keys (T, d) -> maps (T, L, H), which sum to 1 over a session's clicks."""
        checks.states("queries", queries, 3, self.dim, "(B, L, d)", self)
        checks.states("keys", keys, 2, self.dim, "(T, d)", self)
        clicks, heads, levels = keys.shape[0], self.heads, queries.shape[1]
        checks.segments(lengths, rows, clicks)
        if lengths.numel() != queries.shape[0]:
            raise ValueError(f"queries are of {len(queries)} sessions, lengths of {lengths.numel()}; both must be of B")
        if not levels or (self.position is not None and levels != self.levels):
            raise ValueError(
                f"queries have {levels} levels; there must be {'>= 1' if self.position is None else self.levels}"
            )
        q = self.w_q(queries) * self.scale
        k = self.w_k(keys)
        logits = head_products(q, k, rows, heads, at_once=keys.device.type != "cpu")
        if self.log_sharpness is not None:
            logits = logits * self.log_sharpness.exp()
        if self.position is not None:
            place = lengths.cumsum(0).index_select(0, rows) - 1 - torch.arange(clicks, device=keys.device)
            bias = self.position(place.clamp_max(self.position.num_embeddings - 1))
            logits = logits + bias.view(clicks, levels, heads)
        return segment_softmax(logits.flatten(1), lengths, rows).view(clicks, levels, heads)

    def dense(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The same for G sessions of one length n and any number of queries, without positions.

        Queries (G, S, d) and keys (G, n, d) -> maps (G n, S, H). With S in the hundreds, as for -pr, the packed form's
        (T, S, d) products would take gigabytes.
        """
        checks.states("queries", queries, 3, self.dim, "(G, S, d)", self)
        checks.states("keys", keys, 3, self.dim, "(G, n, d)", self)
        if len(queries) != len(keys):
            raise ValueError(f"queries are of {len(queries)} sessions, keys of {len(keys)}; both must be of G")
        if self.position is not None:
            raise ValueError("dense knows no positions; it must be called on maps with positions=0")
        q, k = self.w_q(queries) * self.scale, self.w_k(keys)
        q, k = (x.unflatten(2, (self.heads, -1)) for x in (q, k))
        logits = torch.einsum("gshk,gnhk->gnsh", q, k)
        if self.log_sharpness is not None:
            logits = logits * self.log_sharpness.exp()
        return logits.softmax(1).flatten(0, 1)
