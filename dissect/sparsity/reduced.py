"""Linear maps without their all-zero rows and columns, that take and give what the dense ones do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F


class Reduced(nn.Module):
    """A linear map without its all-zero rows and columns; takes and gives what the dense one does.

    Attributes
    ----------
    kernel : Parameter, shape (kept rows, kept columns, ...)
    bias : Parameter of shape (out,) or None
        Whole: an output without weights is its bias.
    rows, columns : int32 Tensor or None
        Which outputs and inputs are kept; None for all of them.
    """

    DIM: ClassVar[int]
    """The dimension of the input that holds its units."""
    rows: Tensor | None
    columns: Tensor | None

    def __init__(self, dense: nn.Linear | nn.Conv1d) -> None:
        super().__init__()
        weight = dense.weight.detach()
        self.outputs, self.inputs = weight.shape[:2]
        for name, kept in zip(("rows", "columns"), used(weight), strict=True):
            index = kept.nonzero().flatten()
            self.register_buffer(name, None if kept.all() else index.int())
            weight = weight.index_select(0, index).transpose(0, 1)  # twice over: rows, then columns
        self.kernel = nn.Parameter(weight.contiguous(), requires_grad=dense.weight.requires_grad)
        self.bias = dense.bias
        self.train(dense.training)

    def forward(self, input: Tensor) -> Tensor:
        """Output of the dense map, of its shape."""
        if self.columns is not None:
            input = input.index_select(self.DIM, self.columns)
        if self.rows is None or self.bias is None:
            return spread(self._map(input, self.bias), self.DIM, self.rows, self.outputs)
        small = self._map(input, self.bias.index_select(0, self.rows))
        shape = list(small.shape)
        shape[self.DIM] = self.outputs
        column = self.bias.to(small.dtype).view(-1, *[1] * (-1 - self.DIM))
        return column.expand(shape).index_copy(self.DIM, self.rows.long(), small)

    @property
    def weight(self) -> Tensor:
        """The dense matrix, put together anew: for code that reads it without calling the module."""
        return spread(spread(self.kernel, 1, self.columns, self.inputs), 0, self.rows, self.outputs)

    def _map(self, input: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError


class ReducedLinear(Reduced):
    """nn.Linear without its all-zero rows and columns: (..., in) to (..., out)."""

    DIM = -1

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__(dense)
        self.in_features, self.out_features = dense.in_features, dense.out_features

    def _map(self, input: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(input, self.kernel, bias)


class ReducedConv1d(Reduced):
    """nn.Conv1d of one group without its all-zero channels: (..., in, length) to (..., out, length)."""

    DIM = -2

    def __init__(self, dense: nn.Conv1d) -> None:
        super().__init__(dense)
        self.in_channels, self.out_channels = dense.in_channels, dense.out_channels
        self.stride, self.padding, self.dilation = dense.stride, dense.padding, dense.dilation

    def _map(self, input: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv1d(input, self.kernel, bias, self.stride, self.padding, self.dilation)  # pyright: ignore


def used(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows and columns of a (out, in, ...) weight hold anything but zeros."""
    return weight.flatten(1).any(1), weight.transpose(0, 1).flatten(1).any(1)


def spread(small: Tensor, dim: int, index: Tensor | None, size: int) -> Tensor:
    """Zeros of `size` along `dim`, with `small` at the places of `index`."""
    if index is None:
        return small
    shape = list(small.shape)
    shape[dim] = size
    return small.new_zeros(shape).index_copy(dim, index.long(), small)


REDUCED: dict[type[nn.Module], Callable[[Any], Reduced]] = {nn.Linear: ReducedLinear, nn.Conv1d: ReducedConv1d}
"""Dense type -> its reduced one."""
