"""Two baselines that count and do not learn; every run prints them beside its model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dissect.training.evaluate import TIES, Ranks
from dissect.training.sparse_ranks import Examples, ranks_of_rows, standing


def baseline_ranks(
    train: Examples, examples: Examples, items: int, *, ties: str = "half", seen: NDArray[np.bool_]
) -> dict[str, Ranks]:
    """Ranks of the targets under two counts.

    Parameters
    ----------
    train, examples
        Training examples, and those to rank: flat `clicks`, `start`, `end` (target at `end`).
    items : int
    ties : str
        A key of `dissect.training.evaluate.TIES`.
    seen : array, (items,) bool
        Targets outside are misses.

    Returns
    -------
    dict
        ``popularity``: items by how often they are a training target. ``last-item``: by how often they
        followed the prefix's last item in training, then by popularity (a first-order Markov chain).
    """

    def pairs(some: Examples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        clicks, end = np.asarray(some.clicks), np.asarray(some.end)
        return clicks[end - 1].astype(np.int64), clicks[end].astype(np.int64)

    (train_last, train_targets), (last, targets) = pairs(train), pairs(examples)
    popularity = np.bincount(train_targets, minlength=items)
    ahead, beside = standing(popularity, targets)
    ones = np.ones(len(train_last), np.int64)
    follows = csr_array((ones, (train_last, train_targets)), shape=(items, items))  # entries of one place are added
    ranks = {
        "popularity": 1 + ahead + TIES[ties] * beside,
        "last-item": ranks_of_rows(follows[last], targets, popularity, ties),
    }
    return {k: np.where(seen[targets], v, np.inf).astype(np.float32) for k, v in ranks.items()}
