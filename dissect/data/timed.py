"""Clicks with their times, as the formats with rows hold them: one row a click, or one row an example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from dissect.data.formats import LARGEST_ID, id_fault, offsets_of, read_text
from dissect.data.sessions import Examples, Sessions
from dissect.errors import DissectError

#: Names under which a column is looked for, in this order.
SESSION_NAMES = ("session_id", "session", "sessionId", "user_id", "user", "userId")
ITEM_NAMES = ("item_id", "item", "itemId")
TIME_NAMES = ("timestamp", "time")

_DIGITS = b"0123456789"
_DECIMALS = b"0123456789.+-eE"


@dataclass(frozen=True)
class Timed:
    """What a file holds: sessions, or examples, with ids as they stand there.

    Parameters
    ----------
    content : Sessions or Examples
    times : ndarray of float64, shape (N,), or None
        Seconds, one for each entry of ``content.clicks``; None where the file has none.
    """

    content: Sessions | Examples
    times: np.ndarray | None


def column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the `wanted` names that is there."""
    return next((name for name in wanted if name in names), None)


def needed(path: Path, names: Sequence[str], wanted: Sequence[str], line: str) -> str:
    """As `column`; a column that is missing is a `DissectError` that lists those there are."""
    found = column(names, wanted)
    if found is None:
        there = ", ".join(ascii(name[:40])[1:-1] for name in list(names)[:10])
        raise DissectError(f"{path}{line}: no column {' or '.join(wanted[:3])}; there are {there}")
    return found


def by_session(
    path: Path, session: np.ndarray, items: np.ndarray, times: np.ndarray | None, place: Callable[[int], str]
) -> Timed:
    """Gather rows, one a click, into sessions: in the order in which these begin, rows in their own order.

    Parameters
    ----------
    path : Path
        For the error.
    session : ndarray, shape (N,)
        Any key of the session of each row; rows of a session need not stand together.
    items : ndarray of int, shape (N,)
    times : ndarray of float64, shape (N,), or None
    place : callable
        Row number -> where that is, for the error.

    Raises
    ------
    DissectError
        If the time goes backwards within a session.
    """
    _, first, key = np.unique(session, return_index=True, return_inverse=True)
    number = first.argsort().argsort()[key]
    order = number.argsort(kind="stable")
    offsets = np.append(0, np.cumsum(np.bincount(number)))
    if times is not None:
        check_order(path, times[order], offsets, lambda click: place(int(order[click])))
        times = times[order]
    return Timed(Sessions(items[order], offsets), times)


def check_order(path: Path, times: np.ndarray, offsets: np.ndarray, place: Callable[[int], str]) -> None:
    """Raise for the first click that is earlier than the one before it in its session."""
    back = times[1:] < times[:-1]
    back[offsets[1:-1] - 1] = False  # from one session to the next
    if back.any():
        click = int(back.argmax()) + 1
        before, after = written_times(times[click - 1 : click + 1])
        raise DissectError(f"{path}{place(click)}: the time goes backwards within a session, from {before} to {after}")


def whole_numbers(fields: Sequence[bytes], place: Callable[[int], str]) -> np.ndarray:
    """Item ids of text fields, int64; a field that is none is a `DissectError` that begins with its place."""
    if b"" not in fields and not b"".join(fields).translate(None, _DIGITS) and max(map(len, fields)) < 19:
        numbers = np.fromiter(map(int, fields), np.int64, len(fields))
        if numbers.max() <= LARGEST_ID:
            return numbers
    faults = ((index, id_fault(field)) for index, field in enumerate(fields))
    wrong = next(((index, fault) for index, fault in faults if fault), None)
    if wrong is not None:
        raise DissectError(f"{place(wrong[0])}: {wrong[1]}")
    return np.fromiter((int(field.lstrip(b"0") or b"0") for field in fields), np.int64, len(fields))


def seconds(fields: Sequence[bytes], place: Callable[[int], str]) -> np.ndarray:
    """Times of text fields, float64; what is no finite number is a `DissectError` that begins with its place."""
    if not b"".join(fields).translate(None, _DECIMALS):
        try:
            numbers = np.fromiter(map(float, fields), np.float64, len(fields))
        except ValueError:
            numbers = np.array([np.nan])
        if np.isfinite(numbers).all():
            return numbers
    index = next(index for index, field in enumerate(fields) if not _is_time(field))
    shown = ascii(fields[index][:40].decode("utf-8", "replace"))
    raise DissectError(f"{place(index)}: {shown} is not a time (a number of seconds)")


def _is_time(field: bytes) -> bool:
    try:
        return not field.translate(None, _DECIMALS) and bool(np.isfinite(float(field)))
    except ValueError:
        return False


def written_times(times: np.ndarray) -> list[str]:
    """Times as text that reads back as the same numbers; without a point where they are whole."""
    return [str(int(time)) if time.is_integer() else repr(time) for time in times.tolist()]


def read_text_times(path: Path, sessions: Sessions) -> np.ndarray:
    """Read the times of text sessions: a line a session, a number of seconds a click, between commas.

    Returns
    -------
    ndarray of float64, shape (N,)
        One for each entry of ``sessions.clicks``.

    Raises
    ------
    DissectError
        If the file is missing or empty, a field is no number, a line has not one time a click, or the time goes
        backwards within a line.
    """
    lines = [line.split(b",") for line in read_text(path).split(b"\n")]
    offsets = offsets_of(lines)
    wrong = np.flatnonzero(offsets[1:][: len(sessions)] != sessions.offsets[1:][: len(lines)])
    if len(wrong):
        line, have = int(wrong[0]), len(lines[int(wrong[0])])
        raise DissectError(f"{path}, line {line + 1}: {have} times for a session of {sessions.lengths[line]} clicks")
    if len(lines) != len(sessions):
        raise DissectError(f"{path}: {len(lines)} lines of times for {len(sessions)} sessions")

    def line_of(click: int) -> str:
        return f", line {np.searchsorted(offsets, click, side='right')}"

    times = seconds(list(chain.from_iterable(lines)), lambda click: f"{path}{line_of(click)}")
    check_order(path, times, offsets, line_of)
    return times
