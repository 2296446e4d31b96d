"""Weights on disk: safetensors, whole or not there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from dissect.errors import DissectError
from dissect.experiment import record


def write_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's parameters as safetensors, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with record.replacing(path) as temporary:
            save_file({k: v.contiguous().cpu() for k, v in model.state_dict().items()}, temporary)
    except (OSError, SafetensorError) as error:
        raise DissectError(f"can't write {path}: {' '.join(str(error).split())}") from None


def weight_names(path: Path) -> frozenset[str]:
    """Names of the tensors in a file of weights; none for one that can't be read, which `load_weights` says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return frozenset(file.keys())
    except (OSError, SafetensorError):
        return frozenset()


def load_weights(model: torch.nn.Module, path: Path, but: Collection[str] = ()) -> None:
    """Load model.safetensors of a run into `model`, but for what is named in `but`.

    Raises
    ------
    DissectError
        If it is not there, damaged or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except OSError:
        raise DissectError(f"no weights at {path}") from None
    except SafetensorError as error:
        raise DissectError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    own, counted = model.state_dict(), getattr(model, "counted", ())
    wrong = [k for k in own if k not in weights or (k not in counted and weights[k].shape != own[k].shape)]
    if wrong:
        said = [
            f"{k} {'x'.join(map(str, weights[k].shape))}, here {'x'.join(map(str, own[k].shape))}"
            if k in weights
            else f"{k} missing"
            for k in wrong
        ]
        more = f" and {len(said) - 3} more" if len(said) > 3 else ""
        raise DissectError(f"{path} does not fit this model: {'; '.join(said[:3])}{more}")
    model.load_state_dict({k: own[k] if k in but else weights[k] for k in own})
