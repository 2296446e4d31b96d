"""Full ranking: ranks of the targets among all items, and HR, MRR and NDCG from them.

The rank of a target is one plus the number of items that score above it, so one pass of comparisons finds it;
lists of the best items are taken only where a `Tally` asks for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dissect.batch import Batch, PackedExamples
from dissect.errors import DissectError
from dissect.training.recommended import Tally, best_of_block

#: How items that score exactly as the target does are counted.
TIES = {"half": 0.5, "optimistic": 0.0, "pessimistic": 1.0}
CUTOFFS = (5, 10, 20)
#: Prefix lengths reported together; the last group is open.
LENGTH_GROUPS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 9), (10, 19), (20, None))
#: Scores held at a time, (items x sessions): 64 MB, and on an accelerator 1 GB.
BLOCK, ACCELERATOR_BLOCK = 1 << 24, 1 << 28
#: Items scored or compared at a time on a CPU, so that the scores stay in its cache.
TILE = 1024
#: Sessions scored at a time are a multiple of this: a CPU's product with 384 of them takes three quarters of the time
#: of one with 389.
WHOLE = 64

#: A product of norms below which no score can be infinite; a norm that is NaN is not below it.
LARGEST = 1e37

Ranks = NDArray[np.float32]


@contextmanager
def evaluating(model: torch.nn.Module) -> Any:
    """Evaluation mode without gradients; the training mode comes back whatever happens inside."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def ranks_of_scores(scores: Tensor, targets: Tensor, ties: str = "half") -> Tensor:
    """Rank of each target among its row's scores.

    Parameters
    ----------
    scores : Tensor, (B, items)
    targets : Tensor, (B,) int64
    ties : {"half", "optimistic", "pessimistic"}
        An item that scores as the target does counts as half an item above it, none, or one.

    Returns
    -------
    Tensor, (B,) float32
        ``1 + #{above} + ties``.

    Raises
    ------
    DissectError
        If a score is not finite: it would rank anywhere, first included.
    """
    if not bool(torch.isfinite(scores.sum())):
        _refuse(scores)
    return _count(scores, targets, ties)


def _refuse(scores: Tensor) -> None:
    bad = int((~torch.isfinite(scores)).sum())
    if bad:  # a sum may be infinite where no score is
        raise DissectError(f"evaluation: {bad} of {scores.numel()} scores are not finite", 1)


def _count(scores: Tensor, targets: Tensor, ties: str) -> Tensor:
    """Ranks among finite scores."""
    batch, items = scores.shape
    own = scores.gather(1, targets[:, None])
    above, same = scores.new_zeros(2, batch)
    step = TILE if scores.device.type == "cpu" else items
    for j in range(0, items, step):
        part = scores[:, j : j + step]
        hits = torch.empty_like(part)  # as numbers: a sum of booleans takes ten times as long
        above += torch.gt(part, own, out=hits).sum(1)
        same += torch.eq(part, own, out=hits).sum(1)
    return (1 + above + TIES[ties] * (same - 1)).float()  # the target ties with itself


def rank_examples(
    model: torch.nn.Module,
    examples: PackedExamples,
    *,
    ties: str = "half",
    seen: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
    part: tuple[int, int] | None = None,
    tally: Tally | None = None,
) -> Ranks:
    """Rank the target of every example among all items.

    Parameters
    ----------
    model : Module
        ``model(batch)`` gives an output with ``query`` (B, d) and ``table`` (items, d).
    examples : PackedExamples
    ties : str
        A key of `TIES`.
    seen : Tensor, (items,) bool, optional
        Items that training saw; a target outside them is a miss (rank infinity), whatever it scores.
    progress : callable, optional
        Called with (examples done, examples in all).
    part : (int, int), optional
        First example and the one after the last; all by default.
    tally : Tally, optional
        Counts what is recommended to each example.

    Returns
    -------
    array, (N,) float32
        Of the part's examples.

    Raises
    ------
    DissectError
        If a score is not finite.
    """
    out = []
    first, stop = part or (0, len(examples))
    device = examples.clicks.device
    with evaluating(model):
        table = _scored_table(model, examples)
        items = table.shape[0]
        # |q . e| <= |q| |e|: a look at the norms spares one at every score.
        longest = table.norm(dim=1).max()
        limit = BLOCK if device.type == "cpu" else ACCELERATOR_BLOCK
        size = max(WHOLE, min(1024, limit // items) // WHOLE * WHOLE)
        buffer = torch.empty(items, size, device=device)  # a tall block is multiplied faster than a flat one
        step = TILE if device.type == "cpu" else items
        for i in range(first, stop, size):
            batch = examples.batch(torch.arange(i, min(i + size, stop), device=device))
            assert batch.targets is not None
            query = _query(model, batch).t()
            block = buffer[:, : len(batch)]
            for j in range(0, items, step):
                torch.mm(table[j : j + step], query, out=block[j : j + step])
            if not bool(query.norm(dim=0).max() * longest < LARGEST):
                _refuse(block)
            ranks = _count(block.t(), batch.targets, ties)
            if seen is not None:
                ranks.masked_fill_(~seen[batch.targets], torch.inf)
            out.append(ranks.cpu())
            if tally is not None:
                tally.add(best_of_block(block, tally.top).cpu().numpy())
            if progress:
                progress(i + len(batch) - first, stop - first)
    return torch.cat(out).numpy() if out else np.empty(0, np.float32)


def _scored_table(model: torch.nn.Module, examples: PackedExamples) -> Tensor:
    """The table that queries are multiplied with: any output names it, and a normalised copy is made once."""
    output = model(examples.batch(torch.zeros(1, dtype=torch.int64, device=examples.clicks.device)))
    return F.normalize(output.table, dim=1) if output.unit_items else output.table


def _query(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Queries (B, d) of a batch: from the model's own ``query``, where it has one, since its table is known already."""
    own: Any = getattr(model, "query", None)
    query: Any = own(batch) if callable(own) else model(batch).query
    return query.float()


def latency_ms(model: torch.nn.Module, examples: PackedExamples, top: int = 20, rounds: int = 60) -> float:
    """Median milliseconds from one session's clicks to its `top` items, one session at a time.

    Parameters
    ----------
    model : Module
    examples : PackedExamples
        From which `rounds` are taken at even distances.
    top : int
    rounds : int
    """
    device = examples.clicks.device
    chosen = torch.linspace(0, len(examples) - 1, rounds + 5).long()
    times = []
    with evaluating(model):
        table = _scored_table(model, examples)
        for i in chosen.tolist():
            index = torch.tensor([i], device=device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            begun = time.perf_counter()
            query = _query(model, examples.batch(index))
            (query @ table.t()).topk(min(top, table.shape[0])).indices.cpu()  # what is on the CPU has been waited for
            times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times[5:]))


def metrics(ranks: Ranks) -> dict[str, float]:
    """HR, MRR and NDCG at 5, 10 and 20, in percent; empty for no ranks.

    With one relevant item, NDCG@K is ``1 / log2(1 + rank)`` within the first K and 0 beyond.
    """
    if not len(ranks):
        return {}
    ranks64 = ranks.astype(np.float64)
    out: dict[str, float] = {}
    for name, gain in (
        ("hr", np.ones_like(ranks64)),
        ("mrr", 1 / ranks64),
        ("ndcg", 1 / np.log2(1 + ranks64)),
    ):
        for k in CUTOFFS:
            out[f"{name}@{k}"] = round(100 * float(np.where(ranks64 <= k, gain, 0).mean()), 4)
    return out


def by_length(ranks: Ranks, lengths: NDArray[Any]) -> dict[str, dict[str, float]]:
    """Metrics for each group of prefix lengths, with the number of examples ``n`` beside them."""
    out: dict[str, dict[str, float]] = {}
    for low, high in LENGTH_GROUPS:
        mask = (lengths >= low) & (lengths <= (high or np.inf))
        if mask.any():
            name = f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
            out[name] = {"n": int(mask.sum()), **metrics(ranks[mask])}
    return out
