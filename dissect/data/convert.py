"""From one format to another: what a format holds comes through unchanged, what it cannot hold is said."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from dissect.data.formats import heads_of
from dissect.data.inter import click_lines, example_lines
from dissect.data.layouts import (
    EXPECTED,
    ITEMS,
    NAMES,
    TEXT_TIMES,
    Layout,
    Times,
    read_timed,
    recognise,
    sessions_of,
    split_rule,
)
from dissect.data.parquet import write_parquet
from dissect.data.prepare.archive import ensure_space
from dissect.data.sessions import Dataset, Examples, Sessions, expand, whole_sessions
from dissect.data.sources import GENERATED, find, load
from dissect.data.timed import written_times
from dissect.errors import DissectError

#: Format -> what it writes and what it cannot hold.
FORMATS = {
    "text": "train.txt, test.txt: a session a line, items from 0; times in files beside them",
    "srgnn": "all_train_seq.txt, train.txt, test.txt: SR-GNN's pickles, items from 1; times in files beside them; "
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
        If the source cannot be read, the format is not known or cannot hold the source's test examples, `out` holds
        something or cannot be written, or the disk is too small. Nothing is left behind then.
    """
    if to not in FORMATS:
        raise DissectError(f"unknown format {to!r}; choose one of: {', '.join(FORMATS)}")
    out = Path(out)
    dataset, times, names = _read(source, data_dir)
    if dataset.last_only:
        raise DissectError(f"{dataset.name}: only the last click of a session is to be predicted; no format says so")
    whole = whole_sessions(dataset.test)
    if whole is None and to in ("text", "inter", "parquet"):
        raise DissectError(
            f"{dataset.source}: its test examples are not all the prefixes of their sessions, and {to} holds whole "
            "sessions alone; choose srgnn or inter-sequence"
        )
    # Pickles tell where a session ends by the prefixes alone, to which the lines of times must fit.
    kept = times if to != "srgnn" or whole is not None or _told_apart(dataset.test) else None
    # As given it may end in no name of its own: ".", "..".
    target = Path(os.path.abspath(out))
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise DissectError(f"{out} exists already and is not empty; choose another --out DIR")
        ensure_space(out, estimated_bytes(to, dataset, kept), f"{dataset.name} as {to}")
        with _parents_of(partial):
            try:
                partial.mkdir()
                _WRITERS[to](partial, target.name, dataset, whole, kept)
                # SR-GNN's own folders have none.
                if to != "srgnn" or dataset.items != int(dataset.train.clicks.max()) + 1:
                    (partial / ITEMS).write_text(f"{dataset.items}\n")
                named = names is not None and _count_lines(names) == dataset.items
                if names is not None and named:
                    shutil.copyfile(names, partial / NAMES)
                os.replace(partial, target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DissectError(f"can't write {out}: {error.strerror or error}") from None
    lines = _account(dataset, whole, kept, to, out)
    if names is not None:
        fits = "taken along" if named else f"left out: it has not a name for each of the {dataset.items:,} items"
        lines.append(f"{NAMES}, the raw data's names of items: {fits}")
    if kept is not times:
        lines.append("left out: the times; as pickles, some test examples can't be told from those of another session")
    return lines


@contextlib.contextmanager
def _parents_of(folder: Path) -> Iterator[None]:
    """Make the folders above `folder`; those that were not there are gone again after an error."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:  # the innermost first
            with contextlib.suppress(OSError):  # something else has come to lie in it
                parent.rmdir()
        raise


def named_folder(source: str, data_dir: Path | str | None = None) -> Layout | None:
    """Return the files in the folder that `source` is the path of; None where it is the name of a data set.

    A folder in the working directory is meant by its bare name where no `data_dir` is given and a data set lies in it.

    Raises
    ------
    DissectError
        If the folder holds no data set.
    """
    folder = Path(source).expanduser()
    if source in GENERATED or not folder.is_dir() or (folder.name == source and data_dir is not None):
        return None
    layout = recognise(folder)
    # A folder in the working directory that happens to have a data set's name does not hide the data set.
    if layout is None and folder.name != source:
        raise DissectError(f"{folder} holds no data set: expected {EXPECTED}")
    return layout


def _read(source: str, data_dir: Path | str | None) -> tuple[Dataset, Times | None, Path | None]:
    """The data set, its times, and the file of its items' names where there is one."""
    if source in GENERATED:
        return load(source), None, None
    layout = named_folder(source, data_dir)
    name = source if layout is None else layout.train.parent.resolve().name
    layout = layout or find(source, data_dir)
    names = layout.train.with_name(NAMES)
    return *read_timed(layout, name, layout.sha256(), text_times=True), names if names.is_file() else None


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def estimated_bytes(to: str, dataset: Dataset, times: Times | None) -> int:
    """Estimate how many bytes a format takes: all ids as wide as the largest, all times as the widest of a sample.

    Parameters
    ----------
    to : str
        One of `FORMATS`.
    dataset : Dataset
    times : Times or None
        Of its training and its test clicks.
    """
    clicks, sessions = len(dataset.train.clicks) + len(dataset.test.clicks), len(dataset.train) + len(dataset.test)
    prefixes = dataset.train.lengths - 1
    rows = int(prefixes.sum()) + len(dataset.test)
    inside = int((prefixes * (prefixes + 3) // 2).sum()) + int((dataset.test.lengths + 1).sum())  # targets too
    item, session, time = len(str(dataset.items)) + 1, len(str(sessions)) + 1, 0
    if times is not None:
        sample = [stamps[:: len(stamps) // 1000 + 1] for stamps in times]
        time = max(map(len, written_times(np.concatenate(sample)))) + 1
    number = 2 if dataset.items < 256 else 3 if dataset.items < 65536 else 5  # as pickles have it
    formats = {
        "text": clicks * (item + time),
        # Training stands there twice: as sessions, as prefixes. A list has eight bytes of its own.
        "srgnn": (clicks + inside) * number + 8 * (sessions + rows) + clicks * time,
        "inter": clicks * (item + session + time),
        "inter-sequence": inside * (item + time) + rows * session,
        "parquet": clicks * (4 + 4 + (8 if times is not None else 0)),  # packed, so rather less
    }
    return formats[to] + 4096  # headers, footers, the number of items


def _account(dataset: Dataset, whole: Sessions | None, times: Times | None, to: str, out: Path) -> list[str]:
    """Lines that say what was written and what was not."""
    test = len(whole) if whole is not None else len(np.unique(dataset.test.session))
    lines = [
        f"{out}: {len(dataset.train):,} training and {test:,} test sessions of {dataset.name} "
        f"({dataset.items:,} items, {'without' if times is None else 'with'} times) as {to}"
    ]
    if rule := split_rule(dataset.source):
        lines.append(f"test: {rule}")
    first = 0 if to == "text" else 1
    if first != dataset.first_id:
        lines.append(f"items are numbered from {first}, in the source from {dataset.first_id}")
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
    if times is not None:
        test = whole or sessions_of(dataset.test)
        shown = (row for row in _cut(written_times(times[1]), test.offsets) if len(row) > 1)
        _write(folder / TEXT_TIMES["train.txt"], _lines(_cut(written_times(times[0]), dataset.train.offsets)))
        _write(folder / TEXT_TIMES["test.txt"], _lines(shown))
    for file, content in (
        ("all_train_seq.txt", sessions),
        ("train.txt", _pairs(expand(dataset.train))),
        ("test.txt", _pairs(dataset.test)),
    ):
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))  # the newest that every Python reads


def _told_apart(examples: Examples) -> bool:
    """Whether a reader of the prefixes finds the same sessions behind them."""
    prefixes, targets = _pairs(examples)
    heads = heads_of([[*prefix, target] for prefix, target in zip(prefixes, targets, strict=True)])
    return bool(np.array_equal(heads, np.diff(examples.session, prepend=-1) != 0))


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
