"""Ranks and metrics, against sorting and against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dissect.batch import PackedExamples
from dissect.errors import DissectError
from dissect.models import build
from dissect.training import evaluate
from dissect.training.evaluate import by_length, metrics, rank_examples, ranks_of_scores


def test_ranks_by_hand_under_each_tie_rule() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    targets = torch.tensor([2, 1, 3])
    assert ranks_of_scores(scores, targets, "half").tolist() == [2, 3, 2.5]
    assert ranks_of_scores(scores, targets, "optimistic").tolist() == [2, 2, 1]
    assert ranks_of_scores(scores, targets, "pessimistic").tolist() == [2, 4, 4]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_and_no_first_rank(bad: float) -> None:
    with pytest.raises(DissectError, match="1 of 4 scores are not finite"):
        ranks_of_scores(torch.tensor([[0.0, bad, 1.0, 2.0]]), torch.tensor([1]))


def test_metrics_by_hand() -> None:
    found = metrics(np.array([1, 4, 8, 21, np.inf], np.float32))
    assert found["hr@5"] == 40
    assert found["hr@10"] == 60
    assert found["hr@20"] == 60
    assert found["mrr@20"] == pytest.approx(100 * (1 + 1 / 4 + 1 / 8) / 5, abs=1e-3)
    assert found["ndcg@5"] == pytest.approx(100 * (1 + 1 / math.log2(5)) / 5, abs=1e-3)
    assert metrics(np.empty(0, np.float32)) == {}


def test_half_a_tie_beyond_the_cutoff_misses() -> None:
    assert metrics(np.array([5.5], np.float32))["hr@5"] == 0
    assert metrics(np.array([5.5], np.float32))["hr@10"] == 100


def test_by_length_covers_every_example_once() -> None:
    lengths = np.array([1, 1, 2, 5, 6, 9, 10, 19, 20, 69])
    found = by_length(np.ones(10, np.float32), lengths)
    assert {k: v["n"] for k, v in found.items()} == {"1": 2, "2": 1, "5": 1, "6-9": 2, "10-19": 2, "20+": 2}
    assert all(v["hr@20"] == 100 for v in found.values())


@pytest.mark.parametrize("recipe", ["srgnn", "meanpool"])
def test_ranks_equal_a_stable_sort_however_they_are_tiled(monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    torch.manual_seed(1)
    model = build(recipe, items=40, dim=8)
    clicks = torch.randint(40, (60,))
    start = torch.arange(0, 50, 5)
    examples = PackedExamples(clicks, start, start + 4)
    scores = model.scores(examples.batch(torch.arange(10)))
    order = scores.argsort(1, descending=True)
    expected = (order == clicks[start + 4][:, None]).nonzero()[:, 1] + 1
    model.train()
    for block in (40, 120, 1 << 23):  # one session at a time, three, all
        monkeypatch.setattr(evaluate, "BLOCK", block)
        assert rank_examples(model, examples).tolist() == expected.tolist()
    assert model.training


def test_a_target_that_training_never_saw_is_a_miss() -> None:
    model = build("srgnn", items=4, dim=2)
    examples = PackedExamples(torch.tensor([0, 1, 0, 2]), torch.tensor([0, 2]), torch.tensor([1, 3]))
    seen = torch.tensor([True, True, False, False])
    ranks = rank_examples(model, examples, seen=seen)
    assert np.isfinite(ranks[0])
    assert np.isinf(ranks[1])


def test_evaluation_gives_the_mode_back_after_a_failure() -> None:
    model = build("srgnn", items=4, dim=2).train()
    with torch.no_grad():
        model.embedding.weight.fill_(math.nan)
    examples = PackedExamples(torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(DissectError, match="not finite"):
        rank_examples(model, examples)
    assert model.training
