"""Atten-Mixer as a readout: hidden states of a session's items in, one query out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixer import checks
from mixer.attention import MIXTURES, AttentionMaps, check_width, lp_mixture
from mixer.intents import Intents
from mixer.segments import segment_rows, segment_sum

#: How the pooled state and the last item become the query.
OUTPUTS = {
    "linear": "W_m [s || h_n] (Eq. 4)",
    "residual": "s + W_m [s || h_n]; ours",
    "pooled": "s alone, which stays in the space of the items (as in CORE, arXiv 2204.11067); ours",
}
#: What a head pools: its slice of the states, or the whole state with the heads summed or side by side.
HEAD_VALUES = ("slices", "sum", "full")


def pack(values: Tensor, lengths: Tensor | None, mask: Tensor | None, packed_dims: int = 2) -> tuple[Tensor, Tensor]:
    """Packed states (T, d), or with `packed_dims` 1 ids (T,), and lengths (B,) from what a readout accepts.

    See `AttenMixerReadout.forward`. Packed values on an accelerator are not checked: that would wait for the device.
    """
    name, packed, table = ("items", "(T,)", "(B, n)") if packed_dims == 1 else ("hidden", "(T, d)", "(B, n, d)")
    checks.tensor(name, values, f"{packed} or {table}")
    if values.dim() not in (packed_dims, packed_dims + 1):
        raise ValueError(f"{name} is {tuple(values.shape)}; it must be {packed} or {table}")
    if (lengths is None) == (mask is None):
        raise ValueError("give either lengths or mask")
    padded = values.dim() == packed_dims + 1
    if lengths is not None:
        checks.whole_tensor("lengths", lengths, "(B,)")
        if lengths.dim() != 1 or (padded and lengths.numel() != values.shape[0]):
            raise ValueError(f"lengths is {tuple(lengths.shape)}, {name} {tuple(values.shape)}; it must be (B,)")
        checks.together("lengths", lengths, name, values)
        lengths = lengths.long()
    if mask is not None:
        checks.tensor("mask", mask, "(B, n)")
        if not padded or mask.shape != values.shape[:2]:
            raise ValueError(f"mask is {tuple(mask.shape)}, {name} {tuple(values.shape)}; a mask goes with {table}")
        if mask.dtype not in (torch.bool, torch.uint8, *checks.WHOLE):  # a float mask may be one that is added: 0 keeps
            raise ValueError(f"mask is {mask.dtype}; it must be bool, true where there is a click")
        checks.together("mask", mask, name, values)
        mask = mask.bool()
    elif padded:
        assert lengths is not None
        mask = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
    if mask is not None:
        values, counted = values[mask], mask.sum(1)
        if lengths is not None and not torch.equal(counted, lengths):
            raise ValueError(f"a session has {int(lengths.max())} items, the padded states hold {mask.shape[1]}")
        lengths = counted
    assert lengths is not None
    if padded or lengths.device.type == "cpu":
        checks.filled(lengths, values.shape[0])
    return values, lengths


def pack_ids(items: Tensor, lengths: Tensor | None, mask: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """`pack` for ids, which are 0 to `count` - 1; on an accelerator that is not checked."""
    checks.whole_tensor("items", items, "(T,) or (B, n)")
    items, lengths = pack(items, lengths, mask, packed_dims=1)
    if items.device.type == "cpu" and (int(items.min()) < 0 or int(items.max()) >= count):
        raise ValueError(f"ids go from {int(items.min())} to {int(items.max())}; they must lie in 0 to {count - 1}")
    return items, lengths


class AttenMixerReadout(nn.Module):
    """Multi-level attention mixture (Zhang et al., WSDM'23, arXiv 2206.12781, Eq. 4 and 6-8).

    ``Q_l`` from the sum of the last l items; maps of every level and head; their Lp mixture over the levels; the
    states pooled by it, L2-normalised; ``W_m [s || h_n]``.

    Parameters
    ----------
    dim : int
        Width d.
    levels : int, default 7
        L. One level is the ablation -M.
    heads : int, default 8
        H, which divides d.
    p : float, default 4
        Exponent of the mixture.
    head_values : {"slices", "sum", "full"}
        The paper gives every head the full width, the sign of a concatenation, and a W_m of d x 2d, which don't fit
        together. ``slices``: head h pools the h-th d/H slice, slices are concatenated (what multi-head attention means
        elsewhere). ``sum``: heads of full width, summed. ``full``: concatenated, W_m is d x (H + 1) d.
    intents : {"sets", "all", "concatenated", "subsets"}
        See `mixer.intents.INTENTS`: the ablations -IP and -LI, and -pr.
    mixture : {"lp", "max"}
        ``max`` over the levels is the ablation -LP.
    dropout, map_dropout : float
        Dropout of the normalised states and of the mixed maps, in training.
    sharpness, learn_sharpness, positions
        See `mixer.attention.AttentionMaps`; variants of ours.
    values : bool
        Whether the states are mapped by a W_v, d x d, before they are pooled; ours.
    output : {"linear", "residual", "pooled"}
        See `OUTPUTS`.

    Notes
    -----
    States are L2-normalised first: ``h = L2(E[x])`` without an encoder, and after one, as in the paper's hybrids. The
    mixed weights of a head do not sum to 1; the L2 of the pooled state absorbs the scale.

    Maps start almost flat. A logit is a product of three small matrices, W_l, W^Q and W^K, with unit states, divided by
    sqrt(d) (`mixer.attention.AttentionMaps` tells what a head reads). With every weight at U(-1/sqrt(d), 1/sqrt(d)),
    d = 64, H = 8, L = 7 and 2,000 sessions of n = 10 random items, the largest mixed weight of a head is 1.002 times
    the smallest on average (single maps: 1.003 at level 1 to 1.008 at level 7; 1.0006 for mixed weights at d = 256),
    so that the readout starts as a mean of the states beside the last one. Nor is flat a place that is left fast: where
    W_l, W^Q and W^K are zero the gradient of each vanishes, being a product with the other two, and near it is small of
    second order. L2 decay pulls towards that point; Adam's coupled ``weight_decay`` the more, which is divided by the
    gradient's own size like the gradient: where the decay is the larger of the two, a weight shrinks by about the
    learning rate a step, however small the decay (above Adam's eps).
    """

    def __init__(
        self, dim: int, levels: int = 7, heads: int = 8, p: float = 4.0, *, head_values: str = "slices",
        intents: str = "sets", mixture: str = "lp", dropout: float = 0.0, map_dropout: float = 0.0,
        sharpness: float = 1.0, learn_sharpness: bool = False, positions: int = 0, values: bool = False,
        output: str = "linear",
    ) -> None:  # fmt: skip
        super().__init__()
        check_width(dim, heads)
        checks.choice("head values", head_values, HEAD_VALUES)
        checks.choice("mixture", mixture, MIXTURES)
        if mixture == "max" and p != 4.0:
            raise ValueError(f"p is {p}; the largest of the maps (mixture='max') has no exponent: leave it out")
        checks.exponent(p)
        checks.choice("output", output, OUTPUTS)
        checks.flag("values", values)
        if output != "linear" and head_values == "full":
            raise ValueError(f"output {output} needs a pooled state of width d; head_values full has H d")
        checks.share("dropout", dropout)
        checks.share("map_dropout", map_dropout)
        if intents == "subsets" and positions:
            raise ValueError("positions have no place with intents from every subset")
        self.dim, self.heads, self.p, self.head_values, self.mixture = dim, heads, p, head_values, mixture
        self.dropout, self.map_dropout, self.output = dropout, map_dropout, output
        self.intents = Intents(dim, levels, intents)
        self.attention = AttentionMaps(
            dim, heads, sharpness=sharpness, learn_sharpness=learn_sharpness, positions=positions, levels=levels
        )
        self.w_v = nn.Linear(dim, dim, bias=False) if values else None
        width = dim * (1 + (heads if head_values == "full" else 1))
        self.w_m = None if output == "pooled" else nn.Linear(width, dim, bias=False)

    def forward(self, hidden: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Read sessions out.

        Parameters
        ----------
        hidden : Tensor, (T, d) or (B, n, d)
            States of packed clicks, session after session, or padded ones.
        lengths : Tensor, (B,) int64
            Clicks of each session. Padding, where there is any, stands on the right.
        mask : Tensor, (B, n) bool
            In place of `lengths`, with padding anywhere.

        Returns
        -------
        Tensor, (B, d)

        Raises
        ------
        ValueError
            For a session without items, and for states, lengths or a mask of another kind, shape, type or device. Of
            packed input on an accelerator the lengths' values are not read; it is the only input whose shapes are
            known beforehand, as a graph capture needs.
        """
        hidden, lengths = self._pack(hidden, lengths, mask)
        rows = segment_rows(lengths, hidden.shape[0])
        hidden = F.normalize(hidden, dim=1)
        if self.training and self.dropout:
            hidden = F.normalize(F.dropout(hidden, self.dropout), dim=1)
        weights = self._mixed(hidden, lengths, rows)  # (T, H)
        if self.training and self.map_dropout:
            weights = F.dropout(weights, self.map_dropout)
        pooled = F.normalize(self._pool(hidden, weights, rows, lengths.numel()), dim=1)
        if self.w_m is None:
            return pooled
        mapped = self.w_m(torch.cat([pooled, hidden.index_select(0, lengths.cumsum(0) - 1)], 1))
        return pooled + mapped if self.output == "residual" else mapped

    def weights(self, hidden: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The mixed attention weights of packed clicks, (T, H); arguments as in `forward`."""
        hidden, lengths = self._pack(hidden, lengths, mask)
        return self._mixed(F.normalize(hidden, dim=1), lengths, segment_rows(lengths, hidden.shape[0]))

    def _pack(self, hidden: Tensor, lengths: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, lengths = pack(hidden, lengths, mask)
        checks.states("hidden", hidden, 2, self.dim, "(T, d) or (B, n, d)", self)
        return hidden, lengths

    def _mixed(self, hidden: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        if self.intents.kind != "subsets":
            return self._mix(self.attention(self.intents(hidden, lengths, rows), hidden, lengths, rows))
        out = hidden.new_empty(hidden.shape[0], self.heads)
        for clicks, queries in self.intents.subsets(hidden, lengths):
            out = out.index_copy(0, clicks.flatten(), self._mix(self.attention.dense(queries, hidden[clicks])))
        return out

    def _mix(self, maps: Tensor) -> Tensor:
        return maps.amax(1) if self.mixture == "max" else lp_mixture(maps, self.p)

    def _pool(self, hidden: Tensor, weights: Tensor, rows: Tensor, count: int) -> Tensor:
        values = hidden if self.w_v is None else self.w_v(hidden)
        if self.head_values == "sum":
            weighted = values * weights.sum(1, keepdim=True)
        elif self.head_values == "slices":
            weighted = (values.view(len(rows), self.heads, -1) * weights[:, :, None]).flatten(1)
        else:
            weighted = (values[:, None] * weights[:, :, None]).flatten(1)
        return segment_sum(weighted, rows, count)
