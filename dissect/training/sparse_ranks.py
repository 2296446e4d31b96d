"""Ranks by scores of which most are 0: only those that are not are looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dissect.training.evaluate import TIES, Ranks
from dissect.training.recommended import Tally

Array = NDArray[Any]
#: Sessions scored at a time.
BLOCK = 512


class Examples(Protocol):
    """Prefixes ``clicks[start:end]`` with their targets ``clicks[end]``."""

    @property
    def clicks(self) -> Array: ...  # noqa: D102
    @property
    def start(self) -> Array: ...  # noqa: D102
    @property
    def end(self) -> Array: ...  # noqa: D102


class Counts(Protocol):
    """A model that counts: see `dissect.models.counting`."""

    @property
    def background(self) -> Array: ...  # noqa: D102
    def scores(self, clicks: Array, start: Array, end: Array) -> csr_array: ...  # noqa: D102


def standing(counts: Array, targets: Array) -> tuple[Array, Array]:
    """How many items count more than each target, and how many other items as much."""
    ascending, own = np.sort(counts), counts[targets]
    right = np.searchsorted(ascending, own, "right")
    return len(counts) - right, right - np.searchsorted(ascending, own, "left") - 1


def ranks_of_rows(scores: csr_array, targets: Array, background: Array, ties: str = "half") -> Array:
    """Rank of each target among the scores of its row.

    Parameters
    ----------
    scores : csr_array, (B, items)
        What is not stored is 0; no entry stands twice.
    targets : array, (B,)
    background : array, (items,)
        Orders items of equal score.
    ties : str
        A key of `dissect.training.evaluate.TIES`: how items equal to the target in both are counted.

    Returns
    -------
    array, (B,) float64
        ``1 + #{above} + ties``, as `dissect.training.evaluate.ranks_of_scores` gives for the same rows written out.
    """
    rows, items = len(targets), len(background)
    size = np.diff(scores.indptr)
    of, item, score = np.repeat(np.arange(rows), size), scores.indices, scores.data

    def count(which: Array) -> Array:
        return np.bincount(of[which], minlength=rows)

    hit = item == targets[of]
    own = np.zeros(rows, score.dtype)
    own[of[hit]] = score[hit]
    level = (score == own[of]) & ~hit
    behind = background[targets][of]
    more, equal = background[item] > behind, (background[item] == behind) & ~hit
    above = count((score > own[of]) | (level & more))
    same = count(level & equal)
    # Items that are not stored score 0: above a negative target all of them, level with one of 0.
    ahead, beside = standing(background, targets)
    above += np.where(own < 0, items - size, np.where(own == 0, ahead - count(more), 0))
    same += np.where(own == 0, beside - count(equal), 0)
    return 1 + above + TIES[ties] * same


def rank_counts(
    model: Counts,
    examples: Examples,
    *,
    ties: str = "half",
    seen: NDArray[np.bool_],
    progress: Callable[[int, int], None] | None = None,
    part: tuple[int, int] | None = None,
    tally: Tally | None = None,
) -> Ranks:
    """Rank the target of every example among all items by a model that counts.

    Scores are compared in float32: sums of the same numbers in another order are then equal, and ties are ties.

    Parameters
    ----------
    model : Counts
        A fitted model of `dissect.models.counting`.
    examples : Examples
    ties : str
        A key of `TIES`.
    seen : array, (items,) bool
        Items that training saw; a target outside them is a miss (rank infinity).
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
    """
    clicks, starts, ends = np.asarray(examples.clicks), np.asarray(examples.start), np.asarray(examples.end)
    first, stop = part or (0, len(starts))
    out = np.empty(stop - first, np.float32)
    order: Array = np.argsort(-np.asarray(model.background), kind="stable")  # of equal ones the lower id first
    for i in range(first, stop, BLOCK):
        start, end = starts[i : min(i + BLOCK, stop)], ends[i : min(i + BLOCK, stop)]
        targets = clicks[end].astype(np.int64)
        scores = csr_array(model.scores(clicks, start, end), dtype=np.float32)
        ranks = ranks_of_rows(scores, targets, model.background, ties)
        out[i - first : i - first + len(end)] = np.where(seen[targets], ranks, np.inf)
        if tally is not None:
            tally.add(best_of_rows(scores, model.background, order, tally.top))
        if progress:
            progress(i + len(end) - first, stop - first)
    return out


def best_of_rows(scores: csr_array, background: Array, order: Array, top: int) -> Array:
    """The `top` items of each row of scores, best first, as `best_of_row` has them.

    Parameters
    ----------
    scores : csr_array, (B, items)
        What is not stored is 0; no entry stands twice.
    background : array, (items,)
        Orders items of equal score; of equal ones the lower id is first.
    order : array, (items,)
        The items by falling background.
    top : int
        At most as many as there are items.

    Returns
    -------
    array, (B, top)
    """
    size = np.diff(scores.indptr)
    rows = len(size)
    of, item = np.repeat(np.arange(rows), size), scores.indices
    score: Array = np.asarray(scores.data)
    best = np.lexsort((item, -background[item], -score, of))
    of, item, score = of[best], item[best], score[best]
    positive = score > 0
    place = np.arange(len(of)) - scores.indptr[of]
    taken = positive & (place < top)
    out = np.full((rows, top), -1)
    out[of[taken], place[taken]] = item[taken]
    for row in np.flatnonzero(out[:, -1] < 0).tolist():  # fewer score above 0: those at 0 follow, by background
        inside = slice(scores.indptr[row], scores.indptr[row + 1])
        stored, values = item[inside], score[inside]
        have = int((values > 0).sum())
        # Of the first items by background at most as many are stored in the row as it has entries.
        level = np.setdiff1d(order[: top + len(stored)], stored[values != 0], assume_unique=True)
        level = level[np.lexsort((level, -background[level]))][: top - have]
        below = stored[values < 0][: top - have - len(level)]
        out[row, have:] = np.concatenate([level, below])
    return out


def counting_latency_ms(model: Counts, examples: Examples, top: int = 20, rounds: int = 60) -> float:
    """Median milliseconds from one session's clicks to its `top` items, as `dissect.training.evaluate.latency_ms`."""
    clicks = np.asarray(examples.clicks)
    times = []
    for i in np.linspace(0, len(examples.start) - 1, rounds + 5).astype(np.int64):
        begun = time.perf_counter()
        best_of_row(model.scores(clicks, examples.start[i : i + 1], examples.end[i : i + 1]), model.background, top)
        times.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(times[5:]))


def best_of_row(scores: csr_array, background: Array, top: int) -> tuple[Array, Array]:
    """The `top` items of one row of scores, best first, and their scores; of equal ones the lower id first."""
    row = scores.toarray()[0].astype(np.float32)
    best = np.lexsort((-background, -row))[:top]  # the last key counts first
    return best, row[best]
