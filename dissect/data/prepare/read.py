"""A raw file into clicks: streamed, only the needed columns, texts turned into numbers on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from dissect.data.prepare.table import NO_ROW, Kind, Table, explain, explain_failure, listed, match, shape_of
from dissect.data.prepare.times import DAYS_ONLY, FORMS, Times, times_like
from dissect.errors import DissectError

#: Rows read at a time.
BATCH = 1 << 19
_BAD = " is not as it should be"
#: Where there is no column of times.
_DAY_AND_TIMEFRAME = Times("days written as YYYY-MM-DD, and whole milliseconds from midnight UTC")


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
    columns : dict
        Role -> the name of the column it was read from, or its place (``field 2``).
    """

    clicks: pl.DataFrame
    items: pl.Series
    rows: int
    blank: int
    dropped: dict[str, int]
    times: str
    columns: dict[str, str]


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
        raise DissectError(f"{shown}: {NO_ROW}")
    del pieces
    for role in ("session", "user"):
        if role in table.fields:
            clicks, _ = _number(clicks, role)
    clicks, items = _number(clicks, "item")
    return Raw(clicks, items.cast(pl.String), read_rows - blank, blank, dropped, source.times.text, source.used)


def _blank(table: Table) -> pl.Expr:
    """Rows without any of the needed fields: blank lines."""
    return pl.all_horizontal(pl.col(role).is_null() for role in table.fields)


def _check(piece: pl.DataFrame, start: int, source: _Text | _Parquet, table: Table) -> None:
    """Raise for the first row with a field that is written wrongly, or missing where it is needed."""
    faults: list[tuple[int, str]] = []
    for role, f in table.fields.items():
        wrong = pl.lit(False) if f.kind == "key" else pl.col(role + _BAD)
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


def _columns(table: Table, roles: Mapping[str, str]) -> list[pl.Expr]:
    """The needed columns under the names of their roles; those that are numbered later, as categories."""
    columns: list[pl.Expr] = []
    for role, f in table.fields.items():
        column = pl.col(roles[role])
        coded = f.kind == "key" and role in ("session", "user", "item")
        columns.append((column.cast(pl.Categorical) if coded else column).alias(role))
    return columns


def _typed(piece: pl.DataFrame, table: Table, times: Times) -> pl.DataFrame:
    """Turn columns into the numbers that they stand for, each with one that says what is none."""
    columns: list[pl.Series] = []
    for role, f in table.fields.items():
        raw = piece[role]
        if f.kind == "key":
            columns.append(raw)
            continue
        if raw.dtype == pl.Int64 and f.kind != "time":
            parsed = raw
        elif f.kind == "integer":
            parsed = raw.cast(pl.Int64, strict=False)
        else:
            parsed = (DAYS_ONLY if f.kind == "day" else times).parse(raw)
        columns += [parsed.alias(role), (raw.is_not_null() & parsed.is_null()).alias(role + _BAD)]
    return pl.DataFrame(columns)


def _wanted(kind: Kind, times: Times) -> str:
    return {"integer": "a whole number", "day": DAYS_ONLY.text, "time": times.wanted}.get(kind, "a text")


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
        self.used = dict(self.shape.roles)
        if not table.header:
            self.used = {role: f"field {f.position + 1}" for role, f in table.fields.items()}
        self.times = self._times() if "time" in table.fields else _DAY_AND_TIMEFRAME

    def _times(self) -> Times:
        column = self.shape.roles["time"]
        try:
            rows = self.frame.select(column).head(1000).collect(engine="streaming")[column]
        except PolarsError as error:
            explain_failure(self.path, self.shown, self.shape, self.table, error)
        if rows.is_empty():
            raise DissectError(f"{self.shown}: {NO_ROW}")
        first = rows.is_not_null().arg_max()
        if first is None or rows[first] is None:
            raise DissectError(f"{self.shown}: {self.used['time']} (time) is empty in the first 1,000 rows")
        found = times_like(rows[first])
        if found is None:
            explain(self.path, self.shown, self.shape, self.table, first, "time", FORMS)
        return found

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the needed columns, in the file's order."""
        query = self.frame.select(_columns(self.table, self.shape.roles))
        try:
            for piece in query.collect_batches(chunk_size=BATCH, maintain_order=True, engine="streaming"):
                yield _typed(piece, self.table, self.times)
        except PolarsError as error:
            explain_failure(self.path, self.shown, self.shape, self.table, error)

    def fail(self, row: int, role: str) -> NoReturn:
        """Raise for a faulty field."""
        wanted = _wanted(self.table.fields[role].kind, self.times)
        explain(self.path, self.shown, self.shape, self.table, row, role, wanted)


#: What a column of a Parquet file may be, by what is needed of it: in words, and as types of Arrow.
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_DATES = (pa.types.is_date, pa.types.is_timestamp)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
_TYPES: dict[Kind, tuple[str, tuple[Callable[[pa.DataType], bool], ...]]] = {
    "key": ("text or whole numbers", (*_TEXTS, pa.types.is_integer)),
    "integer": ("whole numbers", (*_TEXTS, pa.types.is_integer)),
    "day": ("dates, or text as in 2014-05-13", (*_TEXTS, *_DATES)),
    "time": ("dates, text or numbers", (*_TEXTS, *_DATES, *_NUMBERS)),
}


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
            raise DissectError(f"{shown}: no column {missing[0]}; the columns are: {listed(names)}")
        self.used = self.roles
        for role, f in table.fields.items():
            self._check_type(role, f.kind)
        if not self.expected:
            raise DissectError(f"{shown}: {NO_ROW}")
        with self._readable():
            empty = self.file.schema_arrow.empty_table().select(list(dict.fromkeys(self.roles.values())))
            self.schema = self._frame(empty).schema
        self.times = _DAY_AND_TIMEFRAME
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
                piece.validate(full=True)  # pyarrow takes text that is no UTF-8, and polars panics at it
                yield self._frame(piece)

    def _check_type(self, role: str, kind: Kind) -> None:
        """Refuse a column that holds something else, before any of it is read."""
        name = self.roles[role]
        held = self.file.schema_arrow.field(name).type
        values = held.value_type if pa.types.is_dictionary(held) else held  # a category is what it stands for
        words, allowed = _TYPES[kind]
        if not any(is_type(values) for is_type in allowed):
            shown = ascii(" ".join(str(held).split())[:40])[1:-1]
            raise DissectError(f"{self.shown}: column {name!r} holds {shown}, expected {words}")

    def _accept(self, role: str, kind: Kind) -> pl.Expr:
        """Bring one column to text, or to the number that it stands for."""
        name = self.roles[role]
        dtype, column = self.schema[name], pl.col(name)
        if kind == "day" and dtype.is_temporal():
            return column.cast(pl.Date).cast(pl.String)
        if kind == "time" and dtype.is_temporal():
            self.times = Times("the file's own dates and times", (), 1.0, -math.inf, math.inf)
            return column.cast(pl.Datetime("ms")).cast(pl.Int64)
        if kind != "time":
            return column.cast(pl.String)
        column = column if dtype.is_numeric() else column.cast(pl.String)
        values = (piece.select(column.drop_nulls().first()).item() for piece in self._raw([name]))
        first = next((value for value in values if value is not None), None)
        if first is None:
            raise DissectError(f"{self.shown}: column {name!r} holds no time")
        found = times_like(str(first))
        if found is None:
            raise DissectError(f"{self.shown}: column {name!r} begins with {str(first)[:40]!r}, which is not {FORMS}")
        self.times = found
        return column

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the needed columns, in the file's order."""
        columns = _columns(self.table, self.roles)
        for piece in self._raw(self.roles.values()):
            yield _typed(piece.with_columns(self.casts).select(columns), self.table, self.times)

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
