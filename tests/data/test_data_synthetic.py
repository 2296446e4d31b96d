from __future__ import annotations

import time

import numpy as np
import pytest

from dissect.data import Dataset, expand
from dissect.data.synthetic import LENGTHS, demo
from dissect.errors import DissectError


def mrr(scores: np.ndarray, targets: np.ndarray) -> float:
    own = scores[np.arange(len(targets)), targets][:, None]
    ranks = 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    return float(np.where(ranks <= 20, 1 / ranks, 0).mean())


def baselines(dataset: Dataset) -> tuple[float, float]:
    """MRR@20 of popularity, and of counted transitions from the last click with popularity behind."""
    train, test = expand(dataset.train), dataset.test
    popular = np.bincount(dataset.train.clicks, minlength=dataset.items).astype(float)
    table = np.zeros((dataset.items, dataset.items))
    np.add.at(table, (train.clicks[train.end - 1], train.targets), 1)
    table += popular / popular.sum()
    some = slice(0, 1500)
    last, targets = test.clicks[test.end - 1][some], test.targets[some]
    return mrr(np.tile(popular, (len(targets), 1)), targets), mrr(table[last], targets)


def test_the_demo_is_deterministic_fast_and_of_the_promised_size():
    begun = time.perf_counter()
    dataset = demo()
    assert time.perf_counter() - begun < 2
    assert dataset.sha256 == demo().sha256 != demo(seed=1).sha256
    assert (dataset.items, dataset.first_id, dataset.source) == (2000, 0, "generated")
    assert 60_000 <= len(expand(dataset.train)) <= 80_000
    assert 0 <= dataset.train.clicks.min() <= dataset.train.clicks.max() < dataset.items
    assert len(np.unique(dataset.test.session)) == 2_000


def test_session_lengths_are_distributed_like_diginetica():
    lengths = demo().train.lengths
    for length, share in enumerate(LENGTHS, start=2):
        assert (lengths == length).mean() == pytest.approx(share, abs=0.012)
    assert lengths.min() == 2
    assert 40 < lengths.max() <= 70


def test_the_last_click_says_more_than_popularity():
    popular, table = baselines(demo())
    assert popular < 0.03
    assert table > 0.13


def test_a_world_that_is_too_small():
    with pytest.raises(DissectError, match="at least 600 items"):
        demo(items=100)
