"""Sums and softmaxes over the clicks of each session, on packed clicks: no padding, so none to mask."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_sum(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Sum rows of `values`, (T, ...), that share a segment number, (T,), into (count, ...)."""
    return values.new_zeros(count, *values.shape[1:]).index_add(0, segment, values)


def segment_rows(lengths: Tensor, clicks: int) -> Tensor:
    """Segment number of each of `clicks` packed rows, (T,), from the segments' lengths, (B,)."""
    every = torch.arange(lengths.numel(), device=lengths.device)
    return torch.repeat_interleave(every, lengths, output_size=clicks)


def segment_softmax(logits: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """Softmax of each column over each segment.

    Parameters
    ----------
    logits : Tensor, (T, C)
    lengths : Tensor, (B,) int64
        Rows of each segment, segment after segment; none is empty.
    rows : Tensor, (T,) int64
        Segment of each row.

    Returns
    -------
    Tensor, (T, C)
    """
    with torch.no_grad():  # the shift changes no value, so it needs no gradient
        peak = torch.segment_reduce(logits.float(), "max", lengths=lengths, axis=0, unsafe=True).to(logits.dtype)
    weights = torch.exp(logits - peak.index_select(0, rows))
    return weights / segment_sum(weights, rows, lengths.numel()).index_select(0, rows)
