"""Readouts: how a session's hidden states become one query."""

from dissect.models.readouts.simple import LastItemReadout, MeanReadout
from dissect.models.readouts.soft_attention import SoftAttentionReadout

__all__ = ["LastItemReadout", "MeanReadout", "SoftAttentionReadout"]
