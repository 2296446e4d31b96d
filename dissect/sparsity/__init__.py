"""Sparse variational dropout on named parts of any model: which weights does the accuracy need?

The whole use is five lines: wrap, param_groups, penalty, density, export.

>>> import torch
>>> from torch import nn
>>> from dissect.sparsity import wrap
>>> _ = torch.manual_seed(0)
>>> x = torch.randn(1000, 20)
>>> y = x[:, :1]                                             # only the first of 20 inputs matters
>>> model = nn.Sequential(nn.Linear(20, 1))
>>> probe = wrap(model, {"map": ["0"]}, examples=1000, steps=1000)                       # 1
>>> optimizer = torch.optim.Adam(probe.param_groups(lr=2e-3, lr_sigma=2e-2))             # 2
>>> for step in range(1000):
...     loss = ((model(x) - y) ** 2).mean() + probe.penalty(step)                        # 3
...     optimizer.zero_grad(); loss.backward(); optimizer.step()
>>> [(row["part"], row["kept"], row["total"]) for row in probe.density() if row["tensor"] is None]  # 4
[('map', 1, 20)]
>>> int(probe.export()[0].weight.count_nonzero())                                        # 5
1
"""

from dissect.sparsity.density import RULES, keep_mask, kept_curve, settled
from dissect.sparsity.instrument import Instrument, Receipt, Row
from dissect.sparsity.noise import NOISES
from dissect.sparsity.parts import ALIASES, resolve_parts
from dissect.sparsity.penalty import (
    PRIORS,
    kl_ard,
    kl_log_uniform,
    kl_normal,
    kl_sum,
    kl_total,
    log_alpha,
    warmup_weight,
)
from dissect.sparsity.prune import prune_counts, pruned_copy
from dissect.sparsity.variational import (
    VariationalGRUCell,
    VariationalLinear,
    masked,
    named_variational,
    parameters_of,
    shared_noise,
)
from dissect.sparsity.wrap import wrap

__all__ = [
    "ALIASES",
    "Instrument",
    "NOISES",
    "PRIORS",
    "RULES",
    "Receipt",
    "Row",
    "VariationalGRUCell",
    "VariationalLinear",
    "keep_mask",
    "kept_curve",
    "kl_ard",
    "kl_log_uniform",
    "kl_normal",
    "kl_sum",
    "kl_total",
    "log_alpha",
    "masked",
    "named_variational",
    "parameters_of",
    "prune_counts",
    "pruned_copy",
    "resolve_parts",
    "settled",
    "shared_noise",
    "warmup_weight",
    "wrap",
]
