"""Encoders: what happens to the clicks before they are read out."""

from dissect.models.encoders.gated_graph import GatedGraphEncoder, GRUCell
from dissect.models.encoders.identity import IdentityEncoder

__all__ = ["GRUCell", "GatedGraphEncoder", "IdentityEncoder"]
