"""Batch normalisation that can be given a single row."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, which a batch of one row, whose variance is nothing, does not stop: it is normalised by
    the running figures then."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (M, d)."""
        if self.training and input.shape[0] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)
