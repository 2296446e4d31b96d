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
    read_text,
    read_text_sessions,
)
from dissect.data.inter import inter_has_times, read_inter
from dissect.data.parquet import parquet_has_times, read_parquet
from dissect.data.sessions import Dataset, Examples, Sessions, expand, split_validation
from dissect.data.timed import read_text_times
from dissect.errors import DissectError

# Names of the training and the test file, in the order they are looked for.
PAIRS = (("all_train_seq.txt", "test.txt"), ("train.txt", "test.txt"))
SINGLE = "sessions.txt"
ITEMS = "num_items.txt"
#: What `dissect data prepare` writes beside the sessions: the raw id of each item, an item a line.
NAMES = "items.txt"
EXPECTED = (
    "all_train_seq.txt + test.txt, or train.txt + test.txt, or sessions.txt, or NAME.train.inter + NAME.test.inter, "
    "or NAME.inter, or train.parquet + test.parquet, or sessions.parquet"
)
#: Times of sessions in text or pickles lie beside them: name of the sessions -> name of the times.
TEXT_TIMES = {
    "sessions.txt": "timestamps.txt",
    "train.txt": "train_timestamps.txt",
    "all_train_seq.txt": "train_timestamps.txt",
    "test.txt": "test_timestamps.txt",
}

#: Without a declared number of items, ids may be this many times as many as those that occur.
SPARSE_IDS = 1000


@dataclass(frozen=True)
class Layout:
    """The files of one data set: ``train``, ``test`` (None: the last fifth of train, see `split_rule`) and ``count``.

    ``valid`` is what RecBole calls so; its sessions follow those of ``train``.
    """

    train: Path
    test: Path | None
    count: Path | None
    valid: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Every file whose content the data set depends on."""
        return [path for path in (self.train, self.valid, self.test, self.count) if path is not None]

    def sha256(self) -> str:
        """SHA-256 over the names and contents of all files, and over the times where they decide on the split.

        Times beside one file of sessions count only if they change the order of its sessions: where they don't, the
        data set is the same with and without them.
        """
        digest = hashlib.sha256()
        decisive = [self.times] if self.times is not None and not _in_order(self.times) else []
        for path in [*self.files, *decisive]:
            content = read_bytes(path)
            digest.update(f"{path.name}\0{len(content)}\0".encode())
            digest.update(content)
        if self.test is None and self.train.suffix in TABLES and self.timed:
            # The file's order once decided: a run or a parsed copy of that split is not one of this.
            digest.update(b"split by the time of the last click\0")
        return digest.hexdigest()

    @property
    def times(self) -> Path | None:
        """The file of times beside one file of sessions; None where there is none, or there are two files."""
        name = TEXT_TIMES.get(self.train.name) if self.test is None else None
        beside = self.train.with_name(name) if name else None
        return beside if beside is not None and beside.is_file() else None

    @property
    def timed(self) -> bool:
        """Whether one file of sessions has times, in it or beside it."""
        if self.test is not None:
            return False
        has_times = HAVE_TIMES.get(self.train.suffix)
        return self.times is not None if has_times is None else has_times(self.train)


def _in_order(path: Path) -> bool:
    """Whether the last times of all lines ascend; False where one is no number, of which the reader tells."""
    times = _last_of_lines(path)
    return times is not None and bool((times[1:] >= times[:-1]).all())


def _last_of_lines(path: Path) -> np.ndarray | None:
    """The last number of each line; None where one is none."""
    last = [line.rpartition(b",")[2] for line in read_text(path).split(b"\n")]
    try:
        return np.fromiter(map(float, last), np.float64, len(last))
    except ValueError:
        return None


def end_times(source: str | Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Times of the last clicks of the sessions in two files, of training's and of test's.

    Of text only these are read, in a second for half a million sessions.

    Parameters
    ----------
    source : str or Path
        The folder, a data set's ``source``.

    Returns
    -------
    tuple of ndarray of float64, or None
        None where the parts are not two files, or times are missing or no numbers.

    Raises
    ------
    DissectError
        As `read_timed`.
    """
    layout = layout_of(source)
    if layout is None or layout.test is None:
        return None
    if layout.train.suffix in TABLES:
        data, times = read_timed(layout, "", "")
        if times is None:
            return None
        last = np.append(np.flatnonzero(np.diff(data.test.session)), len(data.test) - 1)
        return times[0][data.train.offsets[1:] - 1], times[1][data.test.end[last]]
    beside = [path.with_name(TEXT_TIMES[path.name]) for path in (layout.train, layout.test)]
    if not all(path.is_file() for path in beside):
        return None
    train, test = map(_last_of_lines, beside)
    return None if train is None or test is None else (train, test)


def split_rule(source: str | Path) -> str | None:
    """How the one file of a data set was split into training and test, in words.

    Parameters
    ----------
    source : str or Path
        The folder, a data set's ``source``.

    Returns
    -------
    str or None
        None where the parts are two files, or there are no files.
    """
    layout = layout_of(source)
    if layout is None or layout.test is not None:
        return None
    order = "by the time of their last click" if layout.timed else "in the file's order (there are no times)"
    return f"the last 20% of the sessions in {layout.train.name}, {order}"


def layout_of(source: str | Path) -> Layout | None:
    """The files behind a data set's ``source``; None where it was generated, or they are gone."""
    return None if source == "generated" else recognise(Path(source))


def recognise(folder: Path) -> Layout | None:
    """Return the files of the data set in ``folder``, or None where there is none."""
    count = folder / ITEMS if (folder / ITEMS).is_file() else None
    for train, test in PAIRS:
        if (folder / train).is_file() and (folder / test).is_file():
            return Layout(folder / train, folder / test, count)
    if (folder / SINGLE).is_file():
        return Layout(folder / SINGLE, None, count)
    for train in sorted(folder.glob("*.train.inter")):
        test, valid = (train.with_name(train.name.replace(".train.", f".{part}.")) for part in ("test", "valid"))
        if test.is_file():
            return Layout(train, test, count, valid if valid.is_file() else None)
    single = [path for path in folder.glob("*.inter") if path.suffixes[-2:-1] not in ([".test"], [".valid"])]
    if len(single) == 1:
        return Layout(single[0], None, count)
    if (folder / "train.parquet").is_file() and (folder / "test.parquet").is_file():
        return Layout(folder / "train.parquet", folder / "test.parquet", count)
    if (folder / "sessions.parquet").is_file():
        return Layout(folder / "sessions.parquet", None, count)
    return None


#: Readers of files with rows, by the files' ending; and what tells whether such a file has times.
TABLES = {".inter": read_inter, ".parquet": read_parquet}
HAVE_TIMES = {".inter": inter_has_times, ".parquet": parquet_has_times}

#: Seconds for each training click and for each test click.
Times = tuple[np.ndarray, np.ndarray]


def read(layout: Layout, name: str, sha256: str) -> Dataset:
    """Read a data set and turn its ids into internal ones, 0 to ``items - 1``.

    Pickles (SR-GNN's) count items from 1 to the largest id in training. Text counts from 0 to
    ``num_items.txt``, or to the largest id where that file is missing; so do files with rows, which
    count from 1 where no item is called 0.

    Of one file of sessions the last fifth is for testing: by the time of the last click where there are
    times (sessions of equal time keep the file's order), else in the file's order.

    Raises
    ------
    DissectError
        If a file cannot be read, an id is out of range, or nothing is left to train or test on.
    """
    return read_timed(layout, name, sha256)[0]


def read_timed(layout: Layout, name: str, sha256: str, text_times: bool = False) -> tuple[Dataset, Times | None]:
    """As `read`, with the times of all clicks where the files have them.

    Parameters
    ----------
    layout : Layout
    name, sha256 : str
        Of the data set.
    text_times : bool, default False
        Also read the times that lie beside two files of text or pickles. Those beside one file are always read: they
        say which sessions are the last.

    Raises
    ------
    DissectError
        As `read`; also if only one of two files has times, or times are not those of the sessions.
    """
    if layout.train.suffix in TABLES:
        train, test, items, first, stamps = _read_tables(layout)
    else:
        pickled = is_pickle(layout.train)
        if layout.test is not None and is_pickle(layout.test) != pickled:
            kinds = ("a pickle", "text") if pickled else ("text", "a pickle")
            raise DissectError(
                f"{layout.test.parent}: {layout.train.name} is {kinds[0]} and {layout.test.name} is {kinds[1]};"
                " both must be of one kind"
            )
        train, test, items, stamps = (_read_pickles if pickled else _read_text)(layout, text_times)
        first = int(pickled)
    if not (train.lengths > 1).any() or not len(test):
        part = "training" if len(test) else "test"
        raise DissectError(f"{layout.train.parent}: no {part} session has two clicks or more")
    cut = len(train.clicks)
    times = None if stamps is None else (stamps[:cut], stamps[cut:])
    return Dataset(name, train, test, items, first, sha256, str(layout.train.parent)), times


def read_test_times(layout: Layout) -> np.ndarray | None:
    """Read the times of the test clicks; of two files only the test part is read.

    Returns
    -------
    ndarray of float64, shape (N,), or None
        One for each of the data set's ``test.clicks``; None where there are no times.

    Raises
    ------
    DissectError
        As `read_timed`.
    """
    if layout.test is None:
        times = read_timed(layout, "", "")[1]
        return None if times is None else times[1]
    if layout.test.suffix in TABLES:
        return TABLES[layout.test.suffix](layout.test).times
    beside = layout.test.with_name(TEXT_TIMES[layout.test.name])
    if not beside.is_file():
        return None
    pickled = is_pickle(layout.test)
    return read_text_times(beside, sessions_of((read_pickle_examples if pickled else read_text_sessions)(layout.test)))


def _times_beside(layout: Layout, parts: list[Sessions]) -> np.ndarray | None:
    """Times of text or pickles, of training and test clicks one after the other; None where there are none.

    `parts` are the sessions of each file.
    """
    files = [path for path in (layout.train, layout.test) if path is not None]
    beside = [path.with_name(TEXT_TIMES[path.name]) for path in files]
    there = [path.is_file() for path in beside]
    if not any(there):
        return None
    if not all(there):
        has, lacks = (beside[there.index(which)].name for which in (True, False))
        raise DissectError(f"{layout.train.parent}: there is {has} and no {lacks}; add it or take the other away")
    return np.concatenate([read_text_times(path, part) for path, part in zip(beside, parts, strict=True)])


def _split_off(
    path: Path, sessions: Sessions, times: np.ndarray | None
) -> tuple[Sessions, Sessions, np.ndarray | None]:
    """Training and test sessions of one file, and the times of all clicks in this order."""
    if len(sessions) < 2:
        raise DissectError(f"{path}: there is one session in it; 2 or more are split into training and test")
    if times is not None:
        order = np.argsort(times[sessions.offsets[1:] - 1], kind="stable")
        clicks = Sessions(np.arange(len(times)), sessions.offsets).take(order).clicks
        sessions, times = sessions.take(order), times[clicks]
    return *split_validation(sessions), times


def sessions_of(content: Sessions | Examples) -> Sessions:
    """Return the sessions behind examples; sessions are returned as they are."""
    if isinstance(content, Sessions):
        return content
    heads = np.flatnonzero(np.diff(content.session, prepend=-1))
    return Sessions(content.clicks, np.append(content.start[heads], len(content.clicks)))


def _read_tables(layout: Layout) -> tuple[Sessions, Examples, int, int, np.ndarray | None]:
    """Training sessions, test examples, number of items, first id, and the times of all clicks in this order."""
    read_file = TABLES[layout.train.suffix]
    files = [path for path in (layout.train, layout.valid, layout.test) if path is not None]
    parts = [read_file(path) for path in files]
    first = int(min(int(part.content.clicks.min()) for part in parts) > 0)
    items = _items(layout, [part.content.clicks - first for part in parts])
    for path, part in zip(files, parts, strict=True):
        _check(path, part.content.clicks, None, first, items)
    stamps = [part.times for part in parts if part.times is not None]
    times = np.concatenate(stamps) if len(stamps) == len(parts) else None
    last = parts.pop().content if layout.test is not None else None
    sessions = [sessions_of(part.content) for part in parts]
    lengths = np.concatenate([part.lengths for part in sessions])
    clicks = np.concatenate([part.clicks for part in sessions]) - first
    train = Sessions(clicks, np.append(0, np.cumsum(lengths)))
    if last is None:
        train, rest, times = _split_off(layout.train, train, times)
        test = expand(rest)
    elif isinstance(last, Sessions):
        test = expand(Sessions(last.clicks - first, last.offsets))
    else:
        test = Examples(last.clicks - first, last.start, last.end, last.session)
    return train, test, items, first, times


def _read_pickles(layout: Layout, timed: bool) -> tuple[Sessions, Examples, int, np.ndarray | None]:
    """Training sessions, test examples, number of items, and the times of all clicks in this order."""
    if layout.train.name == "train.txt":  # SR-GNN's own train.txt holds prefixes, as test.txt does
        train = sessions_of(read_pickle_examples(layout.train))
    else:
        train = read_pickle_sessions(layout.train)
    items = _count(layout.count) or int(train.clicks.max())
    _check(layout.train, train.clicks, None, 1, items)
    train = Sessions(train.clicks - 1, train.offsets)
    if layout.test is None:
        train, last, times = _split_off(layout.train, train, _times_beside(layout, [train]))
        return train, expand(last), items, times
    test = read_pickle_examples(layout.test)
    _check(layout.test, test.clicks, None, 1, items)
    times = _times_beside(layout, [train, sessions_of(test)]) if timed else None
    return train, Examples(test.clicks - 1, test.start, test.end, test.session), items, times


def _read_text(layout: Layout, timed: bool) -> tuple[Sessions, Examples, int, np.ndarray | None]:
    """As `_read_pickles`."""
    train = read_text_sessions(layout.train)
    test = None if layout.test is None else read_text_sessions(layout.test)
    items = _items(layout, [part.clicks for part in (train, test) if part is not None])
    _check(layout.train, train.clicks, train.offsets, 0, items)
    if test is None or layout.test is None:
        train, test, times = _split_off(layout.train, train, _times_beside(layout, [train]))
    else:
        _check(layout.test, test.clicks, test.offsets, 0, items)
        times = _times_beside(layout, [train, test]) if timed else None
    return train, expand(test), items, times


def _items(layout: Layout, parts: list[np.ndarray]) -> int:
    """The declared number of items, or one more than the largest internal id of all parts."""
    declared = _count(layout.count)
    if declared is not None:
        return declared
    # Without a declared number every id seen counts, so that an unseen test item is a miss, not an error.
    largest = max(int(part.max()) for part in parts)
    distinct = len(np.unique(np.concatenate(parts)))
    if largest + 1 > SPARSE_IDS * distinct + 1000:  # a table with a row for each would not fit into memory
        raise DissectError(
            f"{layout.train}: the largest item id is {largest}, yet only {distinct} ids occur; number the items "
            f"from 0, or write their number into {layout.train.parent / ITEMS}"
        )
    return largest + 1


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
