"""Atten-Mixer as its released code computes it, for those who compare with that repository.

Source: github.com/Peiyance/Atten-Mixer-torch at 9547fb8, ``src/models/CCSGNN.py``; equal on the same weights to
rounding (tests/mixer). It departs from the paper in these ways:

- Queries are linear maps, with bias, of the last l items side by side, zeros where there are fewer (so their order
  matters: the ablation -LI), then divided by the L2 norm of each feature *over the levels*.
- Heads are cut by a reshape without a transpose: slot j of pseudo-head h holds the key of item ``(h N + j) // H``,
  slice ``(h N + j) % H``, and its weight is given to item j. N is the padded length, so that scores depend on how far
  the data set is padded, and most pseudo-heads of a short session see little but padding.
- A map is the softmax of ``2 sigmoid(q . k)``, without 1/sqrt(d), over all N slots, padding included; the mixture goes
  through a second softmax of twice its value, over the items alone. Both are nearly flat.
- Values are a linear map, with bias, of the states; the pooled state goes through a layer norm and no L2.
- The query is L2-normalised after W_m (with bias), sigma is 16, and the item table has dropout 0.1 after its L2.
- Every parameter, the layer norm's gain too, starts at U(-1/sqrt(d), 1/sqrt(d)).

Two things are not repeated. There, dropout takes each distinct item of a session once for all its clicks (here each
click by itself), which changes no score outside training. And each file is padded to its own longest session, where
`slots` is one number here, which changes scores a little: those of an untrained model by 2e-4 between 70 and 40 slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixer import checks
from mixer.attention import check_width, lp_mixture
from mixer.intents import Intents
from mixer.readout import pack, pack_ids
from mixer.segments import segment_rows, segment_softmax, segment_sum


class OfficialReadout(nn.Module):
    """The released code's readout; see the module's docstring.

    Parameters
    ----------
    dim : int
        Width d.
    levels, heads : int
        L and H, which divides d.
    p : float
        Exponent of the mixture.
    dropout : float
        Dropout of the states and of the maps, in training.
    slots : int, optional
        N, the padded length. The released code takes one more than the longest session of the file that it reads;
        without `slots` it is one more than the longest of the call, and the same session may score differently beside
        another.

    Attributes
    ----------
    check : bool
        Whether a session of more than `slots` items is refused (on a CPU). Where batches are padded by a session that
        no one reads, it must not be: its clicks beyond the slots share the last one.
    """

    check = True

    def __init__(
        self, dim: int, levels: int = 7, heads: int = 8, p: float = 4.0, *, dropout: float = 0.1,
        slots: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_width(dim, heads)
        checks.whole("levels", levels)
        checks.exponent(p)
        checks.share("dropout", dropout)
        if slots is not None:
            checks.whole("slots", slots)
        self.dim, self.levels, self.heads, self.p, self.dropout, self.slots = dim, levels, heads, p, dropout, slots
        self.intents = Intents(dim, levels, "concatenated", bias=True)
        self.w_q = nn.Linear(dim, dim)
        self.w_k = nn.Linear(dim, dim)
        self.w_v = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-8)
        self.w_m = nn.Linear(2 * dim, dim)

    def start(self) -> None:
        """Let the layer norm start as every other parameter of the released model does, and not at a gain of 1."""
        bound = 1 / math.sqrt(self.dim)
        for parameter in self.norm.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, hidden: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Packed (T, d) or padded (B, n, d) states -> queries (B, d); arguments as for `AttenMixerReadout.forward`."""
        hidden, lengths = self._pack(hidden, lengths, mask)
        count, clicks = lengths.numel(), hidden.shape[0]
        rows = segment_rows(lengths, clicks)
        hidden = F.normalize(F.dropout(F.normalize(hidden, dim=1), self.dropout, self.training), dim=1)
        weights = self._weights(hidden, lengths, rows)
        weights = F.dropout(weights, self.dropout, self.training)
        values = self.w_v(hidden).view(clicks, self.heads, -1)
        pooled = self.norm(segment_sum((values * weights[:, :, None]).flatten(1), rows, count))
        return self.w_m(torch.cat([pooled, hidden.index_select(0, lengths.cumsum(0) - 1)], 1))

    def weights(self, hidden: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The attention weights of packed clicks, (T, H), without dropout; arguments as in `forward`."""
        hidden, lengths = self._pack(hidden, lengths, mask)
        rows = segment_rows(lengths, hidden.shape[0])
        return self._weights(F.normalize(hidden, dim=1), lengths, rows)

    def _pack(self, hidden: Tensor, lengths: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, lengths = pack(hidden, lengths, mask)
        checks.states("hidden", hidden, 2, self.dim, "(T, d) or (B, n, d)", self)
        return hidden, lengths

    def _weights(self, hidden: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        return segment_softmax(2 * self._mixed(hidden, lengths, rows), lengths, rows)  # (T, H)

    def _mixed(self, hidden: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        """Mixed maps of packed clicks, (T, H), before the second softmax."""
        (clicks, dim), count, heads = hidden.shape, lengths.numel(), self.heads
        slots = int(lengths.max()) + 1 if self.slots is None else self.slots
        place = torch.arange(clicks, device=hidden.device) - (lengths.cumsum(0) - lengths).index_select(0, rows)
        if self.slots is not None and self.check and lengths.device.type == "cpu" and int(lengths.max()) > slots:
            raise ValueError(f"a session has {int(lengths.max())} items, more than the {slots} slots of padding")
        place = place.clamp_max(slots - 1)
        queries = self.intents(hidden, lengths, rows)  # (B, L, d)
        queries = queries / (queries.norm(dim=1, keepdim=True) + 1e-12)
        q = self.w_q(queries).view(count * heads, self.levels, dim // heads)
        # A slot of padding has the key of a zero state: the bias.
        keys = self.w_k(hidden)
        k = self.w_k.bias.to(keys.dtype).expand(count * slots, dim)
        k = k.index_copy(0, rows * slots + place, keys).view(count * heads, slots, dim // heads)
        maps = torch.softmax(2 * torch.sigmoid(q @ k.transpose(1, 2)), 2).view(count * heads, self.levels, slots)
        mixed = lp_mixture(maps, self.p).view(count, heads, slots)  # pools a pseudo-head's levels
        return mixed.transpose(1, 2)[rows, place]


class OfficialAttenMixer(nn.Module):
    """The released model: embed, read out, score.

    Parameters
    ----------
    items : int
        Ids are 0 to items - 1; the released code's padding row is none of them.
    dim : int
    sigma : float
    dropout : float
        Of the states, of the maps and of the item table.
    levels, heads, p, slots
        As for `OfficialReadout`.
    """

    def __init__(
        self, items: int, dim: int = 256, *, sigma: float = 16.0, dropout: float = 0.1, levels: int = 7,
        heads: int = 8, p: float = 4.0, slots: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        checks.whole("items", items)
        check_width(dim, heads)
        checks.positive("sigma", sigma)
        self.sigma, self.dropout = sigma, dropout
        self.embedding = nn.Embedding(items, dim)
        self.readout = OfficialReadout(dim, levels, heads, p, dropout=dropout, slots=slots)
        bound = 1 / math.sqrt(dim)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound)

    def forward(self, items: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Scores of every item, (B, items); `items` is packed (T,) or padded (B, n)."""
        items, lengths = pack_ids(items, lengths, mask, self.embedding.num_embeddings)
        query = F.normalize(self.readout(self.embedding(items), lengths), dim=1)
        table = F.dropout(F.normalize(self.embedding.weight, dim=1), self.dropout, self.training)
        return self.sigma * query @ table.t()
