"""Layers whose weights have a mean and a variance: a linear map, a GRU cell and a convolution over time.

All are subclasses of the dense layer, which becomes one in place (`to_variational`) and dense again (`to_dense`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.errors import DissectError
from dissect.sparsity.noise import check_noise, local_linear, noisy
from dissect.sparsity.variational import SHADOW, Variational


class VariationalLinear(Variational, nn.Linear):
    """A linear map with a log variance per weight, `log_sigma2` of shape (out, in).

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As for nn.Linear.
    noise : {'local', 'row', 'weight'}
        See `dissect.sparsity.noise`.
    log_sigma2 : float
        Initial log variance.
    """

    PAIRS = (("weight", "log_sigma2"),)
    DENSE = nn.Linear
    log_sigma2: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        noise: str = "local",
        log_sigma2: float = -8.0,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self._add_variances(noise, log_sigma2)

    def forward(self, input: Tensor) -> Tensor:
        """Input (..., in) to output (..., out)."""
        out = self._map("weight", input, self.bias)
        if self._shadows_on():
            out = out + self._map(SHADOW + "weight", self._shadow_rows(input), None)
        return out

    def _map(self, name: str, rows: Tensor, bias: Tensor | None) -> Tensor:
        if not self._noise_on_outputs():
            return F.linear(rows, self._weight(name), bias)
        eps = self._eps(name, tuple(rows.shape[:-1]), self.out_features)
        return local_linear(rows, self._own(name), self._log_variance(name), bias, eps)

    def _can_shadow(self) -> bool:
        return True


class VariationalGRUCell(Variational, nn.GRUCell):
    """A GRU cell with a log variance per weight, `log_sigma2_ih` (3h, in) and `log_sigma2_hh` (3h, h).

    Parameters as for nn.GRUCell and `VariationalLinear`. Inside `shared_noise`, the noise is the same at
    every call: one draw of the weights, or under ``local`` and ``row`` noise one draw per row. Rows then keep their
    place from call to call; a shorter batch is taken to be the first rows, as in a sequence packed by length.
    """

    PAIRS = (("weight_ih", "log_sigma2_ih"), ("weight_hh", "log_sigma2_hh"))
    DENSE = nn.GRUCell
    log_sigma2_ih: nn.Parameter
    log_sigma2_hh: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        noise: str = "local",
        log_sigma2: float = -8.0,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self._add_variances(noise, log_sigma2)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Input (rows, in) or (in,) and state (rows, h) or (h,), zeros where left out, to the next state."""
        if hx is None:
            hx = input.new_zeros(*input.shape[:-1], self.hidden_size)
        if input.dim() == 1:
            return self(input[None], hx[None])[0]
        if not self._noise_on_outputs():
            weights = self._weight("weight_ih"), self._weight("weight_hh")
            return torch.gru_cell(input, hx, *weights, self.bias_ih, self.bias_hh)
        from_input = self._gates("weight_ih", input, self.bias_ih)  # (rows, 3h): reset, update, new
        from_state = self._gates("weight_hh", hx, self.bias_hh)
        h = self.hidden_size
        reset, update = (from_input[..., : 2 * h] + from_state[..., : 2 * h]).sigmoid().chunk(2, -1)
        new = torch.addcmul(from_input[..., 2 * h :], reset, from_state[..., 2 * h :]).tanh()
        return new + update * (hx - new)

    def _gates(self, name: str, rows: Tensor, bias: Tensor | None) -> Tensor:
        theta = self._own(name)
        eps = self._eps(name, (rows.shape[0],), theta.shape[0], fixed=True)
        return local_linear(rows, theta, self._log_variance(name), bias, eps)


class VariationalConv1d(Variational, nn.Conv1d):
    """A convolution over time with a log variance per weight, `log_sigma2` of shape (out, in / groups, kernel).

    Parameters as for nn.Conv1d and `VariationalLinear`. Under ``row`` noise the time steps of an example share a draw.
    """

    PAIRS = (("weight", "log_sigma2"),)
    DENSE = nn.Conv1d
    log_sigma2: nn.Parameter

    def __init__(self, *args: Any, noise: str = "local", log_sigma2: float = -8.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._add_variances(noise, log_sigma2)

    def forward(self, input: Tensor) -> Tensor:
        """Input (B, in, time) or (in, time) to output (B, out, time') or (out, time')."""
        out = self._map("weight", input, self.bias)
        if self._shadows_on():
            shadow = self._shadow_rows(input.movedim(-2, -1))  # (..., time, columns)
            out = out + self._map(SHADOW + "weight", shadow.movedim(-1, -2), None)
        return out

    def _map(self, name: str, input: Tensor, bias: Tensor | None) -> Tensor:
        if not self._noise_on_outputs():
            return self._conv_forward(input, self._weight(name), bias)
        theta, s = self._own(name), self._log_variance(name)
        device, dtype = input.device.type, s.dtype
        eps = self._eps(name, tuple(input.shape[:-2]), self.out_channels)
        with torch.autocast(device, enabled=False):
            x = input.to(dtype)
            gamma = self._conv_forward(x, theta.to(dtype), None if bias is None else bias.to(dtype))
            delta = self._conv_forward(x * x, s.exp(), None)
            fixed = self.noise == "row" and not (self.frozen is not None and name in self.frozen)
            # One draw for each example and channel, the same at all times.
            out = noisy(gamma, delta, None if eps is None else eps[..., None] if fixed else eps)
        if torch.is_autocast_enabled(device):
            return out.to(torch.get_autocast_dtype(device))
        return out.to(torch.promote_types(input.dtype, theta.dtype))

    def _can_shadow(self) -> bool:
        return self.groups == 1


VARIATIONAL: dict[type[nn.Module], type[Variational]] = {
    nn.Linear: VariationalLinear,
    nn.GRUCell: VariationalGRUCell,
    nn.Conv1d: VariationalConv1d,
}
"""Dense class -> its variational class."""


def to_variational(module: nn.Module, noise: str = "local", log_sigma2: float = -8.0) -> Variational:
    """Turn a dense layer into its variational class, in place: same object, same Parameters, same hooks.

    No weight is copied and no random number is drawn, so ties with other modules hold.

    Raises
    ------
    DissectError
        If the layer is of another type than those of `VARIATIONAL`, be it a subclass of one.
    """
    check_noise(noise)
    variational = VARIATIONAL.get(type(module))
    if variational is None:
        valid = ", ".join(f"nn.{dense.__name__}" for dense in VARIATIONAL)
        raise DissectError(f"cannot wrap {type(module).__name__}; valid types: {valid}")
    module.__class__ = variational
    assert isinstance(module, Variational)
    module._add_variances(noise, log_sigma2)
    return module


def to_dense(module: Variational) -> nn.Module:
    """Turn a variational layer back into its dense class, in place; the weights are the means."""
    module.remove_shadows()
    for _, log_variance in module.PAIRS:
        delattr(module, log_variance)
    for name in ("noise", "named", "frozen", "_shared", "_masks", "_batch"):
        module.__dict__.pop(name, None)
    dense: Any = module
    dense.__class__ = module.DENSE
    return dense
