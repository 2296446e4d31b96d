"""Small worlds of sessions with known answers: what a session model needs is known, because it is made so.

In each, only the last click of a session is to be predicted, and items look alike but for what is said here.

``successor-recall``
    A walk over distinct random items, then a return to one of them: next is the item that followed it the first time.
    Neither the set of items nor the last one tells; which item followed which does, so that a graph model has to pass
    messages. Without order, the best guess is one of the walk's other items.
``last-item``
    Random items; next is the successor of the last one in a fixed order of all items, or a random item with
    ``STRAY``. Everything before the last click is noise.
``intent``
    A session has a hidden category, from which ``CHOSEN`` of its clicks are, the others being from anywhere; next is
    the successor, in the category's own ring, of its most recent item of that category. The last click is from
    elsewhere more often than not, so that a model has to look at the whole session, and at when.
``shuffled``
    The sessions of successor-recall, each with the last click of another: nothing can be learnt.

Examples
--------
>>> world = make("successor-recall", sessions=100)
>>> walk = world.train.slice(0, 1).clicks.tolist()
>>> walk[walk.index(walk[-2]) + 1] == walk[-1]
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from dissect.data.sessions import Dataset, Sessions, expand
from dissect.errors import DissectError

ITEMS = 60
CATEGORIES = 12
WALK = (4, 7)  # distinct items of a walk, the least and the most
LENGTH = (3, 8)  # clicks before the target, in the other worlds
STRAY = 0.1  # probability of a target that follows nothing
CHOSEN = 0.6  # probability of a click from the session's category
TEST = 0.2  # share of the sessions, the last ones, that are tested on

#: Made by each: rows of clicks, -1 where a session has ended, with the target last.
Rows = np.ndarray


def _successor_recall(rng: np.random.Generator, n: int) -> Rows:
    walk = rng.random((n, ITEMS)).argsort(1)[:, : WALK[1]]
    length = rng.integers(WALK[0], WALK[1] + 1, n)
    place = (rng.random(n) * (length - 1)).astype(np.int64)  # any item but the walk's last, which none follows
    rows = np.full((n, WALK[1] + 2), -1)
    for t in range(WALK[1]):
        rows[:, t] = np.where(t < length, walk[:, t], -1)
    every = np.arange(n)
    rows[every, length] = walk[every, place]
    rows[every, length + 1] = walk[every, place + 1]
    return rows


def _last_item(rng: np.random.Generator, n: int) -> Rows:
    successor = _rings(rng, 1)
    rows, last = _random_clicks(rng, n)
    target = successor[rows[np.arange(n), last]]
    rows[np.arange(n), last + 1] = np.where(rng.random(n) < STRAY, rng.integers(0, ITEMS, n), target)
    return rows


def _intent(rng: np.random.Generator, n: int) -> Rows:
    size = ITEMS // CATEGORIES
    successor = (np.arange(ITEMS) // size) * size + (np.arange(ITEMS) + 1) % size
    rows, last = _random_clicks(rng, n)
    category = rng.integers(0, CATEGORIES, n)
    inside = rng.random(rows.shape) < CHOSEN
    inside[:, 0] = True  # one at least
    own = category[:, None] * size + rng.integers(0, size, rows.shape)
    rows = np.where((rows >= 0) & inside, own, rows)
    recent = np.where(rows // size == category[:, None], np.arange(rows.shape[1]), -1).max(1)
    every = np.arange(n)
    rows[every, last + 1] = successor[rows[every, recent]]
    names = rng.permutation(ITEMS)  # nothing can be read off the numbers
    return np.where(rows >= 0, names[rows], -1)


def _shuffled(rng: np.random.Generator, n: int) -> Rows:
    rows = _successor_recall(rng, n)
    last = (rows >= 0).sum(1) - 1
    rows[np.arange(n), last] = rng.permutation(rows[np.arange(n), last])
    return rows


def _random_clicks(rng: np.random.Generator, n: int) -> tuple[Rows, np.ndarray]:
    """Random items, room for a target after them, and the place of each row's last click."""
    length = rng.integers(LENGTH[0], LENGTH[1] + 1, n)
    rows = rng.integers(0, ITEMS, (n, LENGTH[1] + 1))
    return np.where(np.arange(LENGTH[1] + 1) < length[:, None], rows, -1), length - 1


def _rings(rng: np.random.Generator, count: int) -> np.ndarray:
    """The successor of each item when the items stand in `count` rings of equal size, in random order."""
    order = rng.permutation(ITEMS).reshape(count, -1)
    successor = np.empty(ITEMS, np.int64)
    successor[order] = np.roll(order, -1, 1)
    return successor


WORLDS: dict[str, Callable[[np.random.Generator, int], Rows]] = {
    "successor-recall": _successor_recall,
    "last-item": _last_item,
    "intent": _intent,
    "shuffled": _shuffled,
}
"""Name -> what draws its sessions."""


def make(name: str, seed: int = 0, sessions: int = 12_500) -> Dataset:
    """Make the world of that name; the same arguments give the same clicks.

    Parameters
    ----------
    name : str
        One of `WORLDS`.
    seed : int, default 0
        Seed of everything drawn.
    sessions : int, default 12500
        Number of sessions, each with one example; the last fifth is for testing.

    Raises
    ------
    DissectError
        For an unknown name, and fewer than 20 sessions.
    """
    if name not in WORLDS:
        raise DissectError(f"unknown world {name!r}; choose from {', '.join(WORLDS)}")
    if sessions < 20:
        raise DissectError(f"a world needs at least 20 sessions, not {sessions}")
    rows = WORLDS[name](np.random.default_rng(seed), sessions)
    there = rows >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(1))])
    everything = Sessions(rows[there].astype(np.int32), offsets)
    cut = sessions - round(sessions * TEST)
    digest = hashlib.sha256(everything.clicks.tobytes() + everything.offsets.tobytes()).hexdigest()
    test = expand(everything.slice(cut, sessions), last_only=True)
    return Dataset(name, everything.slice(0, cut), test, ITEMS, 0, digest, "generated", last_only=True)
