"""Counting models: toys worked out by hand, and the published code's scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dissect.errors import DissectError
from dissect.models.counting import COUNTING, counting_model, counting_options

#: Scores of https://github.com/rn5l/session-rec on made-up sessions; the file says which version and which options.
RELEASED = json.loads((Path(__file__).parent / "session_rec.json").read_text())


def packed(sessions: list[list[int]]) -> tuple[Any, Any]:
    return np.array([i for s in sessions for i in s], np.int32), np.cumsum([0, *map(len, sessions)])


def scores(model: str, options: dict[str, Any], train: list[list[int]], queries: list[list[int]], items: int) -> Any:
    fitted = counting_model(model, options)
    fitted.fit(*packed(train), items)
    clicks, offsets = packed(queries)
    found = fitted.scores(clicks, offsets[:-1], offsets[1:]).toarray()
    if model == "spop":
        found = found + fitted.background / (1 + fitted.background)
    else:
        assert not fitted.background.any()
    return found


@pytest.mark.parametrize("case", RELEASED["cases"], ids=lambda c: f"{c['model']}-{c['options']}")
def test_scores_are_those_of_the_published_code(case: dict[str, Any]) -> None:
    assert len(case["queries"]) >= 6
    found = scores(case["model"], case["options"], RELEASED["train"], case["queries"], RELEASED["items"])
    if case["model"] == "sr":
        found = found / found.max(1, keepdims=True)
    np.testing.assert_allclose(found, case["scores"], rtol=1e-9, atol=1e-11)


TRAIN = [[0, 1], [0, 2, 3], [1, 2, 0], [3, 1]]  # oldest first; 4 is never clicked


def test_session_popularity_by_hand() -> None:
    model = counting_model("spop")
    model.fit(*packed(TRAIN), 5)
    assert model.background.tolist() == [3, 3, 2, 2, 0]
    clicks, offsets = packed([[2, 1, 2], [4]])
    assert model.scores(clicks, offsets[:-1], offsets[1:]).toarray().tolist() == [[0, 1, 2, 0, 0], [0, 0, 0, 0, 1]]


def test_sequential_rules_by_hand() -> None:
    # 0 -> 1 and 0 -> 2 at distance 1, 0 -> 3 at distance 2; only the last item's rules count, and 4 has none.
    found = scores("sr", {}, TRAIN, [[3, 0], [0, 2], [4]], 5)
    assert found.tolist() == [[0, 1, 1, 0.5, 0], [1, 0, 0, 1, 0], [0] * 5]
    assert scores("sr", {"reach": 1}, TRAIN, [[0]], 5).tolist() == [[0, 1, 1, 0, 0]]
    repeated = scores("sr", {}, [[0, 0, 1, 0]], [[0]], 2)  # 0 -> 0 at 1, 2 and 3; 0 -> 1 at 1 and 2
    np.testing.assert_allclose(repeated, [[1 + 1 / 2 + 1 / 3, 1.5]])


def test_nearest_sessions_by_hand() -> None:
    # In the session [2, 0] the item 2 weighs 1/2 and 0 weighs 1. By the number of its items, 2, the similarities of the
    # four sessions are 1/2, 3/4, 3/4, 0; the last item of it that they hold is 0, so that x is 1.
    found = scores("vsknn", {}, TRAIN, [[2, 0]], 5)
    np.testing.assert_allclose(found, [[1 / 2 + 3 / 4 + 3 / 4, 1 / 2 + 3 / 4, 3 / 4 + 3 / 4, 3 / 4, 0]])
    # One neighbour: of the two most similar ones the more recent.
    found = scores("vsknn", {"k": 1}, TRAIN, [[2, 0]], 5)
    np.testing.assert_allclose(found, [[3 / 4, 3 / 4, 3 / 4, 0, 0]])
    # The most recent session that shares an item, though it is not the most similar: [3, 1] holds 3 alone of [3, 2].
    found = scores("vsknn", {"sample_size": 1}, TRAIN, [[3, 2]], 5)
    np.testing.assert_allclose(found, [[0, 1 / 4 / 2, 0, 1 / 4 / 2, 0]])
    assert scores("vsknn", {}, TRAIN, [[4]], 5).tolist() == [[0] * 5]


def test_the_most_recent_of_equally_similar_neighbours_are_taken() -> None:
    train = [[0, 1], [0, 2], [0, 3], [0, 4], [5]]
    found = scores("vsknn", {"k": 2}, train, [[0], [5, 0]], 6)
    np.testing.assert_allclose(found, [[2, 0, 0, 1, 1, 0], [1, 0, 0, 0.5, 0.5, 0]])


def test_sessions_scored_together_score_as_alone() -> None:
    random = np.random.default_rng(0)
    train = [random.integers(0, 20, random.integers(1, 9)).tolist() for _ in range(200)]
    queries = [random.integers(0, 20, random.integers(1, 30)).tolist() for _ in range(25)]
    for model, options in (("spop", {}), ("sr", {}), ("vsknn", {"k": 7, "sample_size": 30})):
        together = scores(model, options, train, queries, 20)
        alone = [scores(model, options, train, [query], 20)[0] for query in queries]
        np.testing.assert_array_equal(together, alone)


def test_options_are_typed_and_checked() -> None:
    assert counting_options("vsknn", {"k": "500", "idf": 2})["k"] == 500
    assert counting_options("spop") == {}
    assert {name: counting_options(name) for name in COUNTING}["sr"] == {"reach": 10}
    for model, given, expected in (
        ("vsknn", {"k": 0}, "k is 0; it must be >= 1"),
        ("vsknn", {"sample_size": -1}, "sample_size is -1; it must be >= 0"),
        ("vsknn", {"idf": float("nan")}, "idf is nan"),
        ("vsknn", {"weighting": "linear"}, "weighting is 'linear'; choose from: div, same, quadratic, log"),
        ("vsknn", {"weighting_score": "x"}, "choose from: div, same, linear"),
        ("vsknn", {"k": "many"}, "option k is 'many'; it takes a whole number"),
        ("sr", {"reach": 0}, "reach is 0"),
        ("sr", {"steps": 3}, "unknown option 'steps' of the model 'sr'; it takes: reach"),
        ("spop", {"k": 3}, "unknown option 'k' of the model 'spop', which takes none"),
        ("sknn", {}, "unknown model 'sknn' .did you mean 'vsknn'"),
    ):
        with pytest.raises(DissectError, match=expected):
            counting_options(model, given)
