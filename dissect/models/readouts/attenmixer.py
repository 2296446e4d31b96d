"""Atten-Mixer's readout (arXiv 2206.12781) from `mixer`, and the released code's reading of it, as readouts here."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dissect.models.seams import Encoded, Readout
from mixer import AttenMixerReadout, OfficialReadout


class MixerReadout(Readout):
    """Multi-level attention mixture; see :class:`mixer.AttenMixerReadout`, whose options it takes.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        As for every readout; the query keeps the width of the states.
    **options
        As for `mixer.AttenMixerReadout`.
    """

    PARTS = {"attention": ("mixer.intents.maps", "mixer.attention.w_q", "mixer.attention.w_k"),
             "transformation": ("mixer.w_m",)}  # fmt: skip

    def __init__(self, dim: int, out: int | None = None, **options: Any) -> None:
        super().__init__()
        self.width = dim
        self.mixer = AttenMixerReadout(dim, **options)
        if self.mixer.w_v is not None:
            self.PARTS = {**self.PARTS, "attention": (*self.PARTS["attention"], "mixer.w_v")}
        # How many subsets there are depends on the lengths; so does which maps have a gradient in a process's share.
        self.static = self.distributed = self.mixer.intents.kind != "subsets"
        if self.mixer.w_m is None:
            self.PARTS = {**self.PARTS, "transformation": ()}

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        return self.mixer(encoded.clicks, encoded.batch.lengths)

    def attention(self, encoded: Encoded) -> Tensor:
        """Mixed weight of each click and head, (T, H)."""
        return self.mixer.weights(encoded.clicks, encoded.batch.lengths)


class OfficialMixerReadout(Readout):
    """What the released code computes; see :class:`mixer.OfficialReadout`.

    Parameters
    ----------
    dim : int
        Width of the states.
    out : int, optional
        As for every readout; the query keeps the width of the states.
    longest : int, optional
        Longest session of the data set; the released code pads to one more.
    **options
        As for `mixer.OfficialReadout`.
    """

    PARTS = {"attention": ("mixer.intents.maps", "mixer.w_q", "mixer.w_k", "mixer.w_v"),
             "transformation": ("mixer.w_m",)}  # fmt: skip

    def __init__(self, dim: int, out: int | None = None, longest: int | None = None, **options: Any) -> None:
        super().__init__()
        self.width = dim
        self.mixer = OfficialReadout(dim, slots=None if longest is None else longest + 1, **options)

    def forward(self, encoded: Encoded) -> Tensor:
        """Return (B, d)."""
        self._check(encoded)
        return self.mixer(encoded.clicks, encoded.batch.lengths)

    def attention(self, encoded: Encoded) -> Tensor:
        """Mixed weight of each click and head, (T, H)."""
        self._check(encoded)
        return self.mixer.weights(encoded.clicks, encoded.batch.lengths)

    def _check(self, encoded: Encoded) -> None:
        """Let a session of more than `longest` clicks be refused, but for the one that pads a batch of fixed shape."""
        self.mixer.check = encoded.batch.span is None
