"""Parsed data sets kept as .npy files: read once as text or pickle, mapped into memory afterwards.

The key is the SHA-256 of the source's files, so changed data is never served from an old copy.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np

from dissect.data.sessions import Dataset, Examples, Sessions

VERSION = 1  # raise it when the arrays or their meaning change
META = "meta.json"
ARRAYS = ("train_clicks", "train_offsets", "test_clicks", "test_start", "test_end", "test_session")


def cache_dir() -> Path:
    """Return the user's cache directory; ``DISSECT_CACHE`` puts it elsewhere."""
    chosen = os.environ.get("DISSECT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("dissect"))


def folder_of(name: str, sha256: str) -> Path:
    """Return where the parsed copy of a data set lies, whether or not there is one."""
    return cache_dir() / "parsed" / f"{name}-{sha256[:16]}"


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.tobytes())  # a copy, of a few megabytes


def recall(name: str, sha256: str, source: str) -> Dataset | None:
    """Return the parsed copy, mapped into memory; None where there is none or it is damaged."""
    folder = folder_of(name, sha256)
    try:
        meta = json.loads((folder / META).read_text())
        if meta["version"] != VERSION or meta["sha256"] != sha256:
            return None
        arrays = {}
        for part in ARRAYS:
            # Copy-on-write: the file can never be written through it, yet torch can wrap it without a copy.
            arrays[part] = np.load(folder / f"{part}.npy", mmap_mode="c")
            if _checksum(arrays[part]) != meta["crc32"][part]:
                return None
        train = Sessions(arrays["train_clicks"], arrays["train_offsets"])
        test = Examples(*(arrays[f"test_{part}"] for part in ("clicks", "start", "end", "session")))
        return Dataset(name, train, test, meta["items"], meta["first_id"], sha256, source)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None  # damaged in whatever way: the caller reads the source again


def remember(dataset: Dataset) -> None:
    """Write the parsed copy, all of it or nothing; a cache that cannot be written is left out."""
    folder = folder_of(dataset.name, dataset.sha256)
    arrays = {
        "train_clicks": dataset.train.clicks,
        "train_offsets": dataset.train.offsets,
        "test_clicks": dataset.test.clicks,
        "test_start": dataset.test.start,
        "test_end": dataset.test.end,
        "test_session": dataset.test.session,
    }
    meta = {
        "version": VERSION,
        "sha256": dataset.sha256,
        "items": dataset.items,
        "first_id": dataset.first_id,
        "crc32": {part: _checksum(array) for part, array in arrays.items()},
    }
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        for part, array in arrays.items():
            np.save(fresh / f"{part}.npy", array)
        (fresh / META).write_text(json.dumps(meta))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged copy stood there, or none
        # Where another process was faster the folder exists again: its copy is as good.
        os.replace(fresh, folder)
    except OSError:
        if fresh is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(fresh)
