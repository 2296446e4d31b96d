"""Layers whose weights have a mean and a variance: a linear map and a GRU cell.

Both are subclasses of the dense layer, and the mean keeps the dense layer's parameter name, so that a dense
checkpoint loads (the log variances then stay as they are). In training the weights are noisy; in eval the
mean is used, or inside `masked` the mean of the kept weights only. Biases are deterministic.

Under ``weight`` noise every call draws its own weights. A module called several times in one step (the same
matrix at every step of a recurrence or every layer of a propagation) should do so inside `shared_noise`: then
all its calls use one draw, as the posterior over weights asks (Gal and Ghahramani 2016, arXiv 1512.05287;
Chirkova et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.errors import DissectError
from dissect.sparsity.density import get_rule, keep_mask
from dissect.sparsity.noise import check_noise, local_linear, sample_weight


class Variational(nn.Module):
    """What the variational layers share: names of means and log variances, masks, shared and frozen noise."""

    PAIRS: ClassVar[tuple[tuple[str, str], ...]]
    """Parameter names (mean, log variance)."""
    DENSE: ClassVar[type[nn.Module]]
    """The dense class this layer stands in for."""
    noise: str
    frozen: dict[str, Tensor] | None = None
    """For tests: mean's name -> noise to use in place of a draw (of the outputs' shape, or the weights')."""
    _shared: dict[str, Tensor] | None = None
    _masks: dict[str, Tensor] | None = None

    def pairs(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        """Name of the mean, mean, log variance; the last two of one shape."""
        for mean, log_variance in self.PAIRS:
            yield mean, getattr(self, mean), getattr(self, log_variance)

    def _add_variances(self, noise: str, log_sigma2: float) -> None:
        self.noise = check_noise(noise)
        for mean, log_variance in self.PAIRS:
            theta = getattr(self, mean)
            # fp32 at least: -10 + 1e-3 == -10 in half precision.
            s = torch.full_like(theta, log_sigma2, dtype=torch.promote_types(theta.dtype, torch.float32))
            self.register_parameter(log_variance, nn.Parameter(s.detach()))

    def _weight(self, name: str) -> Tensor:
        """The matrix of a deterministic call or, under weight noise, of a noisy one."""
        theta = getattr(self, name)
        if self._masks is not None:
            return theta * self._masks[name]
        if not self.training:
            return theta
        if self._shared is not None and name in self._shared:
            return self._shared[name]
        eps = None if self.frozen is None else self.frozen[name]
        weight = sample_weight(theta, getattr(self, dict(self.PAIRS)[name]), eps)
        if self._shared is not None:
            self._shared[name] = weight
        return weight

    def _is_local(self) -> bool:
        return self.training and self.noise == "local" and self._masks is None

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # A dense checkpoint has the mean and no log variance: fill in the present one, so that strict loading
        # passes.
        for mean, log_variance in self.PAIRS:
            if prefix + mean in state_dict and prefix + log_variance not in state_dict:
                state_dict[prefix + log_variance] = getattr(self, log_variance).detach()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class VariationalLinear(Variational, nn.Linear):
    """A linear map with a log variance per weight, `log_sigma2` of shape (out, in).

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As for nn.Linear.
    noise : {'local', 'weight'}
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
        if self._is_local():
            eps = None if self.frozen is None else self.frozen["weight"]
            return local_linear(input, self.weight, self.log_sigma2, self.bias, eps)
        return F.linear(input, self._weight("weight"), self.bias)


class VariationalGRUCell(Variational, nn.GRUCell):
    """A GRU cell with a log variance per weight, `log_sigma2_ih` (3h, in) and `log_sigma2_hh` (3h, h).

    Parameters as for nn.GRUCell and `VariationalLinear`. Inside `shared_noise`, the noise is the same at
    every call: one draw of the weights, or under ``local`` noise one draw per row. Rows then keep their place
    from call to call; a shorter batch is taken to be the first rows, as in a sequence packed by length.
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
        if not self._is_local():
            weights = self._weight("weight_ih"), self._weight("weight_hh")
            return torch.gru_cell(input, hx, *weights, self.bias_ih, self.bias_hh)
        from_input = self._gates("weight_ih", input, self.bias_ih)  # (rows, 3h): reset, update, new
        from_state = self._gates("weight_hh", hx, self.bias_hh)
        h = self.hidden_size
        reset, update = (from_input[..., : 2 * h] + from_state[..., : 2 * h]).sigmoid().chunk(2, -1)
        new = torch.addcmul(from_input[..., 2 * h :], reset, from_state[..., 2 * h :]).tanh()
        return new + update * (hx - new)

    def _gates(self, name: str, rows: Tensor, bias: Tensor | None) -> Tensor:
        theta, s = getattr(self, name), getattr(self, dict(self.PAIRS)[name])
        eps = None if self.frozen is None else self.frozen[name]
        if eps is None and self._shared is not None:
            eps = self._row_noise(name, rows.shape[0], s)
        return local_linear(rows, theta, s, bias, eps)

    def _row_noise(self, name: str, count: int, s: Tensor) -> Tensor:
        """First `count` rows (count, 3h) of the noise held inside `shared_noise`, grown on demand."""
        assert self._shared is not None
        held = self._shared.get(name, s.new_empty(0, s.shape[0]))
        if held.shape[0] < count:
            more = torch.randn(count - held.shape[0], s.shape[0], dtype=s.dtype, device=s.device)
            self._shared[name] = held = torch.cat([held, more])
        return held[:count]


VARIATIONAL: dict[type[nn.Module], type[Variational]] = {
    nn.Linear: VariationalLinear,
    nn.GRUCell: VariationalGRUCell,
}
"""Dense class -> its variational class."""


def to_variational(module: nn.Module, noise: str = "local", log_sigma2: float = -8.0) -> Variational:
    """Turn a dense layer into its variational class, in place: same object, same Parameters, same hooks.

    No weight is copied and no random number is drawn, so ties with other modules hold.

    Raises
    ------
    DissectError
        If the layer is of another type than nn.Linear or nn.GRUCell, be it a subclass of one.
    """
    check_noise(noise)
    variational = VARIATIONAL.get(type(module))
    if variational is None:
        raise DissectError(f"cannot wrap {type(module).__name__}; valid types: nn.Linear, nn.GRUCell")
    module.__class__ = variational
    assert isinstance(module, Variational)
    module._add_variances(noise, log_sigma2)
    return module


def to_dense(module: Variational) -> nn.Module:
    """Turn a variational layer back into its dense class, in place; the weights are the means."""
    for _, log_variance in module.PAIRS:
        delattr(module, log_variance)
    for name in ("noise", "frozen", "_shared", "_masks"):
        module.__dict__.pop(name, None)
    dense: Any = module
    dense.__class__ = module.DENSE
    return dense


def variational_modules(model: nn.Module) -> Iterator[tuple[str, Variational]]:
    """Name and module of every variational layer, each module once."""
    for name, module in model.named_modules():
        if isinstance(module, Variational):
            yield name, module


def named_variational(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
    """Full name of the mean, mean and log variance of every wrapped matrix, tied ones once."""
    seen: set[int] = set()
    for prefix, module in variational_modules(model):
        for name, theta, s in module.pairs():
            if id(theta) not in seen:
                seen.add(id(theta))
                yield (f"{prefix}.{name}" if prefix else name), theta, s


def parameters_of(model: nn.Module) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Full name of each wrapped matrix -> (mean, log variance)."""
    return {name: (theta, s) for name, theta, s in named_variational(model)}


@contextmanager
def masked(model: nn.Module, rule: str = "log-alpha", threshold: float | None = None) -> Iterator[None]:
    """Inside, every wrapped layer uses theta * [kept] and no noise, in training mode too.

    The masks are those of the weights on entry. The former state comes back on exit, after an exception too.
    """
    get_rule(rule, threshold)
    modules = [module for _, module in variational_modules(model)]
    before = [module._masks for module in modules]
    try:
        for module in modules:
            module._masks = {name: keep_mask(theta, s, rule, threshold) for name, theta, s in module.pairs()}
        yield
    finally:
        for module, masks in zip(modules, before, strict=True):
            module._masks = masks


@contextmanager
def shared_noise(model: nn.Module) -> Iterator[None]:
    """Inside, all calls of one module share one draw of its weights (of its rows' noise, in a GRU cell under
    local).

    Linear maps under ``local`` noise are not concerned. Enter it once per training step, around the forward
    pass; a nested use goes on with the outer draw.
    """
    modules = [module for _, module in variational_modules(model) if module._shared is None]
    try:
        for module in modules:
            module._shared = {}
        yield
    finally:
        for module in modules:
            module._shared = None
