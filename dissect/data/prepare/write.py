"""A prepared data set on disk: the files of its layout, and a folder that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from dissect.data.layouts import NAMES
from dissect.data.prepare.archive import ensure_space
from dissect.data.prepare.times import SECOND
from dissect.errors import DissectError

PREPARATION = "preparation.json"
#: That of SR-GNN's own files, so that ours have their bytes.
PROTOCOL = 3


@contextmanager
def new_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """Yield a folder beside `out` to work in; what lies in its ``result`` becomes `out`, unless an error is raised.

    Folders above `out` are made where there are none, and are gone again after an error.

    Parameters
    ----------
    out : Path
        Not there yet, or empty; an earlier preparation where `force` is given.

    Raises
    ------
    DissectError
        If `out` holds something else, or can't be written.
    """
    out = out.absolute()
    if out.exists() and not out.is_dir():
        raise DissectError(f"{out} is a file; choose another --out")
    if out.is_dir() and any(out.iterdir()):
        ours = (out / PREPARATION).is_file()
        if not (force and ours):
            advice = "give --force to replace it" if ours else "it is never overwritten"
            what = "an earlier preparation" if ours else "files of another kind"
            raise DissectError(f"{out} holds {what}: {advice}, or choose another --out")
    scratch = out.parent / f".{out.name}.{os.getpid()}.tmp"
    new = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear(out)
        (scratch / "result").mkdir(parents=True)
        yield scratch
        if out.is_dir():
            os.replace(out, scratch / "before")
        os.replace(scratch / "result", out)
    except OSError as error:
        cause = error.strerror or error
        raise DissectError(f"can't write to {out}: {cause}; choose another --out", status=1) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in new:  # the innermost first
            with contextlib.suppress(OSError):  # something is in it: `out`, or another's work
                parent.rmdir()


def _clear(out: Path) -> None:
    """Remove what killed preparations of the same folder have left behind; those that still run are let be."""
    for stale in out.parent.glob(f".{out.name}.*.tmp"):
        number = stale.name.split(".")[-2]
        with contextlib.suppress(ProcessLookupError, ValueError, PermissionError):
            os.kill(int(number), 0)
            continue
        shutil.rmtree(stale, ignore_errors=True)


def write_files(folder: Path, files: Mapping[str, bytes], out: Path) -> dict[str, str]:
    """Write files and return the SHA-256 of each.

    Raises
    ------
    DissectError
        If the disk is too small, before anything is written.
    """
    ensure_space(out, sum(map(len, files.values())), "the prepared data set")
    for name, content in files.items():
        with open(folder / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def text_files(train: pl.DataFrame, test: pl.DataFrame, items: int) -> dict[str, bytes]:
    """Text with a session a line, ids from 0, and their number."""
    return {
        "train.txt": _lines(train, pl.col("number")),
        "test.txt": _lines(test, pl.col("number")),
        "num_items.txt": str(items).encode(),
    }


def srgnn_files(train: pl.DataFrame, test: pl.DataFrame, items: int, prefixes: int) -> dict[str, bytes]:
    """SR-GNN's pickles, ids from 1: sessions, and prefixes with their targets, longest first.

    Parameters
    ----------
    train, test : DataFrame
        Clicks, sessions standing together.
    items : int
        The largest id. Written down only where training does not show it, so that the rest are SR-GNN's own files.
    prefixes : int
        How many of the training prefixes, from the last, ``train.txt`` holds.
    """
    sessions = _lists(train)
    files = {
        "all_train_seq.txt": pickle.dumps(sessions, protocol=PROTOCOL),
        "train.txt": pickle.dumps(_prefixes(sessions, prefixes), protocol=PROTOCOL),
        "test.txt": pickle.dumps(_prefixes(_lists(test)), protocol=PROTOCOL),
    }
    if max(map(max, sessions)) < items:
        files["num_items.txt"] = str(items).encode()
    return files


def common_files(train: pl.DataFrame, test: pl.DataFrame, names: pl.Series) -> dict[str, bytes]:
    """Times of all clicks (UNIX, seconds), a session a line, and the raw id of each item, an item a line."""
    whole = all((part["time"] % SECOND == 0).all() for part in (train, test))
    time = pl.col("time") // SECOND if whole else (pl.col("time") / SECOND).round(3)
    return {
        "train_timestamps.txt": _lines(train, time),
        "test_timestamps.txt": _lines(test, time),
        NAMES: "".join(" ".join(name.splitlines()) + "\n" for name in names).encode(),
    }


def _lines(clicks: pl.DataFrame, value: pl.Expr) -> bytes:
    text = clicks.group_by("session", maintain_order=True).agg(line=value.cast(pl.String).str.join(","))
    return ("\n".join(text["line"]) + "\n").encode()


def _lists(clicks: pl.DataFrame) -> list[list[int]]:
    return clicks.group_by("session", maintain_order=True).agg(pl.col("number") + 1)["number"].to_list()


def _prefixes(sessions: list[list[int]], last: int | None = None) -> tuple[list[list[int]], list[int]]:
    prefixes = [session[:end] for session in sessions for end in range(len(session) - 1, 0, -1)]
    targets = [target for session in sessions for target in session[:0:-1]]
    first = 0 if last is None else len(targets) - last
    return prefixes[first:], targets[first:]
