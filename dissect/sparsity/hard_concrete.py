"""L0 regularization by hard concrete gates: another way to learn which weights are kept.

Every weight is multiplied by a gate z in [0, 1] that is exactly 0, and exactly 1, with a probability above zero
(Louizos, Welling, Kingma 2018, arXiv 1712.01312, Eq. 10 to 13). With u uniform on (0, 1):

    z = clamp(sigmoid((logit(u) + log_a) / beta) * (zeta - gamma) + gamma, 0, 1)
    P(z > 0) = sigmoid(log_a - beta * log(-gamma / zeta))

and without noise z = clamp(sigmoid(log_a) * (zeta - gamma) + gamma, 0, 1), which is 0 where log_a <= -2.398 and 1
where log_a >= 2.398. The penalty is the expected number of open gates.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dissect.errors import DissectError
from dissect.sparsity.parts import matrices_of, resolve_parts

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


def hard_concrete(log_a: Tensor, uniform: Tensor | None = None) -> Tensor:
    """Gates in [0, 1] from their locations; noisy with `uniform` noise of the same shape, certain without."""
    s = torch.sigmoid(log_a if uniform is None else (uniform.logit() + log_a) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def open_probability(log_a: Tensor) -> Tensor:
    """Probability that a noisy gate is not zero (arXiv 1712.01312, Eq. 12)."""
    return torch.sigmoid(log_a - BETA * math.log(-GAMMA / ZETA))


class HardConcrete(nn.Module):
    """A gate for each weight, as a parametrization of the weight; `log_a` has its shape.

    Parameters
    ----------
    weight : Tensor
        Gives shape, device and, single precision at least, type.
    log_a : float
        Initial location of the gates.
    """

    frozen: Tensor | None = None
    """For tests: uniform noise to use in place of a draw."""

    def __init__(self, weight: Tensor, log_a: float) -> None:
        super().__init__()
        dtype = torch.promote_types(weight.dtype, torch.float32)  # small steps are lost in half precision
        self.log_a = nn.Parameter(torch.full_like(weight, log_a, dtype=dtype).detach())

    def forward(self, weight: Tensor) -> Tensor:
        """The gated weight: with a fresh draw of the gates in training mode, with the certain gates else."""
        uniform = None
        if self.training:
            uniform = torch.rand_like(self.log_a) if self.frozen is None else self.frozen
        return (weight * hard_concrete(self.log_a, uniform)).to(weight.dtype)


class L0:
    """Hard concrete gates on the weights of one model; made by `l0_wrap`.

    Attributes
    ----------
    model : nn.Module
        The gated model, the same object as was given.
    gates : dict of str to HardConcrete
        Full parameter name, as it was before, -> gates.
    """

    def __init__(
        self, model: nn.Module, matrices: dict[str, tuple[nn.Module, str]], examples: int, lam: float, log_a: float
    ) -> None:
        self.model, self.examples, self.lam = model, examples, lam
        self._matrices = matrices
        self.gates: dict[str, HardConcrete] = {}
        for name, (module, weight) in matrices.items():
            self.gates[name] = gate = HardConcrete(getattr(module, weight), log_a)
            # unsafe skips a check of shape and type, which would draw gates, so random numbers.
            parametrize.register_parametrization(module, weight, gate, unsafe=True)
            self._chain(name).train(module.training)

    def penalty(self) -> Tensor:
        """What to add to a batch's mean loss: lam * (expected number of open gates) / examples."""
        total = sum((open_probability(gate.log_a).sum() for gate in self.gates.values()), torch.zeros(()))
        return total * (self.lam / self.examples)

    def param_groups(self, lr: float, lr_gates: float = 1e-2, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimizer, each with a "name": 'wrapped' weights, their 'gates', and the 'rest'.

        Decay reaches the rest only.
        """
        gates = [gate.log_a for gate in self.gates.values()]
        weights = [self._original(name) for name in self.gates]
        inside = {id(p) for p in (*gates, *weights)}
        rest = [p for p in self.model.parameters() if id(p) not in inside]
        groups = [
            {"name": "wrapped", "params": weights, "lr": lr, "weight_decay": 0.0},
            {"name": "gates", "params": gates, "lr": lr_gates, "weight_decay": 0.0},
            {"name": "rest", "params": rest, "lr": lr, "weight_decay": weight_decay},
        ]
        return [group for group in groups if group["params"]]

    def _chain(self, name: str) -> parametrize.ParametrizationList:
        module, weight = self._matrices[name]
        chains: Any = module.parametrizations
        return chains[weight]

    def _original(self, name: str) -> nn.Parameter:
        original = self._chain(name).original
        assert isinstance(original, nn.Parameter)
        return original

    @torch.no_grad()
    def masks(self) -> dict[str, Tensor]:
        """Full parameter name -> bool mask, true where the certain gate is above zero."""
        return {name: hard_concrete(gate.log_a) > 0 for name, gate in self.gates.items()}

    def kept(self) -> dict[str, tuple[int, int]]:
        """Full parameter name -> weights whose certain gate is above zero, and all its weights."""
        return {name: (int(mask.sum()), mask.numel()) for name, mask in self.masks().items()}

    @torch.no_grad()
    def export(self) -> nn.Module:
        """A dense copy of the model: the original classes and names, weights times their certain gates."""
        twin = copy.deepcopy(self.model)
        for name in self.gates:
            prefix, _, weight = name.rpartition(".")
            module = twin.get_submodule(prefix)
            # A copy shares the class that parametrize made for the original, and removal takes the attribute from it.
            shared = type(module)
            own: Any = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            module.__class__ = own
            module.parametrizations[weight].eval()  # pyright: ignore
            parametrize.remove_parametrizations(module, weight, leave_parametrized=True)
        return twin


def l0_wrap(model: nn.Module, names: str | Iterable[str], examples: int, *, lam: float = 1.0, log_a: float = 2.5) -> L0:
    """Give each weight of the named modules a hard concrete gate, in place, and return what reads the gates.

    The gates are a parametrization of the weight (torch.nn.utils.parametrize), so the model's code stays as it is. In
    training mode they are drawn anew each time a module is called; within ``parametrize.cached()``, around a forward
    pass, once. Build the optimizer afterwards, from `L0.param_groups`.

    Parameters
    ----------
    model : nn.Module
    names : str or iterable of str
        Names or patterns of layers, such as nn.Linear; see `parts.resolve_parts`.
    examples : int
        Number of training examples N, after augmentation: the penalty is divided by it.
    lam : float
        Weight of one open gate, in units of the loss summed over the examples.
    log_a : float
        Initial location of the gates. From 2.398 on the certain gates are 1, so that the wrapped model equals the dense
        one in evaluation mode; the probability of a closed gate is 1.6% at 2.5.

    Raises
    ------
    DissectError
        For unknown names, modules that can't be gated, tied weights, and figures out of range.

    References
    ----------
    Louizos, Welling, Kingma 2018, arXiv 1712.01312.
    """
    if examples < 1:
        raise DissectError(f"examples must be at least 1, got {examples}")
    if not 0 <= lam < math.inf:
        raise DissectError(f"lam must be a finite number of at least 0, got {lam}")
    if not math.isfinite(log_a):
        raise DissectError(f"log_a must be a finite number, got {log_a}")
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    matrices: dict[str, tuple[nn.Module, str]] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in resolve_parts(model, {"l0": [names] if isinstance(names, str) else list(names)})["l0"]:
        for full in matrices_of(name, modules):
            prefix, _, weight = full.rpartition(".")
            if owners[id(getattr(modules[prefix], weight))] > 1:
                raise DissectError(f"{full!r} is tied to another module's parameter; gates need a weight of one module")
            matrices[full] = modules[prefix], weight
    return L0(model, matrices, examples, lam, log_a)
