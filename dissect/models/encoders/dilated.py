"""NextItNet's encoder: residual blocks of dilated causal convolutions (Yuan et al., WSDM'19, arXiv 1808.05163)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.batch import Batch
from dissect.models.gather import look_up
from dissect.models.pairs import places
from dissect.models.seams import Encoded, Encoder


class CausalConvolution(nn.Module):
    """A convolution over the clicks of each session that sees a click and earlier ones, `dilation` apart.

    Before a session's first click there is nothing: zeros, whatever else the batch holds. The tap on the click itself
    is one linear map, those on earlier clicks are another, so that the instrument can tell them apart.

    Parameters
    ----------
    dim : int
    kernel : int
        Taps.
    dilation : int
    """

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.reach = [dilation * tap for tap in range(kernel - 1, 0, -1)]
        self.past = nn.Linear((kernel - 1) * dim, dim, bias=False)
        self.own = nn.Linear(dim, dim)
        with torch.no_grad():  # every tap starts as in one convolution, by the inputs of all, not of its own map
            self.past.weight.mul_(math.sqrt((kernel - 1) / kernel))
            for parameter in self.own.parameters():
                parameter.mul_(math.sqrt(1 / kernel))

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        """(T, d) -> (T, d), with the place of each click in its session, (T,)."""
        clicks = torch.arange(x.shape[0], device=x.device)
        taps = [
            x.index_select(0, (clicks - back).clamp_min(0)).masked_fill((place < back)[:, None], 0)
            for back in self.reach
        ]
        return self.past(torch.cat(taps, 1)) + self.own(x)


class ResidualBlock(nn.Module):
    """``x + relu(LN(conv_2l(relu(LN(conv_l(x))))))``: the paper's block (b), Section 3.3.

    Parameters
    ----------
    dim, kernel, dilation : int
    """

    def __init__(self, dim: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = CausalConvolution(dim, kernel, dilation)
        self.norm1 = nn.LayerNorm(dim, eps=1e-8)
        self.conv2 = CausalConvolution(dim, kernel, 2 * dilation)
        self.norm2 = nn.LayerNorm(dim, eps=1e-8)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        """(T, d) -> (T, d)."""
        inner = F.relu(self.norm1(self.conv1(x, place)))
        return x + F.relu(self.norm2(self.conv2(inner, place)))


class DilatedEncoder(Encoder):
    """`blocks` times two residual blocks, of dilations 1, 2 and 4, 8.

    Weights on earlier clicks are the propagation, those on the click itself the combination.

    Parameters
    ----------
    dim : int
        Width d.
    blocks : int, default 6
    kernel : int, default 3

    Notes
    -----
    Held to RecBole's nextitnet.py (7b02be5ec8). Versions are about that pad on the right and read the last slot, so
    that the blocks see padding; nothing is padded here.
    """

    def __init__(self, dim: int, blocks: int = 6, kernel: int = 3) -> None:
        super().__init__()
        if blocks < 1 or kernel < 2:
            raise ValueError(f"blocks is {blocks}, kernel {kernel}; they must be >= 1 and >= 2")
        self.blocks = nn.ModuleList(ResidualBlock(dim, kernel, dilation) for dilation in (1, 4) * blocks)
        convolutions = [f"blocks.{i}.conv{k}" for i in range(2 * blocks) for k in (1, 2)]
        self.PARTS = {
            "propagation": tuple(f"{name}.past" for name in convolutions),
            "combination": tuple(f"{name}.own" for name in convolutions),
        }

    def forward(self, batch: Batch, table: Tensor) -> Encoded:
        """Encode each click with those before it."""
        x, table = look_up(table, batch.items)
        place = places(batch)
        for block in self.blocks:
            x = block(x, place)
        return Encoded(batch, x, table)
