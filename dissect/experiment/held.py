"""Weights of a session model set to zero: for one evaluation, or held there for a whole training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.experiment.record import replacing
from dissect.models import SessionModel
from dissect.sparsity import hold_masks
from dissect.sparsity.parts import choose_parts

Masks = Mapping[str, Tensor]


def matrices(model: SessionModel, part: str) -> list[str]:
    """Full names of the weights of a part, biases left out; empty for a part without parameters."""
    names = []
    for module in model.parts().get(part, ()):
        for name, parameter in model.get_submodule(module).named_parameters():
            if parameter.dim() > 1 and "log_sigma2" not in name and "shadow_" not in name:
                names.append(f"{module}.{name}")
    return names


def biases(model: SessionModel, part: str) -> list[str]:
    """Full names of the biases of a part's modules."""
    return [
        f"{module}.{name}"
        for module in model.parts().get(part, ())
        for name, parameter in model.get_submodule(module).named_parameters()
        if parameter.dim() == 1
    ]


def all_dropped(model: SessionModel, part: str) -> dict[str, Tensor]:
    """Masks under which a part keeps nothing: its maps give zero, whatever comes in.

    Biases go too. One that stays tells a graph's node whether it has edges: the sum of the messages along no edge is
    zero, that along any is the bias.
    """
    names = [*matrices(model, part), *biases(model, part)]
    return {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in names}


def deleted(model: SessionModel, parts: str) -> dict[str, Tensor]:
    """Masks that delete parts or aliases, joined by commas.

    Raises
    ------
    DissectError
        For an unknown part, and where there are no weights to delete.
    """
    chosen = choose_parts(model.parts(), [p.strip() for p in parts.split(",")])
    masks = {name: mask for part in model.parts() if part in chosen for name, mask in all_dropped(model, part).items()}
    if not masks:
        raise DissectError(f"--delete {parts}: no parameters to delete")
    return masks


@contextmanager
def holding(model: nn.Module, masks: Masks, restore: bool = False) -> Iterator[None]:
    """Inside, the masked-out weights are zero and stay so in training.

    Parameters
    ----------
    model : Module
        With plain dense parameters of those names.
    masks : mapping of str to Tensor
        Parameter -> where it is kept.
    restore : bool
        Whether the weights come back on exit.
    """
    before = {name: model.get_parameter(name).detach().clone() for name in masks} if restore else {}
    try:
        with hold_masks(model, masks):
            yield
    finally:
        with torch.no_grad():
            for name, value in before.items():
                model.get_parameter(name).copy_(value)


def write_masks(masks: Masks, path: Path) -> None:
    """Write masks as safetensors, whole or not at all.

    Raises
    ------
    DissectError
        If it can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path) as temporary:
            save_file({name: mask.to("cpu", torch.bool).contiguous() for name, mask in masks.items()}, temporary)
    except (OSError, SafetensorError) as error:
        raise DissectError(f"can't write {path}: {' '.join(str(error).split())}") from None


def read_masks(path: Path | str) -> dict[str, Tensor]:
    """Masks as `write_masks` wrote them.

    Raises
    ------
    DissectError
        If the file is not there, damaged, or holds something else than masks.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        masks = load_file(path)
    except OSError:
        raise DissectError(f"no masks at {path}") from None
    except SafetensorError as error:
        raise DissectError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    other = [name for name, mask in masks.items() if mask.dtype != torch.bool]
    if other or not masks:
        raise DissectError(f"{path} holds no masks" + (f": {other[0]!r} is {masks[other[0]].dtype}" if other else ""))
    return masks


def digest(masks: Masks) -> str:
    """What tells one set of masks from another, 16 hexadecimal digits."""
    total = hashlib.sha256()
    for name in sorted(masks):
        total.update(name.encode() + str(tuple(masks[name].shape)).encode() + masks[name].cpu().numpy().tobytes())
    return total.hexdigest()[:16]
