"""Plain linear maps in place of torch's fused modules, so that noise reaches their single weights.

nn.GRU, nn.LSTM, nn.RNN and nn.MultiheadAttention hand all their weights to one kernel. `unfuse` turns them into
modules that compute the same from nn.Linear layers, which `wrap` can name; `fuse` turns them back after export.

>>> import torch
>>> from torch import nn
>>> from dissect.sparsity import wrap
>>> model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
>>> unfuse(model)[0].linear
('self_attn.query', 'self_attn.key', 'self_attn.value', 'self_attn.out')
>>> probe = wrap(model, {"attention": ["self_attn"]}, examples=100, steps=10)
>>> fuse(twin := probe.export()), type(twin.self_attn) is nn.MultiheadAttention
(['self_attn'], True)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from dissect.errors import DissectError
from dissect.sparsity.attention import MultiheadAttention
from dissect.sparsity.recurrent import GRU, LSTM, RNN
from dissect.sparsity.replacement import Replacement

REPLACEMENTS: dict[type[nn.Module], type[Replacement]] = {
    kind.FUSED: kind for kind in (GRU, LSTM, RNN, MultiheadAttention)
}
"""Fused class -> its replacement."""


@dataclass(frozen=True)
class Unfused:
    """One replaced module."""

    name: str
    old: str
    new: str
    linear: tuple[str, ...]
    """Full names of the linear maps, for `wrap`."""


def unfuse(model: nn.Module, names: str | Iterable[str] | None = None) -> list[Unfused]:
    """Turn fused modules into modules of plain linear maps with the same weights and outputs, in place.

    The modules change class and stay the same objects, so every name and reference leads to the new one; mode,
    hooks, types, devices and requires_grad hold, and no random number is drawn. Parameters are moved; only the
    packed projections of an attention are split into new ones, so build the optimizer afterwards. Checkpoints of
    the fused model load.

    A recurrence in Python is slower than the kernel, and `wrap` wants `shared_noise` around it: see `Recurrent`.
    nn.TransformerEncoder no longer takes its fused path in eval mode, so padded positions of its output, which that
    path fills with zeros, hold values as in training.

    Parameters
    ----------
    model : nn.Module
        Any model, or such a module itself.
    names : str or iterable of str, optional
        Module names, or patterns as in a shell (a ``*`` crosses dots); all that are there where left out.

    Returns
    -------
    list of Unfused
        A row for each replaced module; one that has two names counts once.

    Raises
    ------
    DissectError
        Before anything is changed: for a name without such a module, and for a module that can't be unfused (a
        subclass, add_bias_kv, add_zero_attn, proj_size, weights that are computed, packed weights that are shared).
    """
    fused = {name: m for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, tuple(REPLACEMENTS))}
    owners = _owners(model)
    valid = ", ".join(repr(name) for name, module in fused.items() if not _obstacle(module, owners)) or "none"
    chosen: dict[nn.Module, str] = {}
    for pattern in fused if names is None else [names] if isinstance(names, str) else names:
        matched = [pattern] if pattern in fused else [name for name in fused if fnmatchcase(name, pattern)]
        if not matched:
            raise DissectError(f"{pattern!r} matches no fused module; those that can be unfused: {valid}")
        for name in matched:
            chosen.setdefault(fused[name], name)
    for module, name in chosen.items():
        if why := _obstacle(module, owners):
            raise DissectError(f"{name!r} can't be unfused: {why}; those that can: {valid}")
    rows: list[Unfused] = []
    for module, name in chosen.items():
        kind, new = type(module).__name__, REPLACEMENTS[type(module)](module)
        linear = tuple(f"{name}.{child}" if name else child for child, _ in new.named_children())
        rows.append(Unfused(name, f"nn.{kind}", f"unfuse.{kind}", linear))
        _turn(module, new)
    return rows


def fuse(model: nn.Module) -> list[str]:
    """Turn every module that `unfuse` made back into torch's own class, in place; return their names.

    Weights and outputs are the same; packed weights are trainable where any of their pieces is.

    Raises
    ------
    DissectError
        Before anything is changed: where linear maps are wrapped (export first), or no longer plain ones, or
        have weights to be packed that are shared.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Replacement)}
    owners = _owners(model)
    for name, module in found.items():
        held = dict(module.named_parameters(remove_duplicate=False))
        if odd := sorted(held.keys() ^ {new for news in module.names(module).values() for new in news}):
            raise DissectError(f"{name!r} can't be fused: {odd[0]!r} is not that of a plain linear map; export() first")
        for new in module.names(module).values():
            if len(new) > 1 and any(owners[id(held[piece])] > 1 for piece in new):
                raise DissectError(f"{name!r} can't be fused: one of {', '.join(new)} is shared, and would be packed")
    for module in found.values():
        _turn(module, module.fused())
    return list(found)


def _obstacle(module: nn.Module, owners: Counter[int]) -> str:
    """Why a fused module can't be unfused, or nothing."""
    kind = REPLACEMENTS.get(type(module))
    if kind is None:
        return f"{type(module).__name__} is a subclass with code of its own, or parametrized"
    if getattr(module, "add_zero_attn", False):
        return "add_zero_attn is not supported"
    held, names = dict(module.named_parameters(remove_duplicate=False)), kind.names(module)
    if odd := sorted(held.keys() ^ names.keys()):
        return f"{odd[0]!r} is not as in a plain {kind.__name__} (add_bias_kv, proj_size, weight_norm, prune)"
    shared = [old for old, new in names.items() if len(new) > 1 and owners[id(held[old])] > 1]
    return f"{shared[0]!r} is shared with another module, and would be split" if shared else ""


def _owners(model: nn.Module) -> Counter[int]:
    """Id of each parameter -> how many places hold it, a module with two names being one."""
    held = (module.named_parameters(recurse=False, remove_duplicate=False) for module in model.modules())
    return Counter(id(parameter) for own in held for _, parameter in own)


_BARE = vars(nn.Module()).keys() - {"_parameters", "_modules"}
"""What a module has of nn.Module's own: mode, hooks, buffers."""


def _turn(module: nn.Module, new: nn.Module) -> None:
    """Give `module` the class and weights of `new`; it stays the same object, with its hooks and public attributes."""
    kept = {key: value for key, value in vars(module).items() if key in _BARE or not key.startswith("_")}
    taken = {key: value for key, value in vars(new).items() if key not in _BARE}
    module.__dict__.clear()
    module.__dict__.update(kept | taken)
    module.__class__ = type(new)
