"""Raw files by name: where they are kept, how they are brought, and the commands that make data sets of them."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable
from pathlib import Path

from dissect.data.cache import cache_dir
from dissect.data.catalogue import RAW, SOURCES, RawSource
from dissect.errors import DissectError

FOLDER = "raw"
OUT = "data"
"""Directory for prepared data sets, in the commands that are printed."""


def raw_root() -> Path:
    """The directory with one folder for each raw file, in the cache."""
    return cache_dir() / FOLDER


def raw_names() -> list[str]:
    """Names to fetch raw files by: their own and those of the preparations that read them."""
    return list(dict.fromkeys(name for source in RAW.values() for name in (source.name, *source.recipes)))


def raw_source(name: str) -> RawSource | None:
    """The raw file called `name`, or read by the preparation of that name; None where there is none."""
    return RAW.get(name) or next((source for source in RAW.values() if name in source.recipes), None)


def place_of(source: RawSource) -> Path | None:
    """Where a raw file lies, or will; None for those that cannot be downloaded."""
    return raw_root() / source.name / source.files[0].name if source.files else None


def fetch_raw(name: str, progress: bool = True, say: Callable[[str], None] | None = None) -> Path:
    """Return the raw file called `name`, downloading it into the cache where it is not there.

    No SHA-256 of these files has been published. That of the first download is kept beside the file, and it and later
    downloads are checked against it.

    Parameters
    ----------
    name : str
        A raw file, or a preparation that reads one.
    progress : bool, default True
        Show progress on stderr.
    say : callable, optional
        Told in a line by what the file was checked.

    Raises
    ------
    DissectError
        If there is none of that name, it cannot be downloaded, or it is another than at the first download.
    """
    source = raw_source(name)
    if source is None:
        near = difflib.get_close_matches(name, raw_names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DissectError(f"unknown raw file {name!r}{hint}; choose one of: {', '.join(raw_names())}")
    path = place_of(source)
    if path is None:
        then = " or ".join(f"'{line}'" for line in _prepare(source, name, source.table))
        raise DissectError(f"the raw file of {name} cannot be downloaded: {source.manual}, then {then}")
    from dissect.data.download import download

    download(source, path.parent, progress, say)
    return path


def next_commands(name: str, path: Path) -> tuple[list[str], list[str]]:
    """The commands that make data sets of the raw file at `path`.

    Returns
    -------
    unpack, prepare : list of str
        What to run before, where the file is one that ``dissect data prepare`` does not read; and a command for each
        preparation, or for the one called `name`.
    """
    source = raw_source(name)
    assert source is not None, name
    if not source.table:
        return [], _prepare(source, name, str(path))
    table = path.parent / source.table
    unpack = f"7z x {shlex.quote(str(path))} {shlex.quote(f'-o{path.parent}')} {source.table}"
    return [] if table.is_file() else [unpack], _prepare(source, name, str(table))


def _prepare(source: RawSource, name: str, path: str) -> list[str]:
    recipes = (name,) if name in source.recipes and name != source.name else source.recipes
    return [
        f"dissect data prepare {recipe} --raw {shlex.quote(path)} --out {OUT}/{_folder(recipe)}" for recipe in recipes
    ]


def _folder(recipe: str) -> str:
    """A folder's name that is not taken for the copy which the catalogue knows by hashes or counts."""
    source = SOURCES.get(recipe)
    return f"{recipe}-prepared" if source is not None and (source.files or source.items) else recipe
