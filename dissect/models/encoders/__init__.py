"""Encoders: what happens to the clicks before they are read out."""

from dissect.models.encoders.adaptive import AdaptiveEncoder
from dissect.models.encoders.dilated import DilatedEncoder
from dissect.models.encoders.edge_order import EdgeOrderEncoder
from dissect.models.encoders.gated_graph import GatedGraphEncoder, NormalisedGraphEncoder
from dissect.models.encoders.hypergraph import HypergraphEncoder
from dissect.models.encoders.identity import IdentityEncoder
from dissect.models.encoders.recurrent import RecurrentEncoder
from dissect.models.encoders.self_attention import SelfAttentionEncoder
from dissect.models.encoders.star_graph import StarGraphEncoder

__all__ = [
    "AdaptiveEncoder", "DilatedEncoder", "EdgeOrderEncoder", "GatedGraphEncoder", "HypergraphEncoder",
    "IdentityEncoder", "NormalisedGraphEncoder", "RecurrentEncoder", "SelfAttentionEncoder", "StarGraphEncoder",
]  # fmt: skip
