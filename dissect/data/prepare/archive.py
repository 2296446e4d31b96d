"""The raw file as it was downloaded: its hash, what is packed in it, and whether there is room to unpack it."""

from __future__ import annotations

import errno
import fnmatch
import gzip
import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dissect.data.prepare.progress import Bar
from dissect.errors import DissectError

CHUNK = 1 << 20
#: Endings of the names of tables, to find the one in an archive by.
TABLES = (".csv", ".tsv", ".txt", ".dat", ".parquet")
_SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"


def size_and_sha256(path: Path, quiet: bool = False) -> tuple[int, str]:
    """Return a file's bytes and SHA-256.

    Raises
    ------
    DissectError
        If it can't be read or is empty.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file, Bar(f"hashing {path.name}", path.stat().st_size, quiet) as bar:
            while block := file.read(CHUNK):
                digest.update(block)
                size += len(block)
                bar.advance(len(block))
    except OSError as error:
        raise DissectError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not size:
        raise DissectError(f"{path}: the file is empty")
    return size, digest.hexdigest()


def ensure_space(folder: Path, needed: int, what: str) -> None:
    """Raise where `needed` bytes would not fit on the disk that `folder` is, or will be, on.

    Raises
    ------
    DissectError
        Before anything is written.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DissectError(
            f"{folder}: {what} takes {needed / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free; make room or choose "
            "another --out",
            status=1,
        )


@contextmanager
def unpacked(path: Path, member: str, scratch: Path, quiet: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield a plain file with the content of `path`, and the name to call it by in messages.

    Parameters
    ----------
    path : Path
        A plain file, or gz, zip, tar or tar.gz; told by content, whatever it is called.
    member : str
        Pattern of the wanted file's name where there are several in it.
    scratch : Path
        Folder to unpack into; what was unpacked is removed at the end.

    Raises
    ------
    DissectError
        If the archive is damaged or of another kind, holds no or more than one such file, or the disk is too small.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    target = scratch / "unpacked"
    try:
        with _told(path):
            name = _unpack(path, head, member, target, quiet)
        if name is None:
            yield path, str(path)
        else:
            yield target, str(path) if name == path.name.removesuffix(".gz") else f"{path} ({name})"
    finally:
        target.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what goes wrong into one line; zipfile and tarfile raise nearly anything for a damaged file."""
    try:
        yield
    except DissectError:
        raise
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # a gz file that is none; a place before the beginning that is sought
            raise DissectError(f"{path}: the archive is damaged or cut off ({error})") from error
        raise DissectError(f"{path}: unpacking it failed ({error.strerror})", status=1) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DissectError(f"{path}: the archive is damaged or cut off ({reason})") from error


def _unpack(path: Path, head: bytes, member: str, target: Path, quiet: bool) -> str | None:
    """Unpack the wanted file to `target` and return its name, None for a file that is no archive."""
    if head.startswith(_SEVEN_ZIP):
        raise DissectError(f"{path}: 7z is not read; unpack it (7z x {path.name}) and name the file in it")
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
            name = _choose(path, sizes, member)
            if archive.getinfo(name).flag_bits & 1:
                raise DissectError(f"{path}: {name} in it is encrypted; unpack it with its password and name the file")
            ensure_space(target, sizes[name], f"unpacking {name}")
            with archive.open(name) as source:
                _copy(source, target, name, sizes[name], quiet)
    elif _is_tar(path, head):
        name = _from_tar(path, member, target, quiet)
    elif head.startswith(b"\x1f\x8b"):
        name = path.name.removesuffix(".gz")
        size = _gzip_size(path)
        ensure_space(target, size, f"unpacking {path.name}")
        with gzip.open(path, "rb") as source:
            _copy(source, target, name, size, quiet)
    else:
        return None
    return name


def _is_tar(path: Path, head: bytes) -> bool:
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(path, "rb") as source:
            head = source.read(512)
    return head[257:262] == b"ustar"


def _gzip_size(path: Path) -> int:
    """Bytes in a gz file: it keeps them modulo 2^32, and has at least as many as it is long itself."""
    with open(path, "rb") as file:
        file.seek(-4, 2)
        size = int.from_bytes(file.read(4), "little")
    while size < path.stat().st_size - 1024:
        size += 1 << 32
    return size


def _from_tar(path: Path, member: str, target: Path, quiet: bool) -> str:
    with tarfile.open(path, "r:*") as archive:
        sizes = {info.name: info.size for info in archive if info.isfile()}
        name = _choose(path, sizes, member)
        ensure_space(target, sizes[name], f"unpacking {name}")
        source = archive.extractfile(name)
        assert source is not None, "a plain file, see above"
        _copy(source, target, name, sizes[name], quiet)
    return name


def _choose(path: Path, names: dict[str, int], member: str) -> str:
    """The one file in an archive that is meant."""
    tables = [name for name in names if name.lower().endswith(TABLES) and not Path(name).name.startswith(".")]
    fitting = [name for name in tables if fnmatch.fnmatch(Path(name).name, member)]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(sorted(names)) or "nothing"
    wanted = "one table" if member == "*" else f"one file {member}"
    raise DissectError(f"{path}: expected {wanted} in it, found {found}; unpack it and name the file")


def _copy(source: IO[bytes] | gzip.GzipFile, target: Path, name: str, size: int, quiet: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file, Bar(f"unpacking {name}", size, quiet) as bar:
        while block := source.read(CHUNK):
            file.write(block)
            bar.advance(len(block))
