"""Downloads: gone on with where they broke off, checked, and only then put in place.

What has come so far of a file lies beside its place as ``.NAME.part``, under which nothing reads it. Where no SHA-256
of a file has been published, that of its first download is kept beside it as ``NAME.sha256``, in the form that
``sha256sum --check`` reads.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dissect.data.catalogue import RemoteFile, Source
from dissect.data.prepare.archive import size_and_sha256
from dissect.data.prepare.progress import Bar as Work
from dissect.errors import DissectError

TIMEOUT = 30.0
"""Seconds to wait for a server's answer, and for the next bytes of it."""
CONNECTIONS = 5
"""How often one call goes on with a file whose connections break off; each must bring something."""
CHUNK = 1 << 14
"""Bytes that are written at once; of a connection that breaks off, fewer than these are lost."""
LINE_SECONDS = 5.0
"""Seconds between lines of progress where stderr is no terminal."""

#: What a file begins with, by its name's ending. A login page answers 200 as well, and its hash should not be kept.
_BEGINNINGS = {".gz": b"\x1f\x8b", ".7z": b"7z\xbc\xaf\x27\x1c"}

Say = Callable[[str], None]


class _Bar:
    """A download's progress on a terminal."""

    def __init__(self, text: str, console: Any) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(text, total=None)
        self._progress.start()

    def begin(self, done: int, total: int | None) -> None:
        """Note that a connection stands, what had come before, and how long the whole is."""
        self._progress.reset(self._task, total=total, completed=done)

    def advance(self, amount: int) -> None:
        """Note that `amount` bytes more have come."""
        self._progress.advance(self._task, amount)

    def close(self) -> None:
        """Take it off the screen."""
        self._progress.stop()


class _Lines:
    """A download's progress where there is no terminal: a line every few seconds."""

    def __init__(self, text: str) -> None:
        self.text, self.done, self.total = text, 0, None
        self._came, self._line = 0, time.monotonic()

    def begin(self, done: int, total: int | None) -> None:
        """Note that a connection stands, what had come before, and how long the whole is."""
        self.done, self.total = done, total

    def advance(self, amount: int) -> None:
        """Note that `amount` bytes more have come; perhaps print a line."""
        self.done += amount
        self._came += amount
        now = time.monotonic()
        if now - self._line >= LINE_SECONDS:
            share = f" of {_size(self.total)} ({self.done / self.total:.0%})" if self.total else ""
            rate = self._came / max(now - self._line, 1e-9) / 1e6
            sys.stderr.write(f"{self.text}: {_size(self.done)}{share}, {rate:.1f} MB/s\n")
            self._came, self._line = 0, now

    def close(self) -> None:
        """Nothing: every line stands."""


def _progress(text: str) -> _Bar | _Lines:
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_interactive:
            return _Bar(text, console)
    return _Lines(text)


def _size(amount: int) -> str:
    return f"{amount / 1e6:,.1f} MB" if amount >= 100_000 else f"{amount:,} bytes"


def download(source: Source, folder: Path, progress: bool = True, say: Say | None = None) -> None:
    """Bring the files of ``source`` that ``folder`` lacks; these and those present are checked by SHA-256.

    The source's addresses are tried in turn, its base and then its mirrors. The environment variable
    ``DISSECT_MIRROR`` replaces them: one or several base addresses, with spaces between them. Where no SHA-256 is
    known, that of the first download is kept beside the file, and later ones are checked against it.

    Parameters
    ----------
    source : Source
        What to bring.
    folder : Path
        Where to; made where it is missing.
    progress : bool, default True
        Show it on stderr: a bar on a terminal, elsewhere a line every few seconds.
    say : callable, optional
        Told in a line by what a file without a published SHA-256 was checked.

    Raises
    ------
    DissectError
        If a file cannot be brought, there is no room for it, or its content is not the expected one; the message says
        whether to run the same command again, or which file to place by hand, where, and from which address.
    """
    bases = os.environ.get("DISSECT_MIRROR", "").split() or [source.base, *source.mirrors]
    say = say or (lambda line: None)
    for remote in source.files:
        target = folder / remote.name
        if target.is_file():
            _check(remote, target, source.name, not progress, say)
        else:
            urls = [f"{base.rstrip('/')}/{remote.path}" for base in bases]
            _bring(remote, urls, target, source.name, progress, say)


def check(source: Source, folder: Path) -> None:
    """Check those files of ``source`` that lie in ``folder`` by what is known of their SHA-256.

    Raises
    ------
    DissectError
        For the first file with another content.
    """
    for remote in source.files:
        path = folder / remote.name
        if path.is_file():  # otherwise the data set lies there under other names
            _check(remote, path, source.name, True, lambda line: None)


def record_of(path: Path) -> Path:
    """Where the SHA-256 of a file's first download is kept."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Path) -> str:
    """The SHA-256 of a file's first download; nothing where there was none.

    Raises
    ------
    DissectError
        If the file that should hold it holds something else.
    """
    record = record_of(path)
    if not record.is_file():
        return ""
    found = re.match(r"[0-9a-f]{64}\b", record.read_text(errors="replace"))
    if not found:
        raise DissectError(f"{record}: expected a SHA-256, 64 hexadecimal digits, at its beginning; remove it")
    return found[0]


def _record(path: Path, sha256: str, say: Say) -> None:
    """Keep the SHA-256 of a file's first download."""
    try:
        record_of(path).write_text(f"{sha256}  {path.name}\n")
    except OSError as error:
        raise DissectError(f"{record_of(path)}: cannot be written ({error.strerror or error})", status=1) from error
    say(f"SHA-256 {sha256} kept in {record_of(path)}: later downloads are checked against it")


def _check(remote: RemoteFile, path: Path, name: str, quiet: bool, say: Say) -> None:
    """Check a file that is in its place."""
    found = size_and_sha256(path, quiet)[1]
    known, record = remote.sha256 or recorded_sha256(path), record_of(path)
    if not known:  # placed by hand
        try:
            _plausible(remote, path, quiet, say)
        except ValueError as error:
            raise DissectError(f"{path}: the content is not the expected one ({error}); remove it", status=1) from error
        _record(path, found, say)
    elif not found.startswith(known):
        whose = "" if remote.sha256 else f", which {record.name} keeps of the first download"
        again = f"remove it and fetch {name} again, or give its folder another name"
        if not remote.sha256:
            again = f"remove it and fetch it again, and {record} too if the file was meant to change"
        raise DissectError(
            f"{path}: the content is not the expected one (SHA-256 begins with {found[:12]}, not with "
            f"{known[:12]}{whose}); {again}",
            status=1,
        )
    elif not remote.sha256:
        say(f"the SHA-256 is that of the first download, {record}")


def _plausible(remote: RemoteFile, path: Path, quiet: bool, say: Say) -> None:
    """Check a file of which no SHA-256 is known by what else is: its beginning, and the MD5 of a file packed in it.

    Raises
    ------
    ValueError
        If it is another one.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    ending = PurePosixPath(remote.name).suffix
    if not head.startswith(_BEGINNINGS.get(ending, b"")):
        raise ValueError(f"it does not begin as a {ending} file does")
    if head.lstrip().startswith(b"<"):
        raise ValueError("it is a web page")
    if not remote.member_md5:
        return
    found = _member_md5(path, remote.member, quiet)
    if found != remote.member_md5:
        raise ValueError(f"the MD5 of {remote.member} in it is {found}, not {remote.member_md5}")
    say(f"the MD5 of {remote.member} in it is the published one, {found}")


def _member_md5(path: Path, member: str, quiet: bool) -> str:
    """MD5 of a file in a tar archive, which is read once from front to back."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with tarfile.open(path, "r|*") as archive:
            for info in archive:
                file = archive.extractfile(info) if PurePosixPath(info.name).name == member else None
                if file is not None:
                    with Work(f"checking {member}", info.size, quiet) as work:
                        while block := file.read(1 << 20):
                            digest.update(block)
                            work.advance(len(block))
                    return digest.hexdigest()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"the archive is damaged or cut off: {error}") from error
    raise ValueError(f"there is no {member} in it")


class _Failure(NamedTuple):
    """What went wrong with one address."""

    text: str
    content: bool
    passing: bool
    """Whether it may go well another time."""


def _bring(remote: RemoteFile, urls: list[str], target: Path, name: str, progress: bool, say: Say) -> None:
    failures = []
    for url in urls:
        try:
            _from(url, remote, target, f"{name}/{remote.name}" if progress else "", say)
        except (OSError, ValueError) as error:  # those of requests are OSErrors, a wrong hash is a ValueError
            _raise_local(error, target)
            failure = _failure(error)
            text = failure.text + (f" ({urlsplit(url).netloc or url})" if len(urls) > 1 else "")
            failures.append(failure._replace(text=text))
        else:
            return
    texts = ", ".join(failure.text for failure in failures)
    raise DissectError(f"cannot download {name}/{remote.name}: {texts}; {_advice(failures, urls, target)}", status=1)


def _part(target: Path) -> Path:
    """What has come so far of a file."""
    return target.with_name(f".{target.name}.part")


def _advice(failures: list[_Failure], urls: list[str], target: Path) -> str:
    """What to do after a download that failed."""
    part = _part(target)
    kept = part.stat().st_size if part.exists() else 0
    passing = any(failure.passing for failure in failures)
    if passing and kept:
        return f"run the same command again: {_size(kept)} are kept"
    if any(failure.content for failure in failures) and record_of(target).is_file():
        return f"if the file was meant to change, remove {record_of(target)} and run the same command again"
    again = "run the same command again later, or " if passing else ""
    return f"{again}place the file from {urls[0]} by hand at {target}"


def _raise_local(error: Exception, target: Path) -> None:
    """Raise where the fault is not the server's but this machine's, on which no other address helps."""
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, ConnectionError | TimeoutError):
        return  # those of requests have no errno
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DissectError(
            f"{target.parent}: the disk is full; make room and run the same command again, which goes on with what has "
            "come, or set DISSECT_CACHE to a folder on another disk",
            status=1,
        ) from error
    raise DissectError(
        f"{error.filename or target}: cannot be written ({error.strerror}); set DISSECT_CACHE to a folder that can",
        status=1,
    ) from error


def _from(url: str, remote: RemoteFile, target: Path, shown: str, say: Say) -> None:
    """Bring a file from one address; what another call or address left of it is gone on with."""
    target.parent.mkdir(parents=True, exist_ok=True)
    known = remote.sha256 or recorded_sha256(target)
    begun = _part(target).exists()
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
        try:
            path = _retrieve(url, remote, target, Path(incoming), shown)
            if not path.stat().st_size:
                raise ValueError("it is empty")
            found = size_and_sha256(path, quiet=True)[1]
            if not found.startswith(known):  # only the beginning of some hashes is known
                whose = "that of the first download" if not remote.sha256 else "the published one"
                raise ValueError(f"SHA-256 begins with {found[:12]}, {whose} with {known[:12]}")
            if not known:
                _plausible(remote, path, not shown, say)
        except ValueError as error:
            # Those of requests, for an address that is none, are OSErrors too, and would come again.
            if not begun or isinstance(error, OSError):
                raise
        else:
            os.replace(path, target)
            if not known:
                _record(target, found, say)
            return
    _from(url, remote, target, shown, say)  # what was there was of another file: once more, from the beginning


def _retrieve(url: str, remote: RemoteFile, target: Path, incoming: Path, shown: str) -> Path:
    """Bring a file into `incoming` with pooch, which checks it where all of its hash has been published."""
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)  # its notes would mix with the command's own output
    bar = _progress(shown) if shown else None
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=remote.sha256 if len(remote.sha256) == 64 else None,
                fname=remote.name,
                path=incoming,
                downloader=_Resuming(_part(target), bar),  # pyright: ignore[reportArgumentType]
            )
        )
    finally:
        if bar is not None:
            bar.close()


class _Resuming:
    """A downloader for pooch that asks for the bytes that are missing, and keeps what came when it fails.

    Parameters
    ----------
    part : Path
        What has come so far.
    bar : _Bar or _Lines, optional
    """

    def __init__(self, part: Path, bar: _Bar | _Lines | None) -> None:
        self.part, self.bar = part, bar

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests

        broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
        for connection in range(CONNECTIONS):
            before = self._size()
            try:
                self._connect(url)
                break
            except broken:
                if connection + 1 == CONNECTIONS or self._size() <= before:
                    raise
        os.replace(self.part, output_file)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _connect(self, url: str) -> None:
        """Ask for what is missing and append it; start over where the server sends the whole file."""
        import requests

        size = self._size()
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={size}-"} if size else {})}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:  # there is nothing after these bytes: they are all, or of another file
                if answer.headers.get("Content-Range", "").endswith(f"/{size}"):
                    return
                self.part.unlink()
                return self._connect(url)
            answer.raise_for_status()
            if answer.status_code != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
                size = 0
            length = answer.headers.get("Content-Length", "")
            total = size + int(length) if length.isdigit() else None
            if total is not None:
                self._ensure_room(total)
            if self.bar is not None:
                self.bar.begin(size, total)
            # The bytes are wanted as they are stored: some servers call .gz an encoding, which requests would unpack.
            answer.raw.headers.pop("Content-Encoding", None)
            with self.part.open("r+b" if size else "wb") as file:
                file.seek(size)
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    if self.bar is not None:
                        self.bar.advance(len(chunk))
        if total is not None and self._size() < total:  # older versions of urllib3 take a short answer for a whole one
            raise requests.exceptions.ChunkedEncodingError(f"{total - self._size()} bytes are missing")
        return None

    def _ensure_room(self, total: int) -> None:
        """Raise where the rest of a file would not fit on the disk; what has come of it stays.

        Raises
        ------
        DissectError
            Before anything is written.
        """
        kept = self._size()
        free = shutil.disk_usage(self.part.parent).free
        if total - kept > free:
            name = self.part.name[1:].removesuffix(".part")
            raise DissectError(
                f"{self.part.parent}: {_size(total - kept)} of {name} are still to come and {_size(free)} are free "
                f"({_size(kept)} are kept); make room and run the same command again, or set DISSECT_CACHE to a folder "
                "on another disk",
                status=1,
            )


def _failure(error: Exception) -> _Failure:
    """What went wrong, in one line without the layers that the libraries wrap around it."""
    kind, status = type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    text = " ".join(str(error).split())
    if status is not None:
        return _Failure(f"the server answered {status}", False, status >= 500 or status == 429)
    if isinstance(error, OSError) and isinstance(error, ValueError):
        return _Failure(f"the address is not valid ({text})", False, False)
    if isinstance(error, ValueError):
        return _Failure(f"the content is not the expected one ({text})", True, False)
    if "Timeout" in kind or "timed out" in str(error):
        return _Failure("the server did not answer in time", False, True)
    if kind == "ChunkedEncodingError":
        return _Failure("the connection broke off before the end", False, True)
    if "Connection" in kind or "Proxy" in kind or "SSL" in kind:
        return _Failure(f"no connection to the server ({kind})", False, True)
    return _Failure(text or kind, False, False)
