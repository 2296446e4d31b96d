"""What a raw file should look like, and what is wrong with one that does not."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, NoReturn

from dissect.errors import DissectError

DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
#: ``key`` is any text; ``time`` is told by the first value: ISO 8601, or a UNIX time by its size.
Kind = Literal["key", "integer", "day", "time"]
CARRIAGE_RETURN = "a carriage return within the line; lines should end in LF or CR LF"
NO_ROW = "there is no row of data in it"
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Field:
    """A column that is needed.

    Parameters
    ----------
    names : tuple of str
        The names it goes by in a header.
    kind : Kind
        What its values are. A session that is an integer is taken in the order of the numbers, any other in the
        order of first appearance.
    position : int, optional
        Where it stands in a file without a header, from 0.
    drop_missing : bool
        Leave rows without it out, and count them; else they are an error.
    """

    names: tuple[str, ...]
    kind: Kind = "key"
    position: int = -1
    drop_missing: bool = False


@dataclass(frozen=True)
class Table:
    """How a raw file is laid out.

    Parameters
    ----------
    fields : mapping
        Role (``session`` or ``user``, ``item``, ``time``, others that a step asks for) -> column.
    delimiter : str or None
        None: the one of `DELIMITERS` under which the header has all columns.
    header : bool
        Whether the first line names the columns. In a file without, a first line that does is skipped.
    quoted : bool
        Whether quotation marks enclose fields. Where they are part of the text, a single one would swallow lines.
    member : str
        Pattern of the file's name in an archive.
    """

    fields: Mapping[str, Field] = field(default_factory=dict)
    delimiter: str | None = ","
    header: bool = True
    quoted: bool = True
    member: str = "*"


@dataclass(frozen=True)
class Shape:
    """What the first line of a text file says: its delimiter, columns, and the column of each role."""

    delimiter: str
    columns: tuple[str, ...]
    roles: Mapping[str, str]
    skip_first: bool


def shape_of(path: Path, shown: str, table: Table) -> Shape:
    """Hold the first line against the table.

    Raises
    ------
    DissectError
        If the file is empty, no text, separated otherwise, or lacks a column.
    """
    first = _first_line(path, shown)
    if not table.header:
        return _positional(first, shown, table)
    missing: list[str] = []
    for delimiter in (table.delimiter,) if table.delimiter else DELIMITERS:
        columns = _split(first, delimiter, table.quoted)
        roles, lacking = match(columns, table)
        if not lacking:
            if len(set(columns)) < len(columns):
                twice = next(name for name in columns if columns.count(name) > 1)
                raise DissectError(f"{shown}, line 1: the column {twice!r} stands there twice")
            return Shape(delimiter, columns, roles, True)
        if not missing or len(lacking) < len(missing):
            missing = lacking
    for other in DELIMITERS:
        if table.delimiter and other != table.delimiter and not match(_split(first, other, table.quoted), table)[1]:
            raise DissectError(
                f"{shown}, line 1: the columns are separated by {NAMES[other]}, expected {NAMES[table.delimiter]}"
            )
    tried = table.delimiter or DELIMITERS
    best = max(tried, key=first.count)
    columns = _split(first, best, table.quoted)
    if len(columns) == 1:
        ways = ", ".join(NAMES[delimiter] for delimiter in tried)
        seen = f"the header is one column, {columns[0][:200]!r} (tried: {ways})"
    else:
        seen = f"the columns, separated by {NAMES[best]}, are: {listed(columns)}"
    raise DissectError(f"{shown}, line 1: no column {missing[0]}; {seen}")


def _positional(first: str, shown: str, table: Table) -> Shape:
    assert table.delimiter is not None, "a file without a header has a known delimiter"
    fields = _split(first, table.delimiter, table.quoted)
    needed = max(f.position for f in table.fields.values()) + 1
    if len(fields) < needed:
        other = next((d for d in DELIMITERS if len(_split(first, d, table.quoted)) >= needed), None)
        hint = f"; it seems to be separated by {NAMES[other]}" if other else ""
        raise DissectError(
            f"{shown}, line 1: {len(fields)} field{'s' * (len(fields) != 1)} where at least {needed} are expected, "
            f"separated by {NAMES[table.delimiter]}{hint}"
        )
    columns = tuple(f"column {number}" for number in range(1, len(fields) + 1))
    named = {name for f in table.fields.values() for name in f.names}
    roles = {role: columns[f.position] for role, f in table.fields.items()}
    return Shape(table.delimiter, columns, roles, bool(named & set(fields)))


def _first_line(path: Path, shown: str) -> str:
    with open(path, "rb") as file:
        line = file.readline(1 << 20)
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DissectError(f"{shown}: neither text nor Parquet, gz, zip or tar.gz")
    if not text.strip():
        raise DissectError(f"{shown}, line 1: the line is blank")
    if "\r" in text:
        raise DissectError(f"{shown}, line 1: {CARRIAGE_RETURN}")
    return text


def _split(line: str, delimiter: str, quoted: bool) -> tuple[str, ...]:
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        return tuple(next(csv.reader([line], delimiter=delimiter, quoting=quoting), []))
    except csv.Error:  # a field of more than 131,072 characters: none of ours
        return ()


def listed(names: Iterable[str]) -> str:
    """Names of columns for a message: on one line, whatever stands in them."""
    return " ".join(", ".join(names).split())[:200]


def match(columns: tuple[str, ...], table: Table) -> tuple[dict[str, str], list[str]]:
    """Return the column of each role, and the names of those that are not there."""
    found: dict[str, str] = {}
    missing: list[str] = []
    for role, f in table.fields.items():
        name = next((name for name in f.names if name in columns), None)
        if name is None:
            missing.append(" or ".join(map(repr, f.names)))
        else:
            found[role] = name
    return found, missing


def records(path: Path, shown: str, shape: Shape, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the line at which each record begins and its fields, slowly: to find the one that is faulty.

    Raises
    ------
    DissectError
        For a line that Python's csv module refuses, such as one with a field of more than 16,777,216 characters.
    """
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader, begin = csv.reader(file, delimiter=shape.delimiter, quoting=quoting), 1
        try:
            for number, fields in enumerate(reader):
                if number or not shape.skip_first:
                    yield begin, fields
                begin = reader.line_num + 1
        except csv.Error as error:
            raise DissectError(f"{shown}, line {begin}: {error}") from error


def _odd_quotes(path: Path, shape: Shape) -> int | None:
    """The line of the first record in which a quotation mark is not closed, or stands within a field."""
    marks = 0

    def lines(file: IO[str]) -> Iterator[str]:
        nonlocal marks
        for line in file:
            marks += line.count('"')
            yield line

    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader, begin = csv.reader(lines(file), delimiter=shape.delimiter, strict=True), 1
        try:
            for _ in reader:
                if marks % 2:
                    return begin
                begin, marks = reader.line_num + 1, 0
        except csv.Error:
            return begin if marks else None
    return None


def explain(path: Path, shown: str, shape: Shape, table: Table, row: int, role: str, wanted: str) -> NoReturn:
    """Raise the error for the field `role` of record `row`, with the line on which it stands."""
    line, fields = next(itertools.islice(records(path, shown, shape, table.quoted), row, None), (0, []))
    number = shape.columns.index(shape.roles[role])
    if number >= len(fields):
        raise DissectError(
            f"{shown}, line {line}: {len(fields)} field{'s' * (len(fields) != 1)}, so that {role} (field {number + 1})"
            " is missing; the file may be cut off"
        )
    column = shape.roles[role] if table.header else f"field {number + 1}"
    if not fields[number]:
        raise DissectError(f"{shown}, line {line}: no {role} ({column} is empty)")
    raise DissectError(f"{shown}, line {line}: {fields[number][:40]!r} in {column} is not {wanted}")


def explain_failure(path: Path, shown: str, shape: Shape, table: Table, cause: Exception) -> NoReturn:
    """Raise the error for a file that is no table: the first line that is no UTF-8, too long or with odd quotes."""
    returned = 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if not returned and b"\r" in raw.rstrip(b"\r\n"):
                returned = number
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                raise DissectError(f"{shown}, line {number}: not UTF-8 text (byte {raw[error.start]:#04x})") from cause
    odd = _odd_quotes(path, shape) if table.quoted else None
    first: tuple[int, int] | None = None
    for line, fields in records(path, shown, shape, table.quoted):
        if first is None and any(fields):
            first = line, len(fields)
        if odd is not None and line >= odd:
            raise DissectError(
                f"{shown}, line {odd}: the quotation marks do not pair; one that opens a field is closed at its end, "
                "and one within it is written twice"
            ) from cause
        if len(fields) > len(shape.columns):
            raise DissectError(
                f"{shown}, line {line}: {len(fields)} fields where the first line has {len(shape.columns)}"
            ) from cause
    if first is None:
        raise DissectError(f"{shown}: {NO_ROW}") from cause
    if first[1] < len(shape.columns):  # polars takes the number of columns from the first row, and fills later ones up
        raise DissectError(
            f"{shown}, line {first[0]}: {first[1]} field{'s' * (first[1] != 1)} where the first line has "
            f"{len(shape.columns)}; the file may be cut off"
        ) from cause
    if returned:
        raise DissectError(f"{shown}, line {returned}: {CARRIAGE_RETURN}") from cause
    raise DissectError(f"{shown}: cannot be read ({' '.join(str(cause).split())[:200]})") from cause
