"""Recurrent networks from plain linear maps; see `dissect.sparsity.unfuse`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from dissect.errors import DissectError
from dissect.sparsity.replacement import Names, Replacement


class Recurrent(Replacement):
    """A recurrence over time steps in Python: what `GRU`, `LSTM` and `RNN` share.

    Layer k has the linear maps ``input_k``, applied to all time steps at once, and ``hidden_k``, called once per
    step; in a bidirectional module also ``input_k_reverse`` and ``hidden_k_reverse``. Attributes and the call are
    those of the fused class.

    Wrapped, ``hidden_k`` draws its noise anew at every step, under ``weight`` and under ``local`` noise. A
    recurrence wants one weight sample per sequence (Gal, Ghahramani 2016, arXiv 1512.05287): choose
    ``noise="weight"`` and run each training step's forward pass inside `shared_noise`.
    """

    OPTIONS = ("input_size", "hidden_size", "num_layers", "batch_first", "dropout", "bidirectional")
    STATES: ClassVar[int] = 1
    """Number of tensors in the state."""
    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool

    @staticmethod
    def names(module: Any) -> Names:
        """``weight_ih_l0`` is ``input_0.weight``, ``bias_hh_l0_reverse`` is ``hidden_0_reverse.bias``."""
        return {
            f"{kind}_{old}_l{layer}{suffix}": (f"{new}_{layer}{suffix}.{kind}",)
            for layer in range(module.num_layers)
            for suffix in _directions(module)
            for kind in (("weight", "bias") if module.bias else ("weight",))
            for old, new in (("ih", "input"), ("hh", "hidden"))
        }

    def step(self, x: Tensor, g: Tensor, h: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """The next state from the mapped input x and hidden state g, both (rows, gates * h), and the state."""
        raise NotImplementedError

    def flatten_parameters(self) -> None:
        """Do nothing; models call it on fused modules."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """As the fused module's: (output, last state), from tensors or a PackedSequence, batched or not."""
        order = restore = None
        if isinstance(input, PackedSequence):
            rows, batch_sizes, order, restore = input
            sizes, single = batch_sizes.tolist(), False
        elif input.dim() in (2, 3):
            single = input.dim() == 2
            steps = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
            rows, sizes = steps.flatten(0, 1), [steps.shape[1]] * steps.shape[0]  # (steps * batch, in), as if packed
        else:
            raise DissectError(f"{type(self).__name__}: the input must have 2 or 3 dimensions, got {input.dim()}")
        states = self._initial(hx, rows, sizes[0], single)
        if order is not None:
            states = [s.index_select(1, order) for s in states]

        last: list[list[Tensor]] = []  # one entry per layer and direction
        for layer in range(self.num_layers):
            outputs = []
            for suffix in _directions(self):
                output, state = self._run(rows, sizes, [s[len(last)] for s in states], f"{layer}{suffix}")
                outputs.append(output)
                last.append(state)
            rows = torch.cat(outputs, -1)  # (steps * batch, directions * h)
            if layer < self.num_layers - 1:
                rows = F.dropout(rows, self.dropout, self.training)

        finals = [torch.stack(s) for s in zip(*last, strict=True)]  # (layers * directions, batch, h)
        if restore is not None:
            finals = [s.index_select(1, restore) for s in finals]
        if single:
            finals = [s.squeeze(1) for s in finals]
        final = finals[0] if self.STATES == 1 else tuple(finals)
        if isinstance(input, PackedSequence):
            return PackedSequence(rows, input.batch_sizes, order, restore), final
        if single:
            return rows, final
        output = rows.unflatten(0, (len(sizes), sizes[0]))
        return output.transpose(0, 1) if self.batch_first else output, final

    def _initial(self, hx: Any, rows: Tensor, batch: int, single: bool) -> list[Tensor]:
        """The tensors of the initial state, each (layers * directions, batch, h)."""
        shape = (self.num_layers * len(_directions(self)), batch, self.hidden_size)
        if hx is None:
            return [rows.new_zeros(shape)] * self.STATES
        states = [s.unsqueeze(1) if single else s for s in ((hx,) if self.STATES == 1 else hx)]
        for s in states:
            if s.shape != shape:  # torch refuses it too; here it could broadcast
                raise DissectError(f"{type(self).__name__}: the initial state must be {shape}, got {tuple(s.shape)}")
        return states

    def _run(self, rows: Tensor, sizes: list[int], state: list[Tensor], suffix: str) -> tuple[Tensor, list[Tensor]]:
        """One layer in one direction: outputs of all steps (steps * batch, h) and the last state."""
        steps = self.get_submodule(f"input_{suffix}")(rows).split(sizes)
        hidden = self.get_submodule(f"hidden_{suffix}")
        direction = -1 if suffix.endswith("reverse") else 1
        outputs = []
        for x in steps[::direction]:
            n = x.shape[0]
            new = self.step(x, hidden(state[0][:n]), *(s[:n] for s in state))
            # Rows past n are of sequences that have ended, or backwards have not begun: their state stays.
            state = [torch.cat([a, s[n:]]) if n < s.shape[0] else a for a, s in zip(new, state, strict=True)]
            outputs.append(new[0])
        return torch.cat(outputs[::direction]), state


class GRU(Recurrent):
    """nn.GRU from the linear maps ``input_k`` and ``hidden_k``, each (3h, .): reset, update, new; see `Recurrent`."""

    FUSED = nn.GRU

    def step(self, x: Tensor, g: Tensor, h: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """As torch writes it: the reset gate acts after the hidden map (Cho et al. 2014, arXiv 1406.1078, before)."""
        (xr, xz, xn), (gr, gz, gn) = x.chunk(3, -1), g.chunk(3, -1)
        new = torch.tanh(xn + torch.sigmoid(xr + gr) * gn)
        return (new + torch.sigmoid(xz + gz) * (h - new),)


class LSTM(Recurrent):
    """nn.LSTM from linear maps, each (4h, .): input, forget, cell, output; no projections; see `Recurrent`."""

    FUSED = nn.LSTM
    STATES = 2

    def step(self, x: Tensor, g: Tensor, h: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """State (h, c)."""
        enter, forget, cell, out = (x + g).chunk(4, -1)
        c = torch.sigmoid(forget) * rest[0] + torch.sigmoid(enter) * torch.tanh(cell)
        return torch.sigmoid(out) * torch.tanh(c), c


class RNN(Recurrent):
    """nn.RNN from linear maps, each (h, .); see `Recurrent`."""

    FUSED = nn.RNN
    OPTIONS = (*Recurrent.OPTIONS, "nonlinearity")
    nonlinearity: str

    def step(self, x: Tensor, g: Tensor, h: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """The nonlinearity of the sum."""
        return (torch.tanh(x + g) if self.nonlinearity == "tanh" else torch.relu(x + g),)


def _directions(module: Any) -> tuple[str, ...]:
    return ("", "_reverse") if module.bidirectional else ("",)
