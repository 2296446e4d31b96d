"""Data sets by name: where they are looked for, how they are loaded, which there are."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dissect.data import cache as parsed
from dissect.data.cache import cache_dir
from dissect.data.catalogue import DEMO, RAW, SOURCES, RemoteFile, Source
from dissect.data.layouts import EXPECTED, Layout, read, recognise
from dissect.data.raw import fetch_raw, place_of, raw_names, raw_root, raw_source
from dissect.data.sessions import Dataset
from dissect.data.summary import stats
from dissect.data.synthetic import demo
from dissect.data.worlds import ITEMS, WORLDS, make
from dissect.errors import DissectError

__all__ = ["SOURCES", "RemoteFile", "Row", "Source", "available", "fetch", "load", "stats"]

DEMO_TEXT = "synthetic sessions, made on the spot"
WORLD_TEXT = "a world with a known answer, made on the spot"
GENERATED = (DEMO, *WORLDS)


class Row(NamedTuple):
    """A line of the list; ``where`` is a folder, ``generated``, ``download`` or ``place by hand``."""

    name: str
    description: str
    where: str
    items: int | None
    sessions: int | None


def load(
    name: str,
    data_dir: str | Path | None = None,
    cache: bool = True,
    download: bool = True,
    progress: bool = True,
) -> Dataset:
    """Load a data set by name.

    Looked for in ``data_dir``, then in the directory that the environment variable ``DISSECT_DATA``
    names, then in the user's cache directory; what is known by an address is then downloaded there.
    A folder that is not known by name is looked for in ``data_dir`` only, if that is given.

    Parameters
    ----------
    name : str
        A known name, or that of a folder with session files.
    data_dir : path, optional
        Directory with one folder for each data set.
    cache : bool, default True
        Keep the parsed arrays in the cache directory and use those kept before.
    download : bool, default True
        Download what is not found.
    progress : bool, default True
        Show a progress bar on stderr while downloading.

    Raises
    ------
    DissectError
        If the name is not known, the data is not found or cannot be downloaded, or a file is faulty.
    """
    if name == DEMO:
        return demo()
    if name in WORLDS:
        taken = next((root / name for root in _roots(data_dir) if _recognise(root, name)), None)
        if taken is not None:
            raise DissectError(
                f"{name} is the name of a world that is made on the spot; give the folder {taken} another"
            )
        return make(name)
    layout = _locate(name, data_dir, download, progress)
    sha256 = layout.sha256()
    dataset = parsed.recall(name, sha256, str(layout.train.parent)) if cache else None
    if dataset is None:
        dataset = read(layout, name, sha256)
        if cache:
            parsed.remember(dataset)
    return dataset


def fetch(
    name: str,
    data_dir: str | Path | None = None,
    progress: bool = True,
    raw: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Return the folder that holds a data set's files, downloading them where they are not found; or a raw file.

    Files of known SHA-256 are checked by it, those that were there before too. A name that is both is the data set,
    unless `raw` is set.

    Parameters
    ----------
    name : str
        A data set, a raw file, or a preparation that reads one.
    data_dir : path, optional
        As in `load`; raw files are kept in the cache alone.
    progress : bool, default True
        Show progress on stderr.
    raw : bool, default False
        The raw file that `name` is prepared from.
    say : callable, optional
        Told in a line by what a raw file was checked.

    Raises
    ------
    DissectError
        As `load`; also for what is made on the spot and has no files, and for a file with another content than
        expected.
    """
    if name in GENERATED:
        raise DissectError(f"{name} is made on the spot and has no files to fetch")
    if raw or _only_raw(name, data_dir):
        return fetch_raw(name, progress, say)
    if name == "mnist":  # no sessions: for `dissect validate lenet`
        from dissect.data.mnist import locate

        return locate(data_dir, progress=progress)
    folder = _locate(name, data_dir, download=True, progress=progress).train.parent
    if name in SOURCES:
        from dissect.data.download import check

        check(SOURCES[name], folder)
    return folder


def find(name: str, data_dir: str | Path | None = None, progress: bool = True) -> Layout:
    """Return the files of a data set, looked for and downloaded as `load` does."""
    return _locate(name, data_dir, download=True, progress=progress)


def available(data_dir: str | Path | None = None) -> list[Row]:
    """List the data sets known by name, the raw files, then the other folders found that hold a data set.

    The name of a raw file is what ``dissect data fetch`` takes: ``gowalla --raw``.
    """
    rows = [Row(DEMO, DEMO_TEXT, "generated", 2_000, None)]
    rows += [Row(name, WORLD_TEXT, "generated", ITEMS, None) for name in WORLDS]
    roots = _roots(data_dir)
    for source in SOURCES.values():
        found = next((layout for root in roots if (layout := _recognise(root, source.name))), None)
        where = str(found.train.parent) if found else "download" if source.files else "place by hand"
        rows.append(Row(source.name, source.description, where, source.items, source.sessions))
    for source in RAW.values():
        path = place_of(source)
        where = "place by hand" if path is None else str(path) if path.is_file() else "download"
        rows.append(Row(f"{source.name} --raw", source.description, where, None, None))
    for name, layout in _others(_own_roots(data_dir)).items():
        rows.append(Row(name, "a folder of your own", str(layout.train.parent), _declared(layout), None))
    return rows


def _roots(data_dir: str | Path | None) -> list[Path]:
    """Directories to look in, in order."""
    roots = []
    if data_dir is not None:
        roots.append(Path(data_dir).expanduser())
        if not roots[0].is_dir():
            raise DissectError(f"the data directory {roots[0]} does not exist")
    if os.environ.get("DISSECT_DATA"):
        roots.append(Path(os.environ["DISSECT_DATA"]).expanduser())
        if not roots[-1].is_dir():
            raise DissectError(f"the data directory {roots[-1]}, named by DISSECT_DATA, does not exist")
    return list(dict.fromkeys([*roots, cache_dir()]))


def _own_roots(data_dir: str | Path | None) -> list[Path]:
    """Directories where a folder that is not known by name may lie: only the given one, if one is given."""
    return _roots(data_dir)[:1] if data_dir is not None else _roots(None)


def _recognise(root: Path, name: str) -> Layout | None:
    folder = root / name
    inner = SOURCES[name].folder if name in SOURCES else ""
    return (recognise(folder / inner) if inner else None) or recognise(folder)


def _others(roots: list[Path]) -> dict[str, Layout]:
    """Folders with a data set whose name is not in the registry."""
    found: dict[str, Layout] = {}
    for root in roots:
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            taken = folder.name in SOURCES or folder.name in found or folder.name in GENERATED
            layout = recognise(folder) if folder.is_dir() and not taken else None
            if layout is not None and not folder.name.startswith("."):
                found[folder.name] = layout
    return found


def _declared(layout: Layout) -> int | None:
    text = layout.count.read_text(errors="replace").strip() if layout.count else ""
    return int(text) if text.isascii() and text.isdigit() else None


def _locate(name: str, data_dir: str | Path | None, download: bool, progress: bool) -> Layout:
    """Find a data set's files, or download them."""
    source = SOURCES.get(name)
    roots = _roots(data_dir) if source else _own_roots(data_dir)
    plain = name not in ("", ".", "..") and Path(name).name == name
    for root in roots if plain else ():
        layout = _recognise(root, name)
        if layout is not None:
            return layout
        # Without its files the folder is a slip to report; in the cache it is a download to finish.
        if (root / name).is_dir() and root != cache_dir():
            raise DissectError(f"{root / name} holds no data set: expected {EXPECTED}")
    if source is None:
        raise _unknown(name, roots)
    looked = ", ".join(str(root) for root in roots)
    target = cache_dir() / name
    if not source.files:
        wanted = "/".join(filter(None, (str(roots[0] / name), source.folder)))
        how = source.manual.format(root=roots[0], raw=raw_root())
        raise DissectError(
            f"data set {name} is not in {looked} and cannot be downloaded; place its files ({EXPECTED}) by hand in "
            f"{wanted}{': ' if how else ''}{how}"
        )
    if not download:
        names = " and ".join(remote.name for remote in source.files)
        raise DissectError(
            f"data set {name} is not in {looked};"
            f" fetch it with 'dissect data fetch {name}' or place {names} in {target}"
        )
    from dissect.data.download import download as bring

    bring(source, target, progress)
    layout = recognise(target)
    if layout is None:
        raise DissectError(f"{target} holds no data set: expected {EXPECTED}")
    return layout


def _only_raw(name: str, data_dir: str | Path | None) -> bool:
    """Whether `name` is that of a raw file or its preparation, and of no data set that is known or found."""
    if name in SOURCES or raw_source(name) is None:
        return False
    return not any(_recognise(root, name) for root in _own_roots(data_dir))


def _unknown(name: str, roots: list[Path]) -> DissectError:
    looked = ", ".join(str(root) for root in roots)
    if raw_source(name) is not None:
        return DissectError(
            f"data set {name} is not in {looked}; it is prepared from a raw file: 'dissect data fetch {name}' brings "
            "that and prints the command to run then"
        )
    if name.strip("./") and (folder := Path(name)).is_dir():
        return DissectError(
            f"--dataset takes a name, not a folder: --dataset {folder.resolve().name} --data-dir "
            f"{folder.parent if folder.name else folder.resolve().parent}"
        )
    choices, raw = [*GENERATED, *SOURCES, *_others(roots)], raw_names()
    near = difflib.get_close_matches(name, [*choices, *raw], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return DissectError(
        f"unknown data set {name!r}{hint}; looked in {looked}; choose one of: {', '.join(choices)}; or fetch a raw "
        f"file: {', '.join(raw)}"
    )
