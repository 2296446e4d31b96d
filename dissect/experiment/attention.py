"""What a readout attends to, on a sample of test sessions: for a figure to draw after the weights are gone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dissect.batch import Batch, PackedExamples
from dissect.models import SessionModel
from dissect.training.evaluate import evaluating

#: Prefix lengths whose sessions are drawn, and how many of each.
LENGTHS, EACH = (2, 3, 4, 5, 6, 8, 10, 15, 20), 2
#: Examples that the statistics are of, at most.
COUNTED = 4000


def attention_sample(model: SessionModel, examples: PackedExamples, first_id: int) -> dict[str, Any] | None:
    """Attention weights of some test sessions, and how flat they are on many.

    Parameters
    ----------
    model : SessionModel
    examples : PackedExamples
    first_id : int
        Added to items, so that they are the data set's own.

    Returns
    -------
    dict or None
        None for a readout without attention weights. ``sessions``: items, target and weights (n, H). ``statistics``:
        by length n, over `COUNTED` examples at even distances, means of what follows, each head's weights divided by
        their sum first. ``entropy``: over log n, so that 1 is flat; ``deficit``: 1 less that, by which maps that are
        nearly flat can be told apart; ``last``, ``first``: weight of that click, which is
        1/n where flat; ``ratio``: median of the largest weight over the smallest,
        of which none counts as less than 1e-6.
    """
    chosen = torch.linspace(0, len(examples) - 1, min(COUNTED, len(examples))).long().unique()
    batch, weights = _weights(model, examples, chosen)
    if weights is None:
        return None
    lengths, ends = batch.lengths.cpu(), batch.offsets[1:].cpu()
    statistics, sessions = [], []
    for n in range(2, int(lengths.max()) + 1):
        which = (lengths == n).nonzero()[:, 0]
        if not which.numel():
            continue
        rows = ends[which][:, None] - n + torch.arange(n)  # (G, n)
        share = weights[rows].double().abs()
        share = share / share.sum(1, keepdim=True).clamp_min(1e-30)  # (G, n, H)
        entropy = -(share * share.clamp_min(1e-30).log()).sum(1) / math.log(n)
        ratio = share.amax(1) / share.amin(1).clamp_min(1e-6)
        statistics.append(
            {
                "length": n,
                "examples": len(which),
                "entropy": _mean(entropy),
                "deficit": float(f"{float((1 - entropy).mean()):.3g}"),
                "last": _mean(share[:, -1]),
                "first": _mean(share[:, 0]),
                "ratio": float(f"{float(ratio.median()):.7g}"),
            }
        )
        if n in LENGTHS:
            assert batch.targets is not None
            for i in which[:: max(1, len(which) // EACH)][:EACH].tolist():
                clicks = slice(int(ends[i]) - n, int(ends[i]))
                sessions.append(
                    {
                        "items": (batch.items[clicks] + first_id).tolist(),
                        "target": int(batch.targets[i]) + first_id,
                        "weights": [[float(f"{w:.4g}") for w in row] for row in weights[clicks].tolist()],
                    }
                )
    return {"sessions": sessions, "statistics": statistics}


def _weights(model: SessionModel, examples: PackedExamples, chosen: Tensor) -> tuple[Batch, Tensor | None]:
    batch = examples.batch(chosen.to(examples.clicks.device))
    with evaluating(model):
        encoded = model.encode(batch)
        weights = model.readout.attention(encoded)
    return encoded.batch, None if weights is None else weights.float().cpu()


def _mean(values: Tensor) -> float:
    return round(float(values.mean()), 5)
