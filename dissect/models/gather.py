"""Row gathers and segment sums, in the forms that are cheap in both directions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """Rows `index` of an item table, (items, d) -> (len(index), d), with a sparse gradient.

    The loss over items already gives the table a dense gradient; a sparse one for the few rows looked up is
    added into it in place, where a dense one would cost another pass over the whole table.
    """
    return F.embedding(index, table, sparse=table.is_leaf and table.requires_grad)


def segment_sum(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Sum rows of `values`, (T, d), that share a segment number, (T,), into (count, d)."""
    return values.new_zeros(count, values.shape[1]).index_add(0, segment, values)
