from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect.data import Dataset, Sessions, expand
from dissect.data.prepare.own import own
from dissect.data.prepare.prepare import prepare
from dissect.data.summary import curves, dropped, gini, share_of_top, stats
from dissect.errors import DissectError


def data(train, test, items):
    parts = (Sessions(np.concatenate(rows), np.cumsum([0, *map(len, rows)])) for rows in (train, test))
    first, last = parts
    return Dataset("toy", first, expand(last), items, 0, "0", "generated")


sessions = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=5), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(train=sessions, test=sessions)
def test_counts_equal_those_by_plain_loops(train, test):
    found = stats(data(train, test, 5))
    examples = [(tuple(s[:k]), s[k]) for s in test for k in range(1, len(s))]
    shown = {(tuple(s[:k]), s[k]) for s in train for k in range(1, len(s))}
    items = {item for s in train for item in s}
    assert found["repeated_targets"] == sum(target in prefix for prefix, target in examples)
    assert found["repeated_examples"] == sum(example in shown for example in examples)
    assert found["unseen_targets"] == sum(target not in items for _, target in examples)
    assert found["test_items_unseen"] == len({item for s in test for item in s} - items)
    assert found["test_sessions_in_training"] == sum(s in train for s in test)
    assert found["repeated_sessions"] == len(train) - len(set(map(tuple, train)))
    later = [(s[:k], s[k]) for s in train for k in range(1, len(s))]
    assert found["repeat_rate"] == pytest.approx(sum(item in before for before, item in later) / len(later))
    assert found["share_distinct"] == pytest.approx(sum(len(set(s)) == len(s) for s in train) / len(train))


def test_skew_of_popularity():
    assert gini(np.array([2, 2, 2, 2])) == pytest.approx(0)
    assert gini(np.array([8, 0, 0, 0])) == pytest.approx(0.75)  # 1 - 1/n
    assert share_of_top(np.array([6, 2, 1, 1]), 0.5) == pytest.approx(0.8)
    assert share_of_top(np.array([6, 2, 1, 1]), 0.01) == pytest.approx(0.6)


def test_what_the_figure_draws():
    found = curves(data([[0, 1], [0, 2, 0], [0]], [[1, 1], [3]], 4))
    assert found["train_lengths"] == pytest.approx([1 / 3] * 3)
    assert found["test_lengths"] == [0.0, 1.0]
    assert found["items"] == [0, 0.25, 0.5, 0.75, 1]
    assert found["clicks"] == pytest.approx([0, 4 / 6, 5 / 6, 1, 1])


def test_what_a_preparation_dropped_from_the_test_part(tmp_path):
    # Ten sessions; the last two are for testing. Of these session 8 has a click on an item of its own and one more,
    # so it falls below two clicks; session 9 has such a click and two others.
    parts = [["a", "b", "a"]] * 8 + [["x", "a"], ["b", "x", "a", "y"]]
    rows = [f"{s},{item},{1_463_000_000 + 100 * s + k}" for s, part in enumerate(parts) for k, item in enumerate(part)]
    (tmp_path / "raw.csv").write_text("s,i,t\n" + "\n".join(rows) + "\n")
    prepare(
        own("session=s,item=i,time=t", item_clicks=1), tmp_path / "raw.csv", tmp_path / "made", lambda line: None,
        quiet=True,
    )  # fmt: skip
    assert dropped(tmp_path / "made") == {
        "unseen_clicks_dropped": 3, "unseen_items_dropped": 2, "test_sessions_dropped": 1,
    }  # fmt: skip
    assert dropped(tmp_path) == {}
    for wrong in ("", "[]", "{", '{"steps": []}', '{"steps": [1]}'):
        (tmp_path / "preparation.json").write_text(wrong)
        with pytest.raises(DissectError, match=r"preparation\.json: (not the account|the file is empty)"):
            dropped(tmp_path)
