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

from dissect.sparsity.comparators import METHODS, iterative_magnitude, select_masks
from dissect.sparsity.density import RULES, keep_mask, kept_curve, moved, settled
from dissect.sparsity.hard_concrete import L0, l0_wrap
from dissect.sparsity.instrument import Instrument
from dissect.sparsity.layers import VariationalConv1d, VariationalGRUCell, VariationalLinear
from dissect.sparsity.masks import apply_masks, hold_masks, swap_masks
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
from dissect.sparsity.receipt import DryRun, Receipt, Row, dry_run
from dissect.sparsity.rows import Examples
from dissect.sparsity.shrink import ShrinkReport, shrink
from dissect.sparsity.timing import Timing, measure
from dissect.sparsity.unfuse import Unfused, fuse, unfuse
from dissect.sparsity.variational import (
    masked,
    named_variational,
    parameters_of,
    shared_noise,
)
from dissect.sparsity.wrap import wrap

__all__ = [
    "ALIASES",
    "DryRun",
    "Examples",
    "Instrument",
    "L0",
    "METHODS",
    "NOISES",
    "PRIORS",
    "RULES",
    "Receipt",
    "Row",
    "ShrinkReport",
    "Timing",
    "Unfused",
    "VariationalConv1d",
    "VariationalGRUCell",
    "VariationalLinear",
    "apply_masks",
    "dry_run",
    "fuse",
    "hold_masks",
    "iterative_magnitude",
    "keep_mask",
    "kept_curve",
    "kl_ard",
    "kl_log_uniform",
    "kl_normal",
    "kl_sum",
    "kl_total",
    "l0_wrap",
    "log_alpha",
    "masked",
    "measure",
    "moved",
    "named_variational",
    "parameters_of",
    "prune_counts",
    "pruned_copy",
    "resolve_parts",
    "select_masks",
    "settled",
    "shared_noise",
    "shrink",
    "swap_masks",
    "unfuse",
    "warmup_weight",
    "wrap",
]
