"""Ranks from sparse scores, against the same rows written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from dissect.data import Examples, Sessions, expand
from dissect.models.counting import counting_model
from dissect.training.evaluate import ranks_of_scores
from dissect.training.sparse_ranks import BLOCK, best_of_row, rank_counts, ranks_of_rows


def draw(seed: int, count: int, items: int) -> Sessions:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 8, count)
    return Sessions((items * random.random(lengths.sum()) ** 2).astype(int), np.concatenate([[0], lengths.cumsum()]))


@pytest.mark.parametrize("ties", ["half", "optimistic", "pessimistic"])
@pytest.mark.parametrize("lowest", [-2, 0, 1])
def test_equal_those_of_the_rows_written_out(ties: str, lowest: int) -> None:
    random = np.random.default_rng(0)
    stored = random.random((200, 12)) < 0.4
    values = random.integers(lowest, 4, (200, 12)) * stored
    rows, columns = np.nonzero(stored)  # with lowest <= 0 some stored scores are 0
    sparse = csr_array((values[rows, columns].astype(np.float32), (rows, columns)), shape=stored.shape)
    targets = random.integers(0, 12, 200)
    expected = ranks_of_scores(torch.from_numpy(values.astype(np.float64)), torch.from_numpy(targets), ties)
    np.testing.assert_array_equal(ranks_of_rows(sparse, targets, np.zeros(12), ties), expected.numpy())
    background = random.integers(0, 5, 12)
    whole = torch.from_numpy(values + background / 10)
    expected = ranks_of_scores(whole, torch.from_numpy(targets), ties)
    np.testing.assert_array_equal(ranks_of_rows(sparse, targets, background, ties), expected.numpy())


@pytest.mark.parametrize(
    ("model", "options"),
    [("spop", {}), ("sr", {}), ("vsknn", {"k": 9, "sample_size": 20, "weighting_score": "linear"})],
)
@pytest.mark.parametrize("ties", ["half", "pessimistic"])
def test_every_model_ranks_as_sorting_its_scores_does(model: str, options: dict[str, object], ties: str) -> None:
    items = 40
    train, test = draw(0, 150, items), expand(draw(1, 250, items))
    assert len(test) > BLOCK
    fitted = counting_model(model, options)
    fitted.fit(train.clicks, train.offsets, items)
    seen = np.ones(items, bool)
    seen[test.targets[3]] = False
    done: list[tuple[int, int]] = []
    found = rank_counts(fitted, test, ties=ties, seen=seen, progress=lambda *at: done.append(at))
    assert done[-1] == (len(test), len(test))
    part = rank_counts(fitted, test, ties=ties, seen=seen, part=(100, 640))
    np.testing.assert_array_equal(part, found[100:640])
    for i in range(0, len(test), 7):
        start, end = test.start[i : i + 1], test.end[i : i + 1]
        row = fitted.scores(test.clicks, start, end).toarray()[0].astype(np.float32)
        keys, target = list(zip(row.tolist(), fitted.background.tolist(), strict=True)), int(test.targets[i])
        ordered = sorted(keys, reverse=True)
        first = ordered.index(keys[target])
        rank = 1 + first + {"half": 0.5, "pessimistic": 1.0}[ties] * (keys.count(keys[target]) - 1)
        assert found[i] == (rank if seen[target] else np.inf)
        best, score = best_of_row(fitted.scores(test.clicks, start, end), fitted.background, 10)
        assert [keys[b] for b in best] == ordered[:10]
        np.testing.assert_array_equal(score, row[best])


def test_sums_that_differ_in_their_last_bits_are_tied() -> None:
    class Sums:
        background = np.zeros(3)

        def scores(self, clicks: object, start: object, end: object) -> csr_array:
            return csr_array(np.array([[0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.0]]))

    one = Examples(np.array([2, 1]), np.array([0]), np.array([1]), np.array([0]))
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert rank_counts(Sums(), one, seen=np.ones(3, bool)).tolist() == [1.5]
