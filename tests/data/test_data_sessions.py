from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect.data import Examples, Sessions, expand, split_validation, subset
from dissect.errors import DissectError


def make(rows: list[list[int]]) -> Sessions:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sessions(np.array([click for row in rows for click in row], dtype=np.int32), offsets)


def rows_of(sessions: Sessions) -> list[list[int]]:
    bounds = sessions.offsets
    return [sessions.clicks[a:b].tolist() for a, b in itertools.pairwise(bounds)]


ROWS = st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=8), max_size=12)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_expand_equals_a_naive_loop(rows):
    examples = expand(make(rows))
    found = [
        (int(s), examples.clicks[a:b].tolist(), int(examples.clicks[b]))
        for s, a, b in zip(examples.session, examples.start, examples.end, strict=True)
    ]
    naive = [(s, row[:k], row[k]) for s, row in enumerate(rows) for k in range(len(row) - 1, 0, -1)]
    assert found == naive
    assert examples.targets.tolist() == [target for _, _, target in naive]
    assert examples.lengths.tolist() == [len(prefix) for _, prefix, _ in naive]


@settings(max_examples=40, deadline=None)
@given(ROWS, st.data())
def test_take_and_slice_equal_lists(rows, data):
    sessions = make(rows)
    assert rows_of(sessions.slice(1, 3)) == rows[1:3]
    if rows:
        chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
        assert rows_of(sessions.take(np.array(chosen, dtype=np.int64))) == [rows[i] for i in chosen]


def test_validation_is_the_last_fifth_of_the_sessions():
    rows = [[i, i + 1] for i in range(10)]
    train, valid = split_validation(make(rows))
    assert rows_of(train) == rows[:8]
    assert rows_of(valid) == rows[8:]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_validation_fraction_out_of_range(fraction):
    with pytest.raises(DissectError, match="between 0 and 1"):
        split_validation(make([[1, 2], [3, 4]]), fraction)


def test_validation_needs_two_sessions():
    with pytest.raises(DissectError, match="at least 2"):
        split_validation(make([[1, 2]]))


def test_subset_keeps_order_and_follows_its_seed():
    sessions = make([[i, i] for i in range(100)])
    drawn = rows_of(subset(sessions, 10, seed=3))
    assert len(drawn) == 10
    assert drawn == sorted(drawn)
    assert drawn == rows_of(subset(sessions, 10, seed=3))
    assert drawn != rows_of(subset(sessions, 10, seed=4))
    assert subset(sessions, 1000, seed=0) is sessions
    with pytest.raises(DissectError, match="1 to 100"):
        subset(sessions, 0, seed=0)


@pytest.mark.parametrize("offsets", [[0, 3], [1, 2], [0, 1, 1, 2], [0, 2, 1, 2], []])
def test_sessions_refuse_offsets_that_do_not_fit(offsets):
    with pytest.raises(ValueError, match=r"offsets|empty"):
        Sessions(np.array([5, 6]), np.array(offsets))


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 2), (-1, 1)])
def test_examples_refuse_windows_outside_the_clicks(start, end):
    with pytest.raises(ValueError, match="prefix"):
        Examples(np.array([5, 6]), np.array([start]), np.array([end]), np.array([0]))
