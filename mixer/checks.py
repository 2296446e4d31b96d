"""What does not fit is refused by one line: a ValueError that says what was given, and what may be.

Shapes, types and devices are known to the host: but for `filled`, no check waits for an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from mixer.segments import segment_rows

#: What ids and lengths may be.
WHOLE = (torch.int64, torch.int32)


def whole(name: str, value: object, least: int = 1) -> None:
    """Refuse what is no whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} is {value!r}; it must be a whole number >= {least}")


def real(name: str, value: object, says: str, fits: Callable[[float], bool]) -> None:
    """Refuse what is no finite number that `fits`."""
    known = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if known else math.nan  # type: ignore[arg-type]
    if not (math.isfinite(number) and fits(number)):
        raise ValueError(f"{name} is {value!r}; it must {says}")


def exponent(value: object) -> None:
    """Refuse what is no exponent of a mixture."""
    real("p", value, "be a finite number >= 1", lambda p: p >= 1)


def positive(name: str, value: object) -> None:
    """Refuse what is no finite number above 0."""
    real(name, value, "be a finite number > 0", lambda x: x > 0)


def share(name: str, value: object) -> None:
    """Refuse what is no share that dropout can take."""
    real(name, value, "lie in [0, 1)", lambda x: 0 <= x < 1)


def flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False: the text "False" would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be True or False")


def choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse what is none of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose from: {', '.join(choices)}")


def tensor(name: str, value: object, shape: str) -> None:
    """Refuse what is no tensor; `shape` is what it should have."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is of type {type(value).__name__}; it must be a tensor, {shape}")


def whole_tensor(name: str, value: Tensor, shape: str) -> None:
    """Refuse what is no vector or table of whole numbers."""
    tensor(name, value, shape)
    if value.dtype not in WHOLE:
        raise ValueError(f"{name} is {value.dtype}; it must be int64 or int32, {shape}")


def states(name: str, value: Tensor, dims: int, width: int, shape: str, module: nn.Module) -> None:
    """Refuse what is no states of `width` of the type of `module`'s parameters; autocast brings types together."""
    tensor(name, value, shape)
    if value.dim() != dims or value.shape[-1] != width:
        raise ValueError(f"{name} is {tuple(value.shape)}; it must be {shape} with d = {width}")
    own = next((p.dtype for p in module.parameters()), value.dtype)  # a quantised module has no parameters
    if not value.is_floating_point() or (value.dtype != own and not torch.is_autocast_enabled(value.device.type)):
        raise ValueError(f"{name} is {value.dtype}, the parameters are {own}; they must be of one floating type")


def together(name: str, value: Tensor, other: str, values: Tensor) -> None:
    """Refuse tensors on two devices."""
    if value.device != values.device:
        raise ValueError(f"{name} is on {value.device}, {other} on {values.device}; they must be on one device")


def segments(lengths: Tensor, rows: Tensor, clicks: int) -> None:
    """Refuse lengths and rows that are not those of `clicks` packed clicks; on an accelerator shapes alone are read."""
    for name, value, shape in (("lengths", lengths, "(B,)"), ("rows", rows, "(T,)")):
        whole_tensor(name, value, shape)
        if value.dim() != 1:
            raise ValueError(f"{name} is {tuple(value.shape)}; it must be {shape}")
    if rows.numel() != clicks:
        raise ValueError(f"rows is {tuple(rows.shape)}, but there are {clicks} clicks; it must be (T,), one a click")
    if lengths.device.type == "cpu":
        filled(lengths, clicks)
        if not torch.equal(rows, segment_rows(lengths, clicks).to(rows.dtype)):
            raise ValueError("rows are not those of lengths; they must number each click's session: 0, ..., 0, 1, ...")


def filled(lengths: Tensor, clicks: int) -> None:
    """Refuse lengths that leave a session empty or do not add up to `clicks`; waits for the lengths' device."""
    if not lengths.numel() or int(lengths.min()) < 1:
        raise ValueError("every session needs at least one item")
    if int(lengths.sum()) != clicks:
        raise ValueError(f"lengths add up to {int(lengths.sum())}, but there are {clicks} states")
