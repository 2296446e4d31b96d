"""What the variational layers share, and how they are found in a model, masked, and given common noise.

The mean keeps the dense layer's parameter name, so that a dense checkpoint loads (the log variances then stay as
they are). In training the weights are noisy; in eval the mean is used, or inside `masked` the mean of the kept
weights only. Biases are deterministic.

Under ``weight`` noise every call draws its own weights. A module called several times in one step (the same
matrix at every step of a recurrence or every layer of a propagation) should do so inside `shared_noise`: then
all its calls use one draw, as the posterior over weights asks (Gal and Ghahramani 2016, arXiv 1512.05287;
Chirkova et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity.density import get_rule, keep_mask
from dissect.sparsity.noise import check_noise, sample_weight
from dissect.sparsity.rows import Packed, keyed_normal, row_keys, session_of

SHADOW = "shadow_"


class Variational(nn.Module):
    """What the variational layers share: names of means and log variances, masks, shared and frozen noise."""

    PAIRS: ClassVar[tuple[tuple[str, str], ...]]
    """Parameter names (mean, log variance)."""
    DENSE: ClassVar[type[nn.Module]]
    """The dense class this layer stands in for."""
    noise: str
    frozen: dict[str, Tensor] | None = None
    """For tests: mean's name -> noise to use in place of a draw (of the outputs' shape, or the weights')."""
    columns: tuple[int, ...] = ()
    """Input columns that have a shadow; see `add_shadows`."""
    named: str = ""
    """Name of the layer in its model, for messages; `wrap` gives it."""
    _shared: dict[int, Tensor] | None = None
    _masks: dict[str, Tensor] | None = None
    _batch: Packed | None = None
    _seed: int = 0

    def pairs(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        """Name of the mean, mean, log variance; the last two of one shape."""
        for mean, log_variance in self.PAIRS:
            yield mean, self._own(mean), self._own(log_variance)

    def shadows(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        """Name of the mean that is shadowed, and the mean and log variance of its shadow columns."""
        if self.columns:
            mean, log_variance = self.PAIRS[0]
            yield mean, self._own(SHADOW + mean), self._own(SHADOW + log_variance)

    def add_shadows(self, count: int, seed: int = 0) -> bool:
        """Give the input `count` shadow columns: what is kept of weights that have nothing to say.

        In training, the first matrix also reads normal noise that is a fixed function of the example and the row's
        place in it, as large (root mean square) as `count` of its input columns, spread evenly over them. Like an
        input that doesn't matter, it can be fitted by chance and tells nothing about other examples: noise drawn anew
        at each step could not be fitted at all, and would set the null too low (shadow features, though by shuffling:
        Kursa and Rudnicki 2010, "Feature selection with the Boruta package"). Its weights start as copies of those
        columns' weights, and are trained, penalised and counted as the others are. In eval it is not there.

        It is the null for noise, not for inputs that are redundant; and where examples are seen once or twice only, the
        noise is in effect new each time, and the null low.

        The forward pass must run inside `shared_noise` with the batch.

        Parameters
        ----------
        count : int
            At most the columns of the matrix.
        seed : int
            Another for each layer.

        Returns
        -------
        bool
            False, and no shadows, for a layer that can't have any.
        """
        mean, log_variance = self.PAIRS[0] if self.PAIRS else ("", "")
        if not self._can_shadow() or count < 1:
            return False
        theta, s = self._own(mean), self._own(log_variance)
        step = max(theta.shape[1] / count, 1)
        self.columns = tuple(int(i * step) for i in range(min(count, theta.shape[1])))
        self._seed = seed
        for name, tensor in ((mean, theta), (log_variance, s)):
            copy = tensor.detach()[:, list(self.columns)].clone()
            self.register_parameter(SHADOW + name, nn.Parameter(copy))
        return True

    def remove_shadows(self) -> None:
        """Take the shadow columns away again."""
        if self.columns:
            for name in self.PAIRS[0]:
                delattr(self, SHADOW + name)
        for name in ("columns", "_seed"):
            self.__dict__.pop(name, None)

    def _can_shadow(self) -> bool:
        return False

    @property
    def described(self) -> str:
        """What messages call this layer: its kind and, once `wrap` has given it one, its name."""
        return f"{self.DENSE.__name__} {self.named!r}" if self.named else self.DENSE.__name__

    def _own(self, name: str) -> nn.Parameter:
        parameter = self._parameters[name]
        assert parameter is not None
        return parameter

    def _log_variance(self, name: str) -> nn.Parameter:
        prefix, bare = (SHADOW, name[len(SHADOW) :]) if name.startswith(SHADOW) else ("", name)
        return self._own(prefix + dict(self.PAIRS)[bare])

    def _add_variances(self, noise: str, log_sigma2: float) -> None:
        self.noise = check_noise(noise)
        for mean, log_variance in self.PAIRS:
            if log_variance in self._parameters:
                continue
            theta = self._own(mean)
            # fp32 at least: -10 + 1e-3 == -10 in half precision.
            s = torch.full_like(theta, log_sigma2, dtype=torch.promote_types(theta.dtype, torch.float32))
            self.register_parameter(log_variance, nn.Parameter(s.detach()))

    def _weight(self, name: str) -> Tensor:
        """The matrix of a deterministic call or, under weight noise, of a noisy one."""
        theta = self._own(name)
        if self._masks is not None:
            mask = self._masks.get(name)
            return theta if mask is None else theta * mask
        if not self.training:
            return theta
        key = id(theta)  # of tied matrices there is one draw
        if self._shared is not None and key in self._shared:
            return self._shared[key]
        eps = None if self.frozen is None else self.frozen.get(name)
        weight = sample_weight(theta, self._log_variance(name), eps)
        if self._shared is not None:
            self._shared[key] = weight
        return weight

    def _noise_on_outputs(self) -> bool:
        return self.training and self.noise in ("local", "row") and self._masks is None

    def _shadows_on(self) -> bool:
        return bool(self.columns) and self.training and self._masks is None

    def _shadow_rows(self, rows: Tensor) -> Tensor:
        """The shadow columns of input rows (..., in): (..., columns)."""
        if self._batch is None:
            raise DissectError(
                "shadow columns have to know the examples: run the training step's forward pass inside "
                "`with instrument.drawing(batch):`, where dissect.sparsity.Examples(numbers) is such a batch"
            )
        shape = rows.shape[:-1]
        with torch.no_grad():
            flat = rows.detach()[..., list(self.columns)].reshape(-1, len(self.columns)).float()
            scale = flat.square().mean(0).sqrt()  # what noise on a weight costs depends on this, not on the spread
            keys = row_keys(self._batch, tuple(shape), self.described)
            drawn = keyed_normal(keys, len(self.columns), self._seed) * scale
        return drawn.to(rows.dtype).view(*shape, len(self.columns))

    def _eps(self, name: str, rows: tuple[int, ...], width: int, fixed: bool = False) -> Tensor | None:
        """Noise on the outputs of one call; None for a fresh draw on each.

        Parameters
        ----------
        name : str
            Of the mean.
        rows : tuple of int
            Shape of the input without its columns; of several axes the first counts the examples.
        width : int
            Output units.
        fixed : bool
            Whether each row's noise is the same at every call inside `shared_noise`, under ``local`` noise too.

        Returns
        -------
        Tensor, broadcasting to (*rows, width), or None
        """
        if self.frozen is not None and name in self.frozen:
            return self.frozen[name]
        if self.noise == "local":
            return self._held(name, rows[0], width) if fixed and self._shared is not None else None
        if len(rows) != 1:
            count, inner = (rows[0], len(rows) - 1) if rows else (1, 0)
            if self._batch is not None and rows and count != len(self._batch):
                raise DissectError(
                    f"row noise: {self.described} was given {count} examples in a batch of {len(self._batch)}; "
                    "the first axis must be that of the examples"
                )
            drawn = self._held(name, count, width)
            return drawn.view(count, *(1,) * inner, width) if rows else drawn[0]
        if self._batch is None:  # every row is an example
            return self._held(name, rows[0], width)
        session = session_of(self._batch, rows[0], self.described)
        return self._held(name, len(self._batch), width).index_select(0, session)

    def _held(self, name: str, count: int, width: int) -> Tensor:
        """`count` rows (count, width) of noise: inside `shared_noise` the first ones of those held, grown on demand."""
        s = self._log_variance(name)
        key = id(self._own(name))
        held = s.new_empty(0, width) if self._shared is None else self._shared.get(key, s.new_empty(0, width))
        if held.shape[0] < count:
            more = torch.randn(count - held.shape[0], width, dtype=s.dtype, device=s.device)
            held = torch.cat([held, more]) if held.shape[0] else more
            if self._shared is not None:
                self._shared[key] = held
        return held[:count]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # A dense checkpoint has the mean and nothing else: fill in what is present, so that strict loading passes.
        means = [mean for mean, _ in self.PAIRS]
        if all(prefix + mean in state_dict for mean in means):
            extra = [log_variance for _, log_variance in self.PAIRS]
            extra += [SHADOW + name for name in self.PAIRS[0]] if self.columns else []
            for name in extra:
                state_dict.setdefault(prefix + name, self._own(name).detach())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


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
def masked(
    model: nn.Module, rule: str = "log-alpha", threshold: float | None = None, only: Iterable[nn.Module] | None = None
) -> Iterator[None]:
    """Inside, every wrapped layer uses theta * [kept] and no noise, in training mode too.

    The masks are those of the weights on entry. The former state comes back on exit, after an exception too.

    Parameters
    ----------
    model : nn.Module
    rule, threshold
        What is kept.
    only : iterable of modules, optional
        The wrapped modules that lose weights; the others keep all of theirs. By default all of them.
    """
    get_rule(rule, threshold)
    modules = [module for _, module in variational_modules(model)]
    chosen = None if only is None else {id(module) for module in only}
    before = [module._masks for module in modules]
    try:
        for module in modules:
            pairs = module.pairs() if chosen is None or id(module) in chosen else ()
            module._masks = {name: keep_mask(theta, s, rule, threshold) for name, theta, s in pairs}
        yield
    finally:
        for module, masks in zip(modules, before, strict=True):
            module._masks = masks


@contextmanager
def shared_noise(model: nn.Module, batch: Packed | None = None) -> Iterator[None]:
    """Inside, all calls of one module share one draw: of its weights, or of the noise of each row or example.

    Linear maps under ``local`` noise are not concerned. Enter it once per training step, around the forward
    pass; a nested use goes on with the outer draw.

    Parameters
    ----------
    model : nn.Module
    batch : Packed, optional
        For shadow columns, and for ``row`` noise on packed rows, which have no axis of examples. Without it each row
        of a two-dimensional input is an example of its own to ``row`` noise.
    """
    modules = [module for _, module in variational_modules(model) if module._shared is None]
    shared: dict[int, Tensor] = {}
    try:
        for module in modules:
            module._shared, module._batch = shared, batch
        yield
    finally:
        for module in modules:
            module._shared = module._batch = None
