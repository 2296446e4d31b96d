"""The worlds: their answers hold, and nothing else tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dissect.data import load
from dissect.data.sessions import expand
from dissect.data.worlds import CATEGORIES, ITEMS, STRAY, WORLDS, make
from dissect.errors import DissectError


def sessions(name: str, n: int = 4000) -> list[list[int]]:
    train = make(name, seed=1, sessions=n).train
    return [train.clicks[a:b].tolist() for a, b in zip(train.offsets[:-1], train.offsets[1:], strict=True)]


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_made_again_and_only_its_last_clicks_are_targets(name: str):
    one, two = make(name), make(name)
    assert one.sha256 == two.sha256 != make(name, seed=1).sha256
    assert one.items == ITEMS
    assert len(one.test) == 2500
    assert len(expand(one.train, one.last_only)) == len(one.train) == 10_000
    assert (expand(one.train, True).end == one.train.offsets[1:] - 1).all()
    assert set(np.unique(one.train.clicks)) == set(range(ITEMS))
    assert load(name).sha256 == one.sha256


def test_successor_recall_follows_what_followed_before():
    places = []
    for *walk, back, target in sessions("successor-recall"):
        assert len(set(walk)) == len(walk)
        assert 4 <= len(walk) <= 7
        assert back in walk[:-1]
        assert walk[walk.index(back) + 1] == target
        places.append(walk.index(back))
    assert set(places) == set(range(6))
    # The last item by itself says nothing: its commonest follower is hardly commoner than chance.
    counts = np.zeros((ITEMS, ITEMS))
    for *_, back, target in sessions("successor-recall", 40_000):
        counts[back, target] += 1
    assert (counts.max(1) / counts.sum(1)).max() < 0.06


def test_last_item_follows_the_last_item_alone():
    counts = np.zeros((ITEMS, ITEMS))
    rows = sessions("last-item", 20_000)
    for *_, last, target in rows:
        counts[last, target] += 1
    successor = counts.argmax(1)
    assert sorted(successor) == list(range(ITEMS))
    share = counts.max(1).sum() / counts.sum()
    assert share == pytest.approx(1 - STRAY + STRAY / ITEMS, abs=0.01)
    before = np.zeros((ITEMS, ITEMS))
    for *_, other, _last, target in rows:
        before[other, target] += 1
    assert (before.max(1) / before.sum(1)).max() < 0.08


def test_intent_follows_the_latest_item_of_the_session_s_category():
    size = ITEMS // CATEGORIES
    rows = sessions("intent", 20_000)
    # Each target is the successor of one item of its category: in every session with that target, one of five items
    # comes up far more often than the others.
    successor_of = {}
    for target in range(ITEMS):
        mine = [clicks for *clicks, t in rows if t == target]
        counts = np.zeros(ITEMS)
        for clicks in mine:
            counts[list(set(clicks))] += 1
        successor_of[target] = int(counts.argmax())
        assert counts.max() == len(mine)  # the item that it follows is in each of them
    assert sorted(successor_of.values()) == list(range(ITEMS))
    last_is_enough = np.mean([clicks[-1] == successor_of[target] for *clicks, target in rows])
    assert 0.5 < last_is_enough < 0.75
    rings = set(range(ITEMS))
    lengths = []
    while rings:
        start = item = rings.pop()
        length = 1
        while (item := successor_of[item]) != start:
            rings.remove(item)
            length += 1
        lengths.append(length)
    assert lengths == [size] * CATEGORIES


def test_shuffled_is_successor_recall_with_other_targets():
    mine, theirs = sessions("shuffled", 4000), sessions("successor-recall", 4000)
    assert [row[:-1] for row in mine] == [row[:-1] for row in theirs]
    right = np.mean([walk[walk.index(back) + 1] == target for *walk, back, target in mine])
    assert right < 0.05


def test_a_folder_of_a_world_s_name_is_not_passed_over(tmp_path: Path):
    (tmp_path / "intent").mkdir()
    for name in ("train", "test"):
        (tmp_path / "intent" / f"{name}.txt").write_text("1,2,3\n")
    with pytest.raises(DissectError, match=r"intent is the name of a world .*; give the folder .* another"):
        load("intent", tmp_path)


def test_errors():
    with pytest.raises(DissectError, match="unknown world 'ring'; choose from successor-recall, last-item"):
        make("ring")
    with pytest.raises(DissectError, match="at least 20 sessions, not 3"):
        make("intent", sessions=3)
