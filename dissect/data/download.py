"""Downloads: gone on with where they broke off, checked, and only then put in place.

What has come so far of a file lies beside its place as ``.NAME.part``, under which nothing reads it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dissect.data.catalogue import RemoteFile, Source
from dissect.data.formats import read_bytes
from dissect.errors import DissectError

TIMEOUT = 30.0
"""Seconds to wait for a server's answer, and for the next bytes of it."""
CONNECTIONS = 5
"""How often one call goes on with a file whose connections break off; each must bring something."""
CHUNK = 1 << 14
"""Bytes that are written at once; of a connection that breaks off, fewer than these are lost."""


class _Bar:
    """A rich progress bar with the four members that pooch asks of one."""

    def __init__(self, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(text, total=None)
        self._progress.start()

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, value: int) -> None:
        self._progress.update(self._task, total=value or None)

    def update(self, amount: int) -> None:
        self._progress.advance(self._task, amount)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop()


def download(source: Source, folder: Path, progress: bool = True) -> None:
    """Bring the files of ``source`` that ``folder`` lacks; these and those present are checked by SHA-256.

    The source's addresses are tried in turn, its base and then its mirrors. The environment variable
    ``DISSECT_MIRROR`` replaces them: one or several base addresses, with spaces between them.

    Raises
    ------
    DissectError
        If a file cannot be brought or its content is not the expected one; the message says which
        file to place by hand, where, and from which address.
    """
    bases = os.environ.get("DISSECT_MIRROR", "").split() or [source.base, *source.mirrors]
    for remote in source.files:
        target = folder / remote.name
        if not target.is_file():
            _bring(remote, [f"{base.rstrip('/')}/{remote.path}" for base in bases], target, source.name, progress)
    check(source, folder)


def check(source: Source, folder: Path) -> None:
    """Check those files of ``source`` that lie in ``folder`` by what is known of their SHA-256.

    Raises
    ------
    DissectError
        For the first file with another content.
    """
    for remote in source.files:
        path = folder / remote.name
        if not path.is_file():  # the data set lies there under other names
            continue
        found = hashlib.sha256(read_bytes(path)).hexdigest()
        if not found.startswith(remote.sha256):
            raise DissectError(
                f"{path}: the content is not the expected one (SHA-256 begins with {found[:12]}, not with "
                f"{remote.sha256[:12]}); remove it and fetch {source.name} again, or give its folder another name",
                status=1,
            )


def _bring(remote: RemoteFile, urls: list[str], target: Path, name: str, progress: bool) -> None:
    bar = _Bar(f"{name}/{remote.name}") if progress else None
    causes = []
    try:
        for url in urls:
            try:
                _from(url, remote, target, bar)
            except (OSError, ValueError) as error:  # those of requests are OSErrors, a wrong hash is a ValueError
                causes.append(_cause(error) + (f" ({urlsplit(url).netloc})" if len(urls) > 1 else ""))
            else:
                return
    finally:
        if bar is not None:
            bar.close()
    raise DissectError(
        f"cannot download {name}/{remote.name}: {', '.join(causes)}; place the file from {urls[0]} by hand at {target}",
        status=1,
    )


def _from(url: str, remote: RemoteFile, target: Path, bar: _Bar | None) -> None:
    """Bring a file from one address; what another call or address left of it is gone on with."""
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)  # its notes would mix with the command's own output
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    begun = part.exists()
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
        try:
            path = pooch.retrieve(
                url,
                known_hash=remote.sha256 if len(remote.sha256) == 64 else None,
                fname=remote.name,
                path=incoming,
                downloader=_Resuming(part, bar),  # pyright: ignore[reportArgumentType]
            )
            found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            if not found.startswith(remote.sha256):  # only the beginning of some hashes is known
                raise ValueError(f"SHA-256 {found} does not begin with {remote.sha256}")
        except ValueError:
            if not begun:
                raise
        else:
            os.replace(path, target)
            return
    _from(url, remote, target, bar)  # what was there was of another file: once more, from the beginning


class _Resuming:
    """A downloader for pooch that asks for the bytes that are missing, and keeps what came when it fails.

    Parameters
    ----------
    part : Path
        What has come so far.
    bar : _Bar, optional
    """

    def __init__(self, part: Path, bar: _Bar | None) -> None:
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
            total = size + int(answer.headers.get("Content-Length", 0))
            if self.bar is not None:
                self.bar.reset()
                self.bar.total = total
                self.bar.update(size)
            with self.part.open("r+b" if size else "wb") as file:
                file.seek(size)
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    if self.bar is not None:
                        self.bar.update(len(chunk))
        if self._size() < total:  # older versions of urllib3 take a short answer for a whole one
            raise requests.exceptions.ChunkedEncodingError(f"{total - self._size()} bytes are missing")
        return None


def _cause(error: Exception) -> str:
    """One line for what went wrong, without the layers that the libraries wrap around it."""
    kind, status = type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the server answered {status}"
    if isinstance(error, ValueError):
        return f"the content is not the expected one ({' '.join(str(error).split())})"
    if "Timeout" in kind or "timed out" in str(error):
        return "the server did not answer in time"
    if kind == "ChunkedEncodingError":
        return "the connection broke off before the end"
    if "Connection" in kind or "Proxy" in kind or "SSL" in kind:
        return f"no connection to the server ({kind})"
    return " ".join(str(error).split()) or kind
