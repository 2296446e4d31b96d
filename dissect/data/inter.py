"""RecBole's atomic files (``.inter``): tab-separated rows below a header of ``name:type`` fields.

Two kinds are told apart by the header. With ``item_id_list:token_seq`` each row is an example: a prefix, its items
separated by spaces, and the target that followed (``item_id``), which is RecBole's own form of an augmented data set.
Else each row is a click. Times (``timestamp``, ``timestamp_list``) are read and written in both.
https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from dissect.data.formats import heads_of, offsets_of, read_text, rebuild
from dissect.data.sessions import Examples, Sessions
from dissect.data.timed import (
    ITEM_NAMES,
    SESSION_NAMES,
    TIME_NAMES,
    Timed,
    by_session,
    check_order,
    column,
    needed,
    seconds,
    whole_numbers,
    written_times,
)
from dissect.errors import DissectError

SEQUENCE = "item_id_list"
TIMES = "timestamp_list"
TYPES = ("token", "token_seq", "float", "float_seq")


def read_inter(path: Path) -> Timed:
    """Read a ``.inter`` file of either kind: `Sessions` where rows are clicks, `Examples` where they are examples.

    Rows of one session need not stand together; sessions come in the order in which they begin. Examples are joined
    into sessions as in SR-GNN's pickles: a row continues the row before if it is that row's prefix. The session column
    of such rows is not used: in published files it numbers the rows.

    Raises
    ------
    DissectError
        If the file is missing or empty, a column is missing, a row has another number of fields than the header, an
        id is no whole number, a time is no number or goes backwards; the message names the file, the line, the cause.
    """
    head, _, body = read_text(path).partition(b"\n")
    names = _names(path, head)
    if not body:
        raise DissectError(f"{path}: there are no rows below the header")
    rows = [line.split(b"\t") for line in body.split(b"\n")]
    if set(map(len, rows)) != {len(names)}:
        number, row = next((n, row) for n, row in enumerate(rows, start=2) if len(row) != len(names))
        what = f"{len(row)} fields, the header has {len(names)}" if row != [b""] else "the line is blank"
        raise DissectError(f"{path}, line {number}: {what}")
    return _examples(path, names, rows) if SEQUENCE in names else _clicks(path, names, rows)


def inter_has_times(path: Path) -> bool:
    """Whether a ``.inter`` file has the times of its clicks, by its header; False where that is faulty."""
    with contextlib.suppress(DissectError, OSError), path.open("rb") as file:
        names = _names(path, file.readline().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"))
        return column(names, TIME_NAMES) is not None and (SEQUENCE not in names or TIMES in names)
    return False


def _names(path: Path, head: bytes) -> list[str]:
    """Column names of a header."""
    fields = [field.decode("utf-8", "replace").rpartition(":") for field in head.split(b"\t")]
    delimiter = next((mark for mark in ", ;|" if mark in fields[0][0] + fields[0][2]), None)
    if len(fields) == 1 and delimiter is not None:
        raise DissectError(f"{path}, line 1: columns are separated by tabs in a .inter file, not by {delimiter!r}")
    for name, _, kind in fields:
        if not name or kind not in TYPES:
            shown = ascii(f"{name}:{kind}"[:40] if name else kind[:40])
            raise DissectError(f"{path}, line 1: {shown} is not a column of the form name:{'|'.join(TYPES)}")
    names = [name for name, _, _ in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DissectError(f"{path}, line 1: two columns are called {twice[:40]!a}")
    return names


def _clicks(path: Path, names: Sequence[str], rows: Sequence[Sequence[bytes]]) -> Timed:
    session, item = (names.index(needed(path, names, wanted, ", line 1")) for wanted in (SESSION_NAMES, ITEM_NAMES))
    time = column(names, TIME_NAMES)

    def place(row: int) -> str:
        return f", line {row + 2}"

    items = whole_numbers([row[item] for row in rows], lambda row: f"{path}{place(row)}")
    keys = np.array([row[session] for row in rows], dtype=object)
    if (keys == b"").any():
        raise DissectError(f"{path}{place(int((keys == b'').argmax()))}: the session's name is empty")
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    times = None
    if time is not None:
        at = names.index(time)
        times = seconds([row[at] for row in rows], lambda row: f"{path}{place(row)}")
    return by_session(path, np.fromiter(map(number.__getitem__, keys), np.int64, len(rows)), items, times, place)


def _examples(path: Path, names: Sequence[str], rows: Sequence[Sequence[bytes]]) -> Timed:
    before, item = names.index(SEQUENCE), names.index(needed(path, names, ITEM_NAMES, ", line 1"))
    fields = [[*row[before].split(b" "), row[item]] for row in rows]
    offsets = offsets_of(fields)

    def place(click: int) -> str:
        return f", line {np.searchsorted(offsets, click, side='right') + 1}"

    flat = whole_numbers(list(chain.from_iterable(fields)), lambda click: f"{path}{place(click)}")
    full = [row.tolist() for row in np.split(flat, offsets[1:-1])]
    heads, time = heads_of(full), column(names, TIME_NAMES)
    if time is None or TIMES not in names:
        return Timed(rebuild(full, heads), None)
    first, last = names.index(TIMES), names.index(time)
    stamps = [[*row[first].split(b" "), row[last]] for row in rows]
    uneven = next((n for n, pair in enumerate(zip(fields, stamps, strict=True)) if len(pair[0]) != len(pair[1])), None)
    if uneven is not None:
        counts = len(stamps[uneven]) - 1, len(fields[uneven]) - 1
        raise DissectError(f"{path}, line {uneven + 2}: {counts[0]} times for {counts[1]} items")
    times = seconds(list(chain.from_iterable(stamps)), lambda click: f"{path}{place(click)}")
    check_order(path, times, offsets, place)
    split = [row.tolist() for row in np.split(times, offsets[1:-1])]
    heads = [one or other for one, other in zip(heads, heads_of(split), strict=True)]
    kept = [row for row, head in zip(split, heads, strict=True) if head]
    return Timed(rebuild(full, heads), np.array(list(chain.from_iterable(kept))))


def click_lines(sessions: Sessions, times: np.ndarray | None, first: int) -> Iterator[str]:
    """Lines of a file with a row for each click; `first` is the number of its first session."""
    yield "session_id:token\titem_id:token" + ("" if times is None else "\ttimestamp:float") + "\n"
    session = np.repeat(np.arange(first, first + len(sessions)), sessions.lengths).tolist()
    columns = [list(map(str, session)), list(map(str, sessions.clicks.tolist()))]
    if times is not None:
        columns.append(written_times(times))
    for row in zip(*columns, strict=True):
        yield "\t".join(row) + "\n"


def example_lines(examples: Examples, times: np.ndarray | None, first: int) -> Iterator[str]:
    """Lines of a file with a row for each example; `first` is the number of the first one's session."""
    timed = "" if times is None else f"\t{TIMES}:float_seq\ttimestamp:float"
    yield f"session_id:token\t{SEQUENCE}:token_seq\titem_id:token{timed}\n"
    items = list(map(str, examples.clicks.tolist()))
    stamps = None if times is None else written_times(times)
    windows = zip(examples.session.tolist(), examples.start.tolist(), examples.end.tolist(), strict=True)
    for session, start, end in windows:
        row = [str(first + session), " ".join(items[start:end]), items[end]]
        if stamps is not None:
            row += [" ".join(stamps[start:end]), stamps[end]]
        yield "\t".join(row) + "\n"
