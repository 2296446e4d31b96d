"""Two baselines that count and do not learn; every run prints them beside its model."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dissect.training.evaluate import TIES, Ranks

Ints = NDArray[Any]


class _Examples(Protocol):
    @property
    def clicks(self) -> Ints: ...
    @property
    def start(self) -> Ints: ...
    @property
    def end(self) -> Ints: ...


def _rank_in(counts: Ints, targets: Ints, ties: float) -> NDArray[np.float64]:
    """Rank of each target when items are sorted by `counts`."""
    ascending = np.sort(counts)
    own = counts[targets]
    above = len(counts) - np.searchsorted(ascending, own, "right")
    same = np.searchsorted(ascending, own, "right") - np.searchsorted(ascending, own, "left") - 1
    return 1 + above + ties * same


def baseline_ranks(
    train: _Examples, examples: _Examples, items: int, *, ties: str = "half", seen: NDArray[np.bool_]
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
    share = TIES[ties]
    targets = np.asarray(examples.clicks)[examples.end].astype(np.int64)
    last = np.asarray(examples.clicks)[np.asarray(examples.end) - 1].astype(np.int64)
    train_targets = np.asarray(train.clicks)[train.end].astype(np.int64)
    train_last = np.asarray(train.clicks)[np.asarray(train.end) - 1].astype(np.int64)
    popularity = np.bincount(train_targets, minlength=items)
    popular = _rank_in(popularity, targets, share)

    pairs, count = np.unique(train_last * items + train_targets, return_counts=True)
    row, item = np.divmod(pairs, items)
    first = np.searchsorted(row, np.arange(items + 1))  # row r of the table is pairs[first[r]:first[r + 1]]
    place = np.searchsorted(pairs, last * items + targets)
    found = np.minimum(place, len(pairs) - 1)
    own = np.where(pairs[found] == last * items + targets, count[found], 0)

    # Compare each target with every entry of its row, all rows side by side.
    size = first[last + 1] - first[last]
    of = np.repeat(np.arange(len(targets)), size)
    entry = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size - first[last], size)
    more = count[entry] > own[of]
    level = (count[entry] == own[of]) & (item[entry] != targets[of])
    pop_entry, pop_own = popularity[item[entry]], popularity[targets][of]
    above = np.bincount(of, more | (level & (pop_entry > pop_own)), len(targets))
    same = np.bincount(of, level & (pop_entry == pop_own), len(targets))
    # A target outside its row also stands below every more popular item outside the row.
    outside = own == 0
    whole = _rank_in(popularity, targets, 0.0) - 1
    level_all = _rank_in(popularity, targets, 1.0) - 1 - whole
    row_above = np.bincount(of, pop_entry > pop_own, len(targets))
    row_same = np.bincount(of, (pop_entry == pop_own) & (item[entry] != targets[of]), len(targets))
    above = np.where(outside, size + whole - row_above, above)
    same = np.where(outside, level_all - row_same, same)
    ranks = {"popularity": popular, "last-item": 1 + above + share * same}
    return {k: np.where(seen[targets], v, np.inf).astype(np.float32) for k, v in ranks.items()}
