"""Lists of the best items against sorting, and coverage and popularity by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from dissect.batch import PackedExamples
from dissect.data import Sessions, expand
from dissect.models import build
from dissect.models.counting import counting_model
from dissect.training import evaluate
from dissect.training.evaluate import rank_examples
from dissect.training.recommended import Tally, best_of_block, reach
from dissect.training.sparse_ranks import best_of_row, best_of_rows, rank_counts


@pytest.mark.parametrize("items", [5, 40, 641, 1000, 1007])
def test_the_best_of_a_block_are_those_of_a_sort(items: int) -> None:
    top = min(20, items)
    scores = torch.from_numpy(np.random.default_rng(items).permuted(np.tile(np.arange(items), (9, 1)), axis=1)).float()
    block = torch.empty(items, 12)[:, :9]  # as in the last batch, a slice of a wider buffer
    block.copy_(scores.t())
    expected = scores.argsort(1, descending=True)[:, :top].sort(1).values
    assert best_of_block(block, top).sort(1).values.tolist() == expected.tolist()


def test_a_tally_counts_the_lists_of_a_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = build("srgnn", items=900, dim=8)
    clicks = torch.randint(900, (60,))
    start = torch.arange(0, 50, 5)
    examples = PackedExamples(clicks, start, start + 4)
    best = model.scores(examples.batch(torch.arange(10))).topk(20, dim=1).indices
    monkeypatch.setattr(evaluate, "BLOCK", 64 * 900)
    tally = Tally(900)
    ranks = rank_examples(model, examples, tally=tally)
    assert tally.counts.tolist() == torch.bincount(best.ravel(), minlength=900).tolist()
    assert tally.lists == 10
    np.testing.assert_array_equal(ranks, rank_examples(model, examples))


@pytest.mark.parametrize("lowest", [-2, 0, 1])
@pytest.mark.parametrize("top", [3, 9, 12])
def test_the_best_of_sparse_rows_are_those_of_each_row(lowest: int, top: int) -> None:
    random = np.random.default_rng(0)
    stored = random.random((200, 12)) < 0.4
    values = random.integers(lowest, 4, (200, 12)) * stored
    rows, columns = np.nonzero(stored)
    sparse = csr_array((values[rows, columns].astype(np.float32), (rows, columns)), shape=stored.shape)
    for background in (random.integers(0, 5, 12), np.zeros(12)):
        order = np.argsort(-background, kind="stable")
        found = best_of_rows(sparse, background, order, top)
        for row in range(200):
            expected = best_of_row(csr_array(values[row : row + 1].astype(np.float32)), background, top)[0]
            assert found[row].tolist() == expected.tolist()


@pytest.mark.parametrize("model", ["spop", "sr", "vsknn"])
def test_models_that_count_are_tallied(model: str) -> None:
    random = np.random.default_rng(0)
    sessions = Sessions(random.integers(0, 60, 600), np.arange(0, 601, 5))
    fitted, test, tally = counting_model(model, {}), expand(sessions.slice(0, 30)), Tally(60)
    fitted.fit(sessions.clicks, sessions.offsets, 60)
    rank_counts(fitted, test, seen=np.ones(60, bool), tally=tally)
    expected = np.zeros(60, int)
    for i in range(len(test)):
        scores = fitted.scores(test.clicks, test.start[i : i + 1], test.end[i : i + 1])
        expected[best_of_row(scores, fitted.background, 20)[0]] += 1
    assert tally.counts.tolist() == expected.tolist()
    assert tally.lists == len(test)


def test_reach_by_hand() -> None:
    # Two lists of 2 among 5 items: items 0 and 1, items 0 and 3; clicks 10, 4, 3, 2, 1.
    tally = Tally(5, top=2)
    tally.add(np.array([[0, 1]]))
    tally.add(np.array([[3, 0]]))
    assert reach(tally.counts, np.array([10, 4, 3, 2, 1]), np.array([1, 2]), 2) == {
        "coverage@2": 60, "recommended": 3, "items": 5, "popularity@2": 26 / 4, "most_popular": 10,
        "target_popularity": 3.5,
    }  # fmt: skip
    assert Tally(3).top == 3  # fewer items than a list has places
