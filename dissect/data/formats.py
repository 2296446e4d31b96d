"""Readers of SR-GNN's pickles and of text with one session a line; `inter` and `parquet` read the other formats.

Ids come back as they stand in the file (pickles count from 1, text from 0); the caller subtracts.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from dissect.data.sessions import Examples, Sessions
from dissect.errors import DissectError

LARGEST_ID = 2**31 - 2  # one below the largest int32, so that "largest + 1 items" fits as well

IDS_PER_BYTE = 20  # more than this in a pickle, which writes an id in two bytes, is made to fill the memory


class _PlainData:
    """Lists, tuples and numbers are built; whatever would import or call something is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        wanted = ascii(f"{module[:40]}.{name[:40]}")[1:-1]
        raise _Refused(f"it asks for {wanted}; only lists, tuples and integers are read")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("it refers to objects outside the file; only lists, tuples and integers are read")


class _Unpickler(_PlainData, pickle.Unpickler):
    """The fast one. It keeps its memo in an array as long as the largest index that the file names."""


class _CarefulUnpickler(_PlainData, pickle._Unpickler):
    """Python's own, four times slower. Its memo is a dict, so no index takes more memory than another."""

    def _bytes(self) -> NoReturn:
        raise _Refused("it holds bytes; only lists, tuples and integers are read")

    # A bytearray is made as long as the file says before a byte of it is read.
    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _bytes}


class _Refused(pickle.UnpicklingError):
    """The pickle wants more than plain data."""


def read_bytes(path: Path) -> bytes:
    """Return a file's content; a missing, unreadable or empty file is a `DissectError`."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DissectError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content.strip():
        raise DissectError(f"{path}: the file is empty")
    return content


def read_text(path: Path) -> bytes:
    """Return a text file's content without a byte order mark and the last line's end; lines end in a bare newline."""
    return read_bytes(path).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").removesuffix(b"\n")


def is_pickle(path: Path) -> bool:
    """Tell a pickle from text by its first byte, whatever the file is called.

    A pickled list or tuple opens with the protocol mark, a mark or an empty list; text with a digit.
    """
    return read_bytes(path)[:1] in (b"\x80", b"(", b"]", b")")


def _is_harmless(content: bytes) -> bool:
    """Whether a pickle consists of integers, lists and tuples, with no memo index far beyond its own size.

    Nine bytes can name an index of four billion, for which `_Unpickler` would allocate gigabytes.
    """
    size = len(content)
    # LONG_BINPUT, its index in four bytes, lowest first: less than the size rounded up to 2^16 (2^24 if large).
    index = b"..[\\x00-\\x%02x]\\x00" % (size >> 16) if size < 1 << 24 else b"...[\\x00-\\x%02x]" % min(size >> 24, 255)
    # The other opcodes in use have no argument or one of 1, 2, 4 or 8 bytes. Bounded repetition keeps it iterative.
    opcodes = re.compile(rb"(?s)(?:[\])(ltea0\x85-\x87\x94]|[Kqh\x80].|M..|[Jj]....|\x95.{8}|r%s){1,4096}" % index)
    end = 0
    while (match := opcodes.match(content, end)) is not None:
        end = match.end()
    # At the end of the pickle, or where it is cut off.
    return content[end : end + 1] in b".Kqh\x80MJj\x95"


def _unpickle(path: Path) -> Any:
    content = read_bytes(path)
    unpickler = _Unpickler if _is_harmless(content) else _CarefulUnpickler
    try:
        return unpickler(io.BytesIO(content)).load()
    except _Refused as error:
        raise DissectError(f"{path}: refused, {error}") from None
    except Exception as error:  # a damaged pickle may raise nearly anything, MemoryError included
        reason = "truncated" if isinstance(error, EOFError) or "truncated" in str(error) else "damaged"
        raise DissectError(f"{path}: not a readable pickle ({reason}, {len(content)} bytes)") from None


def _integers(path: Path, values: Iterable[int], kinds: set[type], count: int) -> np.ndarray:
    """Check the types, then convert; `type` tells True from 1, which `isinstance` would not."""
    if kinds - {int}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds - {int}))
        raise DissectError(f"{path}: item ids must be integers, found {names}")
    try:
        numbers = np.fromiter(values, dtype=np.int64, count=count)
    except OverflowError:
        raise DissectError(f"{path}: an item id is outside 1 to {LARGEST_ID}") from None
    if count and (numbers.min() < 1 or numbers.max() > LARGEST_ID):
        wrong = int(numbers[(numbers < 1) | (numbers > LARGEST_ID)][0])
        raise DissectError(f"{path}: item id {wrong} is outside 1 to {LARGEST_ID}")
    return numbers.astype(np.int32)


def _rows(path: Path, rows: Any, what: str) -> list[Sequence[int]]:
    if not isinstance(rows, list | tuple) or not rows:
        raise DissectError(f"{path}: expected a list of {what}, found {_kind(rows)}")
    for number, row in enumerate(rows):
        if not isinstance(row, list | tuple) or not row:
            raise DissectError(f"{path}: {what} number {number} should be a list of ids, is {_kind(row)}")
    # A list that is referred to again and again takes two bytes each time, and as much memory as it has ids.
    total, size = sum(map(len, rows)), path.stat().st_size
    if total > IDS_PER_BYTE * size + 1000:
        raise DissectError(f"{path}: refused, it claims {total:,} ids in {size:,} bytes")
    return list(rows)


def _kind(value: Any) -> str:
    empty = isinstance(value, list | tuple | dict | str) and not value
    return f"{'an empty' if empty else 'a'} {type(value).__name__}"


def _flatten(path: Path, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Flat ids and offsets of rows of ids."""
    offsets = offsets_of(rows)
    kinds = set(map(type, chain.from_iterable(rows)))
    return _integers(path, chain.from_iterable(rows), kinds, int(offsets[-1])), offsets


def read_pickle_sessions(path: Path) -> Sessions:
    """Read SR-GNN's ``all_train_seq.txt``: a pickled list of sessions, ids from 1.

    Raises
    ------
    DissectError
        If the file is missing, empty, truncated, holds anything but lists of integers, or an id is
        less than 1. Nothing in the file is ever executed.
    """
    return Sessions(*_flatten(path, _rows(path, _unpickle(path), "sessions")))


def read_pickle_examples(path: Path) -> Examples:
    """Read SR-GNN's ``test.txt``: pickled ``(sequences, targets)``, ids from 1.

    The sessions behind the prefixes are rebuilt: rows of one session stand together, longest first,
    so a row continues the session of the row before it exactly if it and its target make up that
    row. A row that continues nothing is a session of its own; none is dropped.

    Raises
    ------
    DissectError
        As `read_pickle_sessions`; also if sequences and targets differ in number.
    """
    loaded = _unpickle(path)
    if not isinstance(loaded, list | tuple) or len(loaded) != 2:
        raise DissectError(f"{path}: expected a pair (sequences, targets), found {_kind(loaded)}")
    rows, targets = _rows(path, loaded[0], "sequences"), loaded[1]
    if not isinstance(targets, list | tuple) or len(targets) != len(rows):
        found = len(targets) if isinstance(targets, list | tuple) else _kind(targets)
        raise DissectError(f"{path}: {len(rows)} sequences need as many targets, found {found}")
    full = [[*row, target] for row, target in zip(rows, targets, strict=True)]
    _flatten(path, full)  # checks every id; only the heads' clicks are kept below
    return rebuild(full, heads_of(full))


def heads_of(full: Sequence[Sequence[Any]]) -> list[bool]:
    """Which rows (a prefix and its target) begin a session, and do not continue that of the row before."""
    return [True, *(before[:-1] != row for before, row in pairwise(full))]


def rebuild(full: Sequence[Sequence[int]], heads: Sequence[bool]) -> Examples:
    """Examples of rows that each hold a prefix and its target; the sessions are the rows marked in `heads`."""
    kept = [row for row, head in zip(full, heads, strict=True) if head]
    offsets = offsets_of(kept)
    session = np.cumsum(heads) - 1
    start = offsets[session]
    clicks = np.fromiter(chain.from_iterable(kept), np.int32, int(offsets[-1]))
    return Examples(clicks, start, start + np.fromiter(map(len, full), np.int64, len(full)) - 1, session)


def offsets_of(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """Where each row starts in the flat array of all, with the total at the end."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
    return offsets


_SPLIT = re.compile(rb"[ \t]*,[ \t]*|[ \t]+")
_GAP = re.compile(rb"(?:^|,)[ \t]*(?:,|$)", re.MULTILINE)  # a blank line or an empty field
_TO_SPACES = bytes.maketrans(b",\t", b"  ")


def read_text_sessions(path: Path) -> Sessions:
    """Read text with one session a line: ids from 0, between commas, spaces or tabs.

    Session ``s`` of the result is line ``s + 1`` of the file.

    Raises
    ------
    DissectError
        If the file is missing or empty, or a line is blank, has an empty or non-numeric field or a
        negative id; the message names the file, the line and the cause.
    """
    text = read_text(path)
    # A clean file is read in bulk; the slow search for the faulty line is for files that are not.
    if text.translate(None, b"0123456789, \t\n") or _GAP.search(text):
        _locate(path, text)
    lines = [line.split() for line in text.translate(_TO_SPACES).split(b"\n")]
    offsets = offsets_of(lines)
    try:
        ids = np.fromiter(map(int, chain.from_iterable(lines)), np.int64, int(offsets[-1]))
    except (OverflowError, ValueError):  # more digits than fit
        _locate(path, text)
    if ids.max() > LARGEST_ID:
        _locate(path, text)
    return Sessions(ids.astype(np.int32), offsets)


def _locate(path: Path, text: bytes) -> NoReturn:
    """Raise the error for the first line that is not a list of ids."""
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            raise DissectError(f"{path}, line {number}: the line is blank")
        for field in _SPLIT.split(line.strip(b" \t")):
            if fault := id_fault(field):
                raise DissectError(f"{path}, line {number}: {fault}")
    raise DissectError(f"{path}: not a text file with one session a line")


def id_fault(field: bytes) -> str:
    """What is wrong with a field that should be an item id; nothing if it is one."""
    shown = ascii(field[:40].decode("utf-8", "replace"))
    if not field:
        return "a field is empty"
    if re.fullmatch(rb"-[0-9]+", field):
        return f"the item id {shown} is negative"
    if not re.fullmatch(rb"[0-9]+", field):
        return f"{shown} is not an item id (a whole number)"
    if len(field.lstrip(b"0")) > 10 or int(field.lstrip(b"0") or b"0") > LARGEST_ID:
        return f"the item id {shown} is above {LARGEST_ID}"
    return ""
