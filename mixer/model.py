"""Atten-Mixer as a model of its own: embed, read out, score."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixer import checks
from mixer.readout import AttenMixerReadout, pack_ids


class AttenMixer(nn.Module):
    """No propagation: L2-normalised item embeddings, read out and scored (arXiv 2206.12781, Eq. 4-5).

    Parameters
    ----------
    items : int
        Number of items; ids are 0 to items - 1, padding takes none.
    dim : int, default 256
        Width d.
    sigma : float, default 12
        Scale of the scores.
    unit_query : bool
        Whether the query is L2-normalised too; the paper normalises the session's embedding before W_m only.
    **readout
        As for `AttenMixerReadout`.

    Notes
    -----
    Every parameter starts at U(-1/sqrt(d), 1/sqrt(d)), as in the released code, but for the learnt sharpness and the
    position bias, which start at nothing.
    """

    def __init__(
        self, items: int, dim: int = 256, *, sigma: float = 12.0, unit_query: bool = False, **readout: Any
    ) -> None:
        super().__init__()
        checks.whole("items", items)
        checks.whole("dim", dim)
        checks.positive("sigma", sigma)
        checks.flag("unit_query", unit_query)
        self.sigma, self.unit_query = sigma, unit_query
        self.embedding = nn.Embedding(items, dim)
        self.readout = AttenMixerReadout(dim, **readout)
        bound = 1 / math.sqrt(dim)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-bound, bound)
        self.readout.attention.start()

    def query(self, items: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Queries (B, d), scaled by sigma; their products with L2-normalised items are the scores.

        Parameters
        ----------
        items : Tensor, (T,) or (B, n) int64
            Packed or padded clicks; what stands in the padding is not read, and need be no item.
        lengths, mask
            As for `AttenMixerReadout.forward`.
        """
        items, lengths = pack_ids(items, lengths, mask, self.embedding.num_embeddings)
        query = self.readout(self.embedding(items), lengths)
        return self.sigma * (F.normalize(query, dim=1) if self.unit_query else query)

    def forward(self, items: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Scores of every item, (B, items); arguments as for `query`."""
        return self.query(items, lengths, mask) @ F.normalize(self.embedding.weight, dim=1).t()
