"""Gated recurrent units over packed sequences: a unit whose maps are plain linear layers, and a run of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GRUCell(nn.Module):
    """A gated recurrent unit whose two maps are plain linear layers, so that each can be wrapped by name.

    The formula is that of `torch.nn.GRUCell`: with ``(r, z, n)`` the three thirds of the maps' outputs,
    ``n = tanh(i_n + sigmoid(i_r + h_r) * h_n)`` and ``h' = n + sigmoid(i_z + h_z) * (h - n)``.

    Parameters
    ----------
    inputs, hidden : int
        Widths of the input and of the state.
    bias : bool, default True
    """

    def __init__(self, inputs: int, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 3 * hidden, bias=bias)
        self.hidden = nn.Linear(hidden, 3 * hidden, bias=bias)
        # torch's own units start every weight at U(-1/sqrt(hidden), 1/sqrt(hidden)), a linear map by its inputs.
        with torch.no_grad():
            for parameter in self.input.parameters():
                parameter.mul_(math.sqrt(inputs / hidden))

    def forward(self, a: Tensor, h: Tensor) -> Tensor:
        """One step: input `a` (M, inputs), state `h` (M, hidden) -> (M, hidden)."""
        return self.advance(self.input(a), h)

    def advance(self, mapped: Tensor, h: Tensor) -> Tensor:
        """The same from inputs that went through the input's map already, (M, 3 hidden)."""
        i_r, i_z, i_n = mapped.chunk(3, 1)
        h_r, h_z, h_n = self.hidden(h).chunk(3, 1)
        n = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
        return n + torch.sigmoid(i_z + h_z) * (h - n)


def run_cell(cell: GRUCell, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run a unit along packed sequences, from zero states.

    All inputs are mapped at once; a step then advances the sequences that are that long, and no others.

    Parameters
    ----------
    cell : GRUCell
    inputs : Tensor, (S, inputs)
        Sequence after sequence.
    lengths : Tensor, (N,) int64
        Of each sequence, at least 1; their sum is S.

    Returns
    -------
    states : Tensor, (S, hidden)
        State after each input.
    last : Tensor, (N, hidden)
        State after each sequence.
    """
    order = lengths.argsort(descending=True, stable=True)
    first = lengths.cumsum(0) - lengths
    # How many sequences have a step t: the lengths, longest first, turned on their side.
    counts = torch.bincount(lengths).flip(0).cumsum(0).flip(0)[1:].tolist()
    steps = torch.cat([first[order[:count]] + t for t, count in enumerate(counts)])
    mapped = cell.input(inputs).index_select(0, steps)
    h = inputs.new_zeros(lengths.numel(), cell.hidden.in_features)
    states, done = [], []
    for part in mapped.split(counts):
        count = part.shape[0]
        done.append(h[count:])  # these sequences have ended
        h = cell.advance(part, h[:count])
        states.append(h)
    # `done` holds the ended ones of each step, shortest first; the longest are in `h`.
    last = torch.cat([h, *reversed(done)])
    back, places = torch.empty_like(steps), torch.empty_like(order)
    back[steps] = torch.arange(steps.numel(), device=steps.device)
    places[order] = torch.arange(order.numel(), device=order.device)
    return torch.cat(states).index_select(0, back), last.index_select(0, places)
