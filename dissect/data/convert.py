"""From one format to another: what a format holds comes through unchanged, what it cannot hold is said."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

from dissect.data.inter import click_lines, example_lines
from dissect.data.layouts import EXPECTED, ITEMS, TEXT_TIMES, Times, read_timed, recognise
from dissect.data.parquet import write_parquet
from dissect.data.sessions import Dataset, Examples, Sessions, expand, whole_sessions
from dissect.data.sources import GENERATED, find, load
from dissect.data.timed import written_times
from dissect.errors import DissectError

#: Format -> what it writes and what it cannot hold.
FORMATS = {
    "text": "train.txt, test.txt: a session a line, items from 0; times in files beside them",
    "srgnn": "all_train_seq.txt, train.txt, test.txt: SR-GNN's pickles, items from 1; no times, "
    "no test session of one click",
    "inter": "NAME.train.inter, NAME.test.inter: RecBole's rows of clicks, items from 1",
    "inter-sequence": "the same names: RecBole's rows of examples, items from 1; no session of one click",
    "parquet": "train.parquet, test.parquet: rows of clicks, items from 1",
}


def convert(source: str, to: str, out: Path | str, data_dir: Path | str | None = None) -> list[str]:
    """Write a data set in another format into the new folder `out`, all of it or nothing.

    Parameters
    ----------
    source : str
        The name of a data set, or the path of a folder that holds one.
    to : str
        One of `FORMATS`.
    out : path
        A folder that is not there yet, or is empty.
    data_dir : path, optional
        Directory where a data set of that name lies.

    Returns
    -------
    list of str
        Lines for the user: what was written, and what the format could not hold.

    Raises
    ------
    DissectError
        If the source cannot be read, the format is not known or cannot hold the source's test examples, or `out`
        holds something or cannot be written.
    """
    if to not in FORMATS:
        raise DissectError(f"unknown format {to!r}; choose one of: {', '.join(FORMATS)}")
    out = Path(out)
    dataset, times = _read(source, data_dir)
    if dataset.last_only:
        raise DissectError(f"{dataset.name}: only the last click of a session is to be predicted; no format says so")
    whole = whole_sessions(dataset.test)
    if whole is None and to in ("text", "inter", "parquet"):
        raise DissectError(
            f"{dataset.source}: its test examples are not all the prefixes of their sessions, and {to} holds whole "
            "sessions alone; choose srgnn or inter-sequence"
        )
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise DissectError(f"{out} exists already and is not empty; choose another --out DIR")
        partial.mkdir(parents=True)
        _WRITERS[to](partial, out.name, dataset, whole, times)
        if to != "srgnn" or dataset.items != int(dataset.train.clicks.max()) + 1:  # SR-GNN's own folders have none
            (partial / ITEMS).write_text(f"{dataset.items}\n")
        os.replace(partial, out)
    except OSError as error:
        raise DissectError(f"can't write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _account(dataset, whole, times, to, out)


def _read(source: str, data_dir: Path | str | None) -> tuple[Dataset, Times | None]:
    folder = Path(source).expanduser()
    if source in GENERATED:
        return load(source), None
    if folder.is_dir() and (folder.name != source or data_dir is None):
        layout = recognise(folder)
        # A folder in the working directory that happens to have a data set's name does not hide the data set.
        if layout is None and folder.name != source:
            raise DissectError(f"{folder} holds no data set: expected {EXPECTED}")
        if layout is not None:
            return read_timed(layout, folder.resolve().name, layout.sha256(), text_times=True)
    layout = find(source, data_dir)
    return read_timed(layout, source, layout.sha256(), text_times=True)


def _account(dataset: Dataset, whole: Sessions | None, times: Times | None, to: str, out: Path) -> list[str]:
    """Lines that say what was written and what was not."""
    test = len(whole) if whole is not None else len(np.unique(dataset.test.session))
    timed = times is not None and to != "srgnn"
    lines = [
        f"{out}: {len(dataset.train):,} training and {test:,} test sessions of {dataset.name} "
        f"({dataset.items:,} items, {'with' if timed else 'without'} times) as {to}"
    ]
    first = 0 if to == "text" else 1
    if first != dataset.first_id:
        lines.append(f"items are numbered from {first}, in the source from {dataset.first_id}")
    if times is not None and not timed:
        lines.append("left out: the times; SR-GNN's pickles hold none")
    alone = {"test": int((whole.lengths == 1).sum()) if whole is not None else 0}
    alone["training"] = int((dataset.train.lengths == 1).sum())
    for part in {"srgnn": ("test",), "inter-sequence": ("training", "test")}.get(to, ()):
        if alone[part]:
            lines.append(f"left out: {alone[part]:,} {part} sessions of one click; {to} holds examples, they give none")
    return lines


def _parts(dataset: Dataset, times: Times | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    return times if times is not None else (None, None)


def _lines(rows: Iterable[list[str]]) -> Iterable[str]:
    return (",".join(row) + "\n" for row in rows)


def _cut(values: list[str], offsets: np.ndarray) -> Iterable[list[str]]:
    bounds = offsets.tolist()
    return (values[start:end] for start, end in pairwise(bounds))


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(lines)


def _text(folder: Path, name: str, dataset: Dataset, whole: Sessions | None, times: Times | None) -> None:
    assert whole is not None
    for part, sessions, stamps in zip(("train", "test"), (dataset.train, whole), _parts(dataset, times), strict=True):
        _write(folder / f"{part}.txt", _lines(_cut(list(map(str, sessions.clicks.tolist())), sessions.offsets)))
        if stamps is not None:
            _write(folder / TEXT_TIMES[f"{part}.txt"], _lines(_cut(written_times(stamps), sessions.offsets)))


def _srgnn(folder: Path, name: str, dataset: Dataset, whole: Sessions | None, times: Times | None) -> None:
    clicks, bounds = (dataset.train.clicks + 1).tolist(), dataset.train.offsets.tolist()
    sessions = [clicks[start:end] for start, end in pairwise(bounds)]
    for file, content in (
        ("all_train_seq.txt", sessions),
        ("train.txt", _pairs(expand(dataset.train))),
        ("test.txt", _pairs(dataset.test)),
    ):
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))  # the newest that every Python reads


def _pairs(examples: Examples) -> tuple[list[list[int]], list[int]]:
    clicks = (examples.clicks + 1).tolist()
    windows = zip(examples.start.tolist(), examples.end.tolist(), strict=True)
    return [clicks[start:end] for start, end in windows], (examples.targets + 1).tolist()


def _inter(folder: Path, name: str, dataset: Dataset, whole: Sessions | None, times: Times | None) -> None:
    assert whole is not None
    first = 1
    for part, sessions, stamps in zip(("train", "test"), (dataset.train, whole), _parts(dataset, times), strict=True):
        counted = Sessions(sessions.clicks + 1, sessions.offsets)
        _write(folder / f"{name}.{part}.inter", click_lines(counted, stamps, first))
        first += len(sessions)


def _inter_sequence(folder: Path, name: str, dataset: Dataset, whole: Sessions | None, times: Times | None) -> None:
    first = 1
    parts = zip(("train", "test"), (expand(dataset.train), dataset.test), _parts(dataset, times), strict=True)
    for part, examples, stamps in parts:
        counted = Examples(examples.clicks + 1, examples.start, examples.end, examples.session)
        _write(folder / f"{name}.{part}.inter", example_lines(counted, stamps, first))
        first += len(dataset.train)


def _parquet(folder: Path, name: str, dataset: Dataset, whole: Sessions | None, times: Times | None) -> None:
    assert whole is not None
    first = 1
    for part, sessions, stamps in zip(("train", "test"), (dataset.train, whole), _parts(dataset, times), strict=True):
        write_parquet(folder / f"{part}.parquet", Sessions(sessions.clicks + 1, sessions.offsets), stamps, first)
        first += len(sessions)


_Writer = Callable[[Path, str, Dataset, "Sessions | None", "Times | None"], None]
_WRITERS: dict[str, _Writer] = {
    "text": _text,
    "srgnn": _srgnn,
    "inter": _inter,
    "inter-sequence": _inter_sequence,
    "parquet": _parquet,
}
