"""Readouts: how a session's hidden states become one query."""

from dissect.models.readouts.attenmixer import MixerReadout, OfficialMixerReadout
from dissect.models.readouts.simple import LastItemReadout, MeanLastReadout, MeanReadout
from dissect.models.readouts.soft_attention import SoftAttentionReadout

__all__ = [
    "LastItemReadout", "MeanLastReadout", "MeanReadout", "MixerReadout", "OfficialMixerReadout", "SoftAttentionReadout",
]  # fmt: skip
