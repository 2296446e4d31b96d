"""Parquet files with a row for each click: a session (or user), an item and, where known, a time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from dissect.data.formats import LARGEST_ID, read_bytes
from dissect.data.sessions import Sessions
from dissect.data.timed import ITEM_NAMES, SESSION_NAMES, TIME_NAMES, Timed, by_session, column, needed
from dissect.errors import DissectError

#: More rows than this for each byte of a file are not real clicks, but a file made to fill the memory.
ROWS_PER_BYTE = 20
ROWS_AT_LEAST = 1_000_000


def read_parquet(path: Path) -> Timed:
    """Read the clicks of a Parquet file into sessions, in the order in which these begin.

    Columns are found by name: ``session_id``, ``session``, ``user_id`` ... (whole numbers or text), ``item_id`` or
    ``item`` (whole numbers), ``timestamp`` or ``time`` (numbers of seconds, or dates with a time).

    Raises
    ------
    DissectError
        If the file is missing, empty or no Parquet file, a column is missing or of another type, a value is missing,
        an id is out of range, or the time goes backwards within a session.
    """
    frame = _frame(path, read_bytes(path))
    session, item = (needed(path, frame.columns, wanted, "") for wanted in (SESSION_NAMES, ITEM_NAMES))
    time = column(frame.columns, TIME_NAMES)
    for name in filter(None, (session, item, time)):
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_max() or 0) + 1
            raise DissectError(f"{path}, row {row}: column {name} has no value")
    items = frame[item].to_numpy()
    wrong = (items < 0) | (items > LARGEST_ID)
    if wrong.any():
        row = int(wrong.argmax())
        raise DissectError(f"{path}, row {row + 1}: the item id {items[row]} is outside 0 to {LARGEST_ID}")
    times = None if time is None else _seconds(path, frame[time])
    keys = frame[session].rank("dense").to_numpy()
    return by_session(path, keys, items.astype(np.int64), times, lambda row: f", row {row + 1}")


def _frame(path: Path, content: bytes) -> Any:
    """The columns in use as a data frame, their types checked before anything is read into memory."""
    import polars as pl

    try:
        schema = pl.read_parquet_schema(io.BytesIO(content))
        wanted = [
            needed(path, list(schema), SESSION_NAMES, ""),
            needed(path, list(schema), ITEM_NAMES, ""),
            *filter(None, [column(list(schema), TIME_NAMES)]),
        ]
        for name in wanted:
            kind = schema[name]
            if not (kind.is_integer() or (name in SESSION_NAMES and kind == pl.String)) and name not in TIME_NAMES:
                raise DissectError(f"{path}: column {name} holds {_shown(kind)}, not whole numbers")
            if name in TIME_NAMES and not (kind.is_integer() or kind.is_float() or kind == pl.Datetime):
                raise DissectError(f"{path}: column {name} holds {_shown(kind)}, not times")
        rows = pl.scan_parquet(io.BytesIO(content)).select(pl.len()).collect().item()
        if rows > ROWS_AT_LEAST + ROWS_PER_BYTE * len(content):
            raise DissectError(f"{path}: refused, it claims {rows:,} rows in {len(content):,} bytes")
        if not rows:
            raise DissectError(f"{path}: there are no rows in it")
        return pl.read_parquet(io.BytesIO(content), columns=wanted)
    except DissectError:
        raise
    # A damaged file may raise nearly anything; polars' panics are no Exceptions.
    except (Exception, pl.exceptions.PanicException) as error:
        what = "damaged" if content.startswith(b"PAR1") else "not a Parquet file"
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DissectError(f"{path}: {what} ({len(content)} bytes: {reason})") from None


def _shown(kind: Any) -> str:
    return " ".join(str(kind).split())[:60]


def _seconds(path: Path, times: Any) -> np.ndarray:
    import polars as pl

    if times.dtype == pl.Datetime:
        return times.dt.timestamp("us").to_numpy().astype(np.float64) / 1e6
    found = times.cast(pl.Float64).to_numpy()
    if not np.isfinite(found).all():
        raise DissectError(f"{path}, row {int((~np.isfinite(found)).argmax()) + 1}: the time is not a finite number")
    return found


def write_parquet(path: Path, sessions: Sessions, times: np.ndarray | None, first: int) -> None:
    """Write a row for each click: ``session_id``, ``item_id`` and, where there are times, ``timestamp``.

    Parameters
    ----------
    path : Path
    sessions : Sessions
    times : ndarray of float64, shape (N,), or None
        Whole seconds are written as whole numbers.
    first : int
        Number of the first session.
    """
    import polars as pl

    columns = {
        "session_id": np.repeat(np.arange(first, first + len(sessions)), sessions.lengths),
        "item_id": np.ascontiguousarray(sessions.clicks),
    }
    if times is not None:
        whole = (times == np.floor(times)).all() and (np.abs(times) < 2**53).all()
        columns["timestamp"] = times.astype(np.int64) if whole else times
    pl.DataFrame(columns).write_parquet(path)
