"""Parquet files with a row for each click: a session (or user), an item and, where known, a time.

Read with pyarrow: it answers a damaged file with an exception. polars 2.1 asks for exabytes of memory for some, and
the process is then gone (`tests/fuzz_readers.py` found such a file).
"""

from __future__ import annotations

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
    content = read_bytes(path)
    try:
        keys, items, times = _columns(path, content)
    except DissectError:
        raise
    except Exception as error:  # a damaged file may raise nearly anything, MemoryError included
        what = "damaged" if content.startswith(b"PAR1") else "not a Parquet file"
        reason = ascii(" ".join(str(error).split())[:100])[1:-1] or type(error).__name__
        raise DissectError(f"{path}: {what} ({len(content)} bytes: {reason})") from None
    wrong = (items < 0) | (items > LARGEST_ID)
    if wrong.any():
        row = int(wrong.argmax())
        raise DissectError(f"{path}, row {row + 1}: the item id {items[row]} is outside 0 to {LARGEST_ID}")
    if times is not None and not np.isfinite(times).all():
        raise DissectError(f"{path}, row {int((~np.isfinite(times)).argmax()) + 1}: the time is not a finite number")
    return by_session(path, keys, items.astype(np.int64), times, lambda row: f", row {row + 1}")


def parquet_has_times(path: Path) -> bool:
    """Whether a Parquet file has a column of times; False where it can't be read."""
    import pyarrow.parquet as pq

    try:
        return column(pq.read_schema(path).names, TIME_NAMES) is not None
    except Exception:  # as in `read_parquet`, which tells of it
        return False


def plausible(rows: int, size: int, shown: str) -> None:
    """Refuse a file that claims more rows than its bytes can hold.

    Parameters
    ----------
    rows, size : int
        Rows that its footer names; bytes.
    shown : str
        The file's name in the message.

    Raises
    ------
    DissectError
        If there are too many.
    """
    if rows > ROWS_AT_LEAST + ROWS_PER_BYTE * size:
        raise DissectError(f"{shown}: refused, it claims {rows:,} rows in {size:,} bytes")


def _columns(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Session keys, items and times; types and the number of rows are checked before anything is unpacked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(content))
    schema, rows = file.schema_arrow, file.metadata.num_rows
    session, item = (needed(path, schema.names, wanted, "") for wanted in (SESSION_NAMES, ITEM_NAMES))
    time = column(schema.names, TIME_NAMES)
    kinds: Any = pa.types
    texts = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)
    numbers = (kinds.is_integer, kinds.is_floating, kinds.is_timestamp)
    for name, allowed, what in (
        (session, (kinds.is_integer, *texts), "whole numbers"),
        (item, (kinds.is_integer,), "whole numbers"),
        (time, numbers, "times"),
    ):
        if name is not None and not any(is_kind(schema.field(name).type) for is_kind in allowed):
            shown = ascii(" ".join(str(schema.field(name).type).split())[:40])[1:-1]
            raise DissectError(f"{path}: column {name} holds {shown}, not {what}")
    plausible(rows, len(content), str(path))
    if not rows:
        raise DissectError(f"{path}: there are no rows in it")
    wanted = [name for name in (session, item, time) if name is not None]
    table = file.read(columns=wanted, use_threads=False)
    for name in wanted:
        if table[name].null_count:
            row = int(table[name].is_null().to_numpy().argmax()) + 1
            raise DissectError(f"{path}, row {row}: column {name} has no value")
    keys, items = (table[name].to_numpy() for name in (session, item))
    if time is None:
        return keys, items, None
    stamps = table[time]
    if kinds.is_timestamp(stamps.type):
        return keys, items, stamps.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 1e6
    return keys, items, stamps.to_numpy().astype(np.float64)


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "session_id": np.repeat(np.arange(first, first + len(sessions)), sessions.lengths),
        "item_id": np.ascontiguousarray(sessions.clicks),
    }
    if times is not None:
        whole = (times == np.floor(times)).all() and (np.abs(times) < 2**53).all()
        columns["timestamp"] = times.astype(np.int64) if whole else times
    pq.write_table(pa.table(columns), path, compression="zstd")
