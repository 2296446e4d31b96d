"""Atten-Mixer (Zhang et al., WSDM'23, arXiv 2206.12781) as a leaf package: torch and the standard library only.

A readout replaces what turns the states of a session's items into one query. Any encoder may stand before it:

>>> import torch
>>> from torch import nn
>>> from mixer import AttenMixerReadout
>>> class MyModel(nn.Module):
...     def __init__(self, items, dim):
...         super().__init__()
...         self.embedding = nn.Embedding(items, dim, padding_idx=0)
...         self.encoder = nn.GRU(dim, dim, batch_first=True)
...         self.readout = AttenMixerReadout(dim, levels=3, heads=4)     # in place of hidden[:, -1]
...     def forward(self, sessions):                                     # (B, n), zeros on either side
...         hidden, _ = self.encoder(self.embedding(sessions))
...         query = self.readout(hidden, mask=sessions > 0)
...         return query @ self.embedding.weight.t()
>>> scores = MyModel(items=100, dim=32)(torch.tensor([[3, 14, 15, 92], [65, 35, 0, 0]]))
>>> scores.shape
torch.Size([2, 100])

`AttenMixer` is the whole model; `OfficialReadout` and `OfficialAttenMixer` compute what the released code does.

>>> from mixer import AttenMixer
>>> model = AttenMixer(items=100, dim=32, levels=3)
>>> clicks, lengths = torch.tensor([3, 14, 15, 92, 65, 35]), torch.tensor([4, 2])     # packed: no padding at all
>>> model(clicks, lengths).shape
torch.Size([2, 100])
"""

from mixer.attention import AttentionMaps, lp_mixture
from mixer.intents import INTENTS, Intents
from mixer.model import AttenMixer
from mixer.official import OfficialAttenMixer, OfficialReadout
from mixer.readout import AttenMixerReadout

__all__ = [
    "INTENTS", "AttenMixer", "AttenMixerReadout", "AttentionMaps", "Intents", "OfficialAttenMixer", "OfficialReadout",
    "lp_mixture",
]  # fmt: skip
