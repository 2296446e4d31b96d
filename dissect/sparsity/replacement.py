"""What stands in for a fused module: its weights in plain linear maps, its checkpoints, and the way back."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

Names = dict[str, tuple[str, ...]]
"""Name of a fused module's parameter -> what its equal pieces are called in the linear maps."""


class Replacement(nn.Module):
    """What the replacements share: taking the weights of a fused module, its checkpoints, and the way back.

    Parameters
    ----------
    fused : nn.Module
        The module to take the weights of; a matrix that is not split stays the same Parameter.
    """

    FUSED: ClassVar[type[nn.Module]]
    OPTIONS: ClassVar[tuple[str, ...]]
    """Attributes that are also arguments of the fused class."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        for option in self.OPTIONS:
            setattr(self, option, getattr(fused, option))
        maps: dict[str, dict[str, nn.Parameter]] = {}
        for old, new in self.names(fused).items():
            for name, piece in zip(new, _split(fused.get_parameter(old), len(new)), strict=True):
                linear, _, kind = name.partition(".")
                maps.setdefault(linear, {})[kind] = piece
        for name, pieces in maps.items():
            self.add_module(name, _linear(**pieces))
        self.train(fused.training)

    @staticmethod
    def names(module: Any) -> Names:
        """The parameters of a fused module, or of its replacement, in the fused module's order."""
        raise NotImplementedError

    @property
    def bias(self) -> bool:
        """Whether the linear maps have biases."""
        return any(name.endswith(".bias") for name, _ in self.named_parameters())

    def fused(self) -> nn.Module:
        """A module of the fused class with these weights."""
        options = {option: getattr(self, option) for option in self.OPTIONS}
        fused = self.FUSED(**options, bias=self.bias, device="meta")  # no memory, no random numbers
        for old, new in self.names(self).items():
            owner, _, leaf = old.rpartition(".")
            setattr(fused.get_submodule(owner), leaf, _join([self.get_parameter(name) for name in new]))
        return fused.train(self.training)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # A checkpoint of the fused module: give its tensors the names of the linear maps, which load after this.
        for old, new in self.names(self).items():
            if prefix + old in state_dict:
                pieces = state_dict.pop(prefix + old).chunk(len(new))
                for name, piece in zip(new, pieces, strict=False):  # torch names what is missing or of another size
                    state_dict[prefix + name] = piece
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _split(parameter: nn.Parameter, count: int) -> list[nn.Parameter]:
    if count == 1:
        return [parameter]
    return [nn.Parameter(p.clone(), parameter.requires_grad) for p in parameter.detach().chunk(count)]


def _join(pieces: list[nn.Parameter]) -> nn.Parameter:
    if len(pieces) == 1:
        return pieces[0]
    return nn.Parameter(torch.cat([p.detach() for p in pieces]), any(p.requires_grad for p in pieces))


def _linear(weight: nn.Parameter, bias: nn.Parameter | None = None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = weight
    if bias is not None:
        linear.bias = bias
    return linear
