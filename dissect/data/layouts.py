"""Folders that hold a data set: which files make one up, and how they become a `Dataset`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dissect.data.formats import (
    is_pickle,
    read_bytes,
    read_pickle_examples,
    read_pickle_sessions,
    read_text_sessions,
)
from dissect.data.sessions import Dataset, Examples, Sessions, expand, split_validation
from dissect.errors import DissectError

# Names of the training and the test file, in the order they are looked for.
PAIRS = (("all_train_seq.txt", "test.txt"), ("train.txt", "test.txt"))
SINGLE = "sessions.txt"
ITEMS = "num_items.txt"
EXPECTED = "all_train_seq.txt + test.txt, or train.txt + test.txt, or sessions.txt"

#: Without a declared number of items, ids may be this many times as many as those that occur.
SPARSE_IDS = 1000


@dataclass(frozen=True)
class Layout:
    """The files of one data set: ``train``, ``test`` (None: the last fifth of train) and ``count``."""

    train: Path
    test: Path | None
    count: Path | None

    @property
    def files(self) -> list[Path]:
        """Every file whose content the data set depends on."""
        return [path for path in (self.train, self.test, self.count) if path is not None]

    def sha256(self) -> str:
        """SHA-256 over the names and contents of all files."""
        digest = hashlib.sha256()
        for path in self.files:
            content = read_bytes(path)
            digest.update(f"{path.name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()


def recognise(folder: Path) -> Layout | None:
    """Return the files of the data set in ``folder``, or None where there is none."""
    count = folder / ITEMS if (folder / ITEMS).is_file() else None
    for train, test in PAIRS:
        if (folder / train).is_file() and (folder / test).is_file():
            return Layout(folder / train, folder / test, count)
    if (folder / SINGLE).is_file():
        return Layout(folder / SINGLE, None, count)
    return None


def read(layout: Layout, name: str, sha256: str) -> Dataset:
    """Read a data set and turn its ids into internal ones, 0 to ``items - 1``.

    Pickles (SR-GNN's) count items from 1 to the largest id in training. Text counts from 0 to
    ``num_items.txt``, or to the largest id where that file is missing.

    Raises
    ------
    DissectError
        If a file cannot be read, an id is out of range, or nothing is left to train or test on.
    """
    pickled = is_pickle(layout.train)
    if layout.test is not None and is_pickle(layout.test) != pickled:
        kinds = ("a pickle", "text") if pickled else ("text", "a pickle")
        raise DissectError(
            f"{layout.test.parent}: {layout.train.name} is {kinds[0]} and {layout.test.name} is {kinds[1]};"
            " both must be of one kind"
        )
    train, test, items = (_read_pickles if pickled else _read_text)(layout)
    if not (train.lengths > 1).any() or not len(test):
        part = "training" if len(test) else "test"
        raise DissectError(f"{layout.train.parent}: no {part} session has two clicks or more")
    return Dataset(name, train, test, items, int(pickled), sha256, str(layout.train.parent))


def _read_pickles(layout: Layout) -> tuple[Sessions, Examples, int]:
    if layout.train.name == "train.txt":  # SR-GNN's own train.txt holds prefixes, as test.txt does
        rows = read_pickle_examples(layout.train)
        heads = np.flatnonzero(np.diff(rows.session, prepend=-1))
        train = Sessions(rows.clicks, np.append(rows.start[heads], len(rows.clicks)))
    else:
        train = read_pickle_sessions(layout.train)
    items = _count(layout.count) or int(train.clicks.max())
    _check(layout.train, train.clicks, None, 1, items)
    train = Sessions(train.clicks - 1, train.offsets)
    if layout.test is None:
        train, last = split_validation(train)
        return train, expand(last), items
    test = read_pickle_examples(layout.test)
    _check(layout.test, test.clicks, None, 1, items)
    return train, Examples(test.clicks - 1, test.start, test.end, test.session), items


def _read_text(layout: Layout) -> tuple[Sessions, Examples, int]:
    train = read_text_sessions(layout.train)
    test = None if layout.test is None else read_text_sessions(layout.test)
    # Without a declared number every id seen counts, so that an unseen test item is a miss, not an error.
    largest = max(int(part.clicks.max()) for part in (train, test) if part is not None)
    items = _count(layout.count) or largest + 1
    if layout.count is None:
        distinct = len(np.unique(np.concatenate([part.clicks for part in (train, test) if part is not None])))
        if items > SPARSE_IDS * distinct + 1000:  # a table with a row for each would not fit into memory
            raise DissectError(
                f"{layout.train}: the largest item id is {largest}, yet only {distinct} ids occur; number the items "
                f"from 0, or write their number into {layout.train.parent / 'num_items.txt'}"
            )
    _check(layout.train, train.clicks, train.offsets, 0, items)
    if test is None or layout.test is None:
        train, test = split_validation(train)
    else:
        _check(layout.test, test.clicks, test.offsets, 0, items)
    return train, expand(test), items


def _count(path: Path | None) -> int | None:
    """Read ``num_items.txt``: one whole number above 0."""
    if path is None:
        return None
    text = read_bytes(path).strip()
    if not text.isdigit() or not 0 < len(text) <= 10 or int(text) == 0:
        raise DissectError(f"{path}, line 1: {text[:40].decode('utf-8', 'replace')!a} is not a number of items")
    return int(text)


def _check(path: Path, clicks: np.ndarray, offsets: np.ndarray | None, first: int, items: int) -> None:
    """Raise for the first id above the range; in text, session s stands on line s + 1."""
    last = items - 1 + first
    if int(clicks.max()) > last:
        where = int(np.argmax(clicks > last))
        line = "" if offsets is None else f", line {np.searchsorted(offsets, where, side='right')}"
        raise DissectError(f"{path}{line}: item id {clicks[where]} is out of range, {first} to {last}")
