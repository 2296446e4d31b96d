"""Readouts: how a session's hidden states become one query."""

from dissect.models.readouts.adaptive import AdaptiveReadout
from dissect.models.readouts.additive import AdditiveReadout
from dissect.models.readouts.attenmixer import MixerReadout, OfficialMixerReadout
from dissect.models.readouts.graph_attention import GraphAttentionReadout
from dissect.models.readouts.positional import PositionalAttentionReadout, StarAttentionReadout
from dissect.models.readouts.reversed import ReversedReadout
from dissect.models.readouts.self_attention import SelfAttentionReadout
from dissect.models.readouts.simple import LastItemReadout, LastLinearReadout, MeanLastReadout, MeanReadout
from dissect.models.readouts.soft_attention import SoftAttentionReadout

__all__ = [
    "AdaptiveReadout", "AdditiveReadout", "GraphAttentionReadout", "LastItemReadout", "LastLinearReadout",
    "MeanLastReadout", "MeanReadout", "MixerReadout", "OfficialMixerReadout", "PositionalAttentionReadout",
    "ReversedReadout", "SelfAttentionReadout", "SoftAttentionReadout", "StarAttentionReadout",
]  # fmt: skip
