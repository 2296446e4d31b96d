"""Accuracy against kept weights: a trained model pruned harder and harder, by a rule's own order of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dissect.batch import PackedExamples
from dissect.models import SessionModel
from dissect.sparsity import Instrument
from dissect.sparsity.density import get_rule
from dissect.training.evaluate import metrics, rank_examples

#: Shares of the wrapped weights that are kept.
SHARES = (1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.0)
#: Test examples at even distances that a point is measured on, at most.
COUNTED = 10_000


def pruning_curve(
    model: SessionModel, instrument: Instrument, examples: PackedExamples, rules: Sequence[str], **options: Any
) -> dict[str, Any]:
    """Test metrics at each share of kept weights, by each of some rules, over all parts together.

    Parameters
    ----------
    model : SessionModel
    instrument : Instrument
        Of `model`.
    examples : PackedExamples
    rules : sequence of str
        Names of `dissect.sparsity.RULES`.
    **options
        As for `rank_examples`.

    Returns
    -------
    dict
        ``examples``, and ``points``: rule, threshold, kept, total, kept of each part, metrics. Weights are not trained
        again after pruning.
    """
    sample, _ = sampled(examples)
    points = []
    for rule in rules:
        for threshold in _thresholds(instrument, rule):
            rows = {row["part"]: row["kept"] for row in instrument.density(rule, threshold) if row["tensor"] is None}
            kept, total = instrument.prune_counts(rule, threshold)
            with instrument.masked(rule, threshold):
                found = metrics(rank_examples(model, sample, **options))
            points.append(
                {
                    "rule": rule,
                    "threshold": threshold,
                    "kept": kept,
                    "total": total,
                    "parts": rows,
                    **{name: found[name] for name in ("hr@20", "mrr@20") if name in found},
                }
            )
    return {"examples": len(sample), "points": points}


def sampled(examples: PackedExamples) -> tuple[PackedExamples, slice]:
    """At most `COUNTED` examples at even distances, and which they are."""
    chosen = slice(None, None, max(1, -(-len(examples) // COUNTED)))
    start, end = examples.start[chosen], examples.end[chosen]
    return PackedExamples(examples.clicks, start, end, examples.clicks.device), chosen


def _thresholds(instrument: Instrument, rule: str) -> list[float]:
    """Thresholds that keep `SHARES` of all wrapped weights."""
    found, _ = get_rule(rule)
    with torch.no_grad():
        scores = torch.cat([found.score(theta, s).flatten() for _, _, theta, s in instrument.tensors()])
    scores = scores.cpu().double().sort(descending=not found.below).values  # what is kept last comes last
    n, out = scores.numel(), []
    for share in SHARES:
        k = round(share * n)
        if k == n:  # a threshold strictly beyond the last weight
            out.append(float(scores[-1]) + (1.0 if found.below else -1.0))
        else:  # strict comparison: the k-th weight itself is dropped
            out.append(float(scores[k]))
    return list(dict.fromkeys(out))
