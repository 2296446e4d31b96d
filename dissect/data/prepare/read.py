"""A raw file into clicks: streamed, only the needed columns, texts turned into numbers on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from dissect.data.parquet import plausible
from dissect.data.prepare.progress import Bar
from dissect.data.prepare.table import Kind, Table, explain, explain_failure, match, shape_of
from dissect.data.prepare.times import DAY, Times, times_like
from dissect.errors import DissectError

#: Rows read at a time.
BATCH = 1 << 19
_BAD = " is not as it should be"


@dataclass(frozen=True)
class Raw:
    """What was read.

    Parameters
    ----------
    clicks : DataFrame
        In the file's order: ``session`` or ``user`` (uint32, numbered by first appearance, or by value where it is an
        integer), ``item`` (uint32, by first appearance), ``time`` and whatever else the table names (int64, times in
        milliseconds; a further key stays text).
    items : Series of str
        The raw id of each item.
    rows, blank : int
        Rows in the file; blank lines, which don't count among them.
    dropped : dict
        Role -> rows left out because they lack it.
    times : str
        How times were read.
    """

    clicks: pl.DataFrame
    items: pl.Series
    rows: int
    blank: int
    dropped: dict[str, int]
    times: str


def read(path: Path, shown: str, table: Table, quiet: bool = False) -> Raw:
    """Read the clicks of a plain text file or a Parquet file.

    Parameters
    ----------
    path : Path
        The file.
    shown : str
        What it is called in messages.
    table : Table
        What it should look like.

    Raises
    ------
    DissectError
        For the first thing that is not as it should be, naming file, line and cause.
    """
    with open(path, "rb") as file:
        parquet = file.read(4) == b"PAR1"
    source = _Parquet(path, shown, table) if parquet else _Text(path, shown, table)
    pieces: list[pl.DataFrame] = []
    read_rows = blank = 0
    dropped = {role: 0 for role, f in table.fields.items() if f.drop_missing}
    with Bar(f"reading {Path(shown).name}", source.expected, quiet) as bar:
        for piece in source.batches():
            _check(piece, read_rows, source, table)
            read_rows += len(piece)
            bar.advance(len(piece))
            kept = piece.filter(~_blank(table))
            blank += len(piece) - len(kept)
            for role in dropped:
                before = len(kept)
                kept = kept.filter(pl.col(role).is_not_null())
                dropped[role] += before - len(kept)
            pieces.append(kept.select(*table.fields))
    clicks = pl.concat(pieces) if pieces else pl.DataFrame()
    if clicks.is_empty():
        raise DissectError(f"{shown}: no row of data")
    del pieces
    for role in ("session", "user"):
        if role in table.fields:
            clicks, _ = _number(clicks, role)
    clicks, items = _number(clicks, "item")
    return Raw(clicks, items.cast(pl.String), read_rows - blank, blank, dropped, source.times.text)


def _blank(table: Table) -> pl.Expr:
    """Rows without any of the needed fields: blank lines."""
    return pl.all_horizontal(pl.col(role).is_null() for role in table.fields)


def _check(piece: pl.DataFrame, start: int, source: _Text | _Parquet, table: Table) -> None:
    """Raise for the first row with a field that is written wrongly, or missing where it is needed."""
    faults: list[tuple[int, str]] = []
    for role, f in table.fields.items():
        wrong = pl.col(role + _BAD)
        if not f.drop_missing:
            wrong = wrong | (pl.col(role).is_null() & ~_blank(table))
        found = piece.select(pl.arg_where(wrong).min()).item()
        if found is not None:
            faults.append((found, role))
    if faults:
        row, role = min(faults)
        source.fail(start + row, role)


def _number(clicks: pl.DataFrame, role: str) -> tuple[pl.DataFrame, pl.Series]:
    """Replace a key by 0, 1, 2, ...: integers in the order of their values, texts in that of first appearance."""
    column = clicks[role]
    if column.dtype == pl.Int64:
        values, codes = np.unique(column.to_numpy(), return_inverse=True)
        return clicks.with_columns(pl.Series(role, codes.astype(np.uint32))), pl.Series(values)
    # What polars numbers the texts by depends on what it has seen before; the first row of each does not.
    codes = column.to_physical().to_numpy()
    first = np.full(int(codes.max()) + 1, len(codes), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several assignments the last one stays: the first row
    order = np.argsort(first, kind="stable")[: int((first < len(codes)).sum())]
    rank = np.empty(len(first), dtype=np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    return clicks.with_columns(pl.Series(role, rank[codes])), column.gather(first[order])


def _texts(kind: Kind, column: str, times: Times) -> pl.Expr:
    """The values of a text column; null where they are not of the kind."""
    if kind == "key":
        return pl.col(column)
    if kind == "integer":
        return pl.col(column).cast(pl.Int64, strict=False)
    return (Times("", DAY) if kind == "day" else times).parse(column)


def _columns(table: Table, roles: dict[str, str], times: Times) -> list[pl.Expr]:
    """The needed columns under the names of their roles, each with what is wrong in it."""
    columns: list[pl.Expr] = []
    for role, f in table.fields.items():
        parsed, raw = _texts(f.kind, roles[role], times), pl.col(roles[role])
        coded = parsed.cast(pl.Categorical) if f.kind == "key" and role in ("session", "user", "item") else parsed
        columns += [coded.alias(role), (raw.is_not_null() & parsed.is_null()).alias(role + _BAD)]
    return columns


def _wanted(kind: Kind, times: Times) -> str:
    return {"integer": "a whole number", "day": "a day written as YYYY-MM-DD", "time": times.text}.get(kind, "a text")


class _Text:
    """A text file: every field is read as text and converted here, so that a wrong one can be named."""

    def __init__(self, path: Path, shown: str, table: Table) -> None:
        self.path, self.shown, self.table = path, shown, table
        self.shape = shape_of(path, shown, table)
        with open(path, "rb") as file:
            head = file.read(1 << 20)
        #: About how many rows there are, by the length of the first ones.
        self.expected = path.stat().st_size / len(head) * (head.count(b"\n") + 1)
        self.frame = pl.scan_csv(
            path,
            separator=self.shape.delimiter,
            has_header=False,  # its names were read already, and may be others than the table's own
            skip_lines=int(self.shape.skip_first),
            schema={name: pl.String() for name in self.shape.columns},
            quote_char='"' if table.quoted else None,
            # In a dump without a header, text in later columns may hold anything; in others it is a sign of a slip.
            truncate_ragged_lines=not table.header,
            encoding="utf8" if table.header else "utf8-lossy",
            glob=False,
        )
        self.times = Times("no time") if "time" not in table.fields else self._times()

    def _times(self) -> Times:
        if self.table.fields["time"].kind != "time":
            return Times("days and milliseconds")
        column = self.shape.roles["time"]
        try:
            first = self.frame.select(column).head(1000).collect(engine="streaming")[column].drop_nulls()
        except PolarsError as error:
            explain_failure(self.path, self.shown, self.shape, self.table, error)
        if first.is_empty():
            raise DissectError(f"{self.shown}: {column} is empty in the first 1,000 rows")
        found = times_like(first[0])
        if found is None:
            rows = self.frame.select(pl.arg_where(pl.col(column).is_not_null()).first()).head(1).collect()
            explain(self.path, self.shown, self.shape, self.table, rows.item(), "time", "a time, ISO 8601 or UNIX")
        return found

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the needed columns, in the file's order."""
        query = self.frame.select(_columns(self.table, dict(self.shape.roles), self.times))
        try:
            yield from query.collect_batches(chunk_size=BATCH, maintain_order=True, engine="streaming")
        except PolarsError as error:
            explain_failure(self.path, self.shown, self.shape, self.table, error)

    def fail(self, row: int, role: str) -> NoReturn:
        """Raise for a faulty field."""
        wanted = _wanted(self.table.fields[role].kind, self.times)
        explain(self.path, self.shown, self.shape, self.table, row, role, wanted)


class _Parquet:
    """A Parquet file: numbers and dates come as such, and are taken as they are where they fit.

    Read with pyarrow, which answers a damaged file with an exception; polars 2.1 asks for exabytes of memory for some.
    """

    def __init__(self, path: Path, shown: str, table: Table) -> None:
        self.path, self.shown, self.table = path, shown, table
        with self._readable():
            self.file = pq.ParquetFile(path, memory_map=True)
            names, self.expected = self.file.schema_arrow.names, self.file.metadata.num_rows
        plausible(self.expected, path.stat().st_size, shown)
        self.roles, missing = match(tuple(names), table)
        if missing:
            raise DissectError(f"{shown}: no column {missing[0]}; the columns are: {', '.join(names)[:200]}")
        with self._readable():
            empty = self.file.schema_arrow.empty_table().select(list(dict.fromkeys(self.roles.values())))
            self.schema = self._frame(empty).schema
        self.times = Times("times as the file's type says")
        self.casts = [self._accept(role, f.kind) for role, f in table.fields.items()]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what a damaged file raises, which may be nearly anything, into one line."""
        try:
            yield
        except DissectError:
            raise
        except (Exception, PanicException) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DissectError(f"{self.shown}: not a readable Parquet file ({reason})") from error

    @staticmethod
    def _frame(piece: pa.Table | pa.RecordBatch) -> pl.DataFrame:
        frame = pl.from_arrow(piece)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _raw(self, names: Iterable[str]) -> Iterator[pl.DataFrame]:
        """Yield columns as they are in the file."""
        with self._readable():
            for piece in self.file.iter_batches(BATCH, columns=list(dict.fromkeys(names))):
                yield self._frame(piece)

    def _accept(self, role: str, kind: Kind) -> pl.Expr:
        """Bring one column to text, or to the number that it stands for."""
        name = self.roles[role]
        dtype, column = self.schema[name], pl.col(name)
        texts = (pl.String, pl.Categorical, pl.Enum)
        if not (dtype.is_integer() or dtype in texts or kind not in ("key", "integer")):
            raise DissectError(f"{self.shown}: column {name!r} is of type {dtype}, expected text or whole numbers")
        if kind == "day" and dtype.is_temporal():
            return column.cast(pl.Date).cast(pl.String)
        if kind == "time" and dtype.is_temporal():
            self.times = Times("a UNIX time in milliseconds")
            return column.cast(pl.Datetime("ms")).cast(pl.Int64).cast(pl.String)
        column = column.cast(pl.String)
        if kind == "time":
            values = (piece.select(column.drop_nulls().first()).item() for piece in self._raw([name]))
            first = next((value for value in values if value is not None), None)
            found = times_like(first) if first is not None else None
            if found is None:
                begins = f"begins with {first!r}, no time of ISO 8601 or UNIX" if first is not None else "holds no time"
                raise DissectError(f"{self.shown}: column {name!r} {begins}")
            self.times = found
        return column

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the needed columns, in the file's order."""
        columns = _columns(self.table, self.roles, self.times)
        for piece in self._raw(self.roles.values()):
            yield piece.with_columns(self.casts).select(columns)

    def fail(self, row: int, role: str) -> NoReturn:
        """Raise for a faulty field."""
        name, start = self.roles[role], 0
        for piece in self._raw([name]):
            if row < start + len(piece):
                value = piece[name][row - start]
                break
            start += len(piece)
        else:
            raise IndexError(row)
        wanted = _wanted(self.table.fields[role].kind, self.times)
        cause = f"no {role} ({name} is null)" if value is None else f"{str(value)[:40]!r} in {name} is not {wanted}"
        raise DissectError(f"{self.shown}, row {row + 1}: {cause}")
