"""The counting baselines, against a loop that sorts."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from dissect.data import Sessions, expand
from dissect.training.baselines import baseline_ranks


def sessions_of(seed: int, count: int, items: int) -> Sessions:
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 7, count)
    clicks = (items * random.random(lengths.sum()) ** 2).astype(np.int32)
    return Sessions(clicks, np.concatenate([[0], lengths.cumsum()]))


@pytest.mark.parametrize("ties", ["half", "optimistic", "pessimistic"])
def test_ranks_equal_a_loop(ties: str) -> None:
    items = 15
    train, test = expand(sessions_of(0, 60, items)), expand(sessions_of(1, 20, items))
    popularity: Counter[int] = Counter(train.targets.tolist())
    follows: dict[int, Counter[int]] = defaultdict(Counter)
    for last, target in zip(train.clicks[train.end - 1].tolist(), train.targets.tolist(), strict=True):
        follows[last][target] += 1
    found = baseline_ranks(train, test, items, ties=ties, seen=np.ones(items, bool))
    share = {"half": 0.5, "optimistic": 0, "pessimistic": 1}[ties]
    for i, (last, target) in enumerate(zip(test.clicks[test.end - 1].tolist(), test.targets.tolist(), strict=True)):
        for name, key in (
            ("popularity", lambda j: (0, popularity[j])),
            ("last-item", lambda j, last=last: (follows[last][j], popularity[j])),
        ):
            own = key(target)
            above = sum(key(j) > own for j in range(items))
            same = sum(key(j) == own for j in range(items)) - 1
            assert found[name][i] == pytest.approx(1 + above + share * same), (name, i)


def test_unseen_targets_are_misses() -> None:
    train = expand(sessions_of(0, 30, 8))
    seen = np.ones(8, bool)
    seen[train.targets[0]] = False
    found = baseline_ranks(train, train, 8, seen=seen)
    missed = train.targets == train.targets[0]
    for ranks in found.values():
        assert np.isinf(ranks[missed]).all()
        assert np.isfinite(ranks[~missed]).all()
