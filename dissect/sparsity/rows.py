"""Which example each row of a layer's input belongs to: what `row` noise and shadow columns have to know.

Layers see rows: clicks, nodes or whole sessions, packed one after the other, or an axis of examples and one of
positions. `Packed` is what a batch tells about them; `Examples` is the batch of a model without packing.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dissect.errors import DissectError

# Multipliers and shifts of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"),
# written as signed numbers: int64 products wrap around as unsigned ones do.
_GOLDEN, _MIX1, _MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


class Packed(Protocol):
    """What a batch of B examples tells about its rows."""

    def __len__(self) -> int:
        """B."""
        ...

    def session_of(self, count: int) -> Tensor | None:
        """Example of each row of a tensor with `count` rows, (count,) int64, ascending; None where not known."""
        ...

    def keys(self) -> Tensor:
        """A number for each example, (B,) int64, the same whenever the example comes."""
        ...


class Examples:
    """A batch whose layers see one row for each example, or an axis of examples first.

    Parameters
    ----------
    numbers : Tensor, (B,) int64
        The examples' numbers in the data set.
    """

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return self.numbers.numel()

    def keys(self) -> Tensor:
        """The examples' numbers."""
        return self.numbers

    def session_of(self, count: int) -> Tensor | None:
        """Row i is example i."""
        return torch.arange(count, device=self.numbers.device) if count == len(self) else None


def session_of(batch: Packed, count: int, where: str) -> Tensor:
    """As `Packed.session_of`; a DissectError where it is not known."""
    session = batch.session_of(count)
    if session is None:
        raise DissectError(f"the examples that the {count} rows given to {where} belong to aren't known to the batch")
    return session


def row_keys(batch: Packed, rows: tuple[int, ...], where: str) -> Tensor:
    """A number for each row, (rows,) int64 in all: its example's, mixed with its place in the example.

    Parameters
    ----------
    batch : Packed
    rows : tuple of int
        Shape of the input without its columns; of several axes the first counts the examples.
    where : str
        Named in errors.
    """
    if len(rows) > 1:
        inner = torch.arange(torch.Size(rows[1:]).numel(), device=batch.keys().device)
        if rows[0] != len(batch):
            raise DissectError(f"{where} was given {rows[0]} examples in a batch of {len(batch)}")
        return mix(batch.keys()[:, None] + inner * _GOLDEN).flatten()
    session = session_of(batch, rows[0] if rows else 1, where)
    counts = torch.bincount(session, minlength=len(batch))
    place = torch.arange(session.numel(), device=session.device) - (counts.cumsum(0) - counts)[session]
    return mix(batch.keys()[session] + place * _GOLDEN)


def keyed_normal(keys: Tensor, columns: int, seed: int) -> Tensor:
    """Standard normal numbers that are a function of key, column and seed, (rows, columns) float32."""
    column = mix(torch.arange(columns, device=keys.device) + (seed << 32))
    bits = mix(keys[:, None] + column)
    # 23 bits and a half: in fp32 a 24th would round the largest to 1, whose normal number is infinite.
    uniform = ((bits >> 41) & 0x7FFFFF).float().add_(0.5).div_(1 << 23)
    return torch.erfinv(uniform.mul_(2).sub_(1)).mul_(2**0.5)


def mix(x: Tensor) -> Tensor:
    """Scramble int64 numbers: SplitMix64's finaliser after a step of its golden ratio."""
    x = x + _GOLDEN
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
