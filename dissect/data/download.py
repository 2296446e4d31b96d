"""Downloads: into a temporary folder, checked, and only then put in place. No partial file stays."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

from dissect.data.catalogue import RemoteFile, Source
from dissect.data.formats import read_bytes
from dissect.errors import DissectError


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

    The environment variable ``DISSECT_MIRROR`` replaces the source's base address.

    Raises
    ------
    DissectError
        If a file cannot be brought or its content is not the expected one; the message says which
        file to place by hand, where, and from which address.
    """
    base = os.environ.get("DISSECT_MIRROR") or source.base
    for remote in source.files:
        target = folder / remote.name
        if not target.is_file():
            _bring(remote, f"{base.rstrip('/')}/{remote.path}", target, source.name, progress)
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


def _bring(remote: RemoteFile, url: str, target: Path, name: str, progress: bool) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)  # its notes would mix with the command's own output
    bar = _Bar(f"{name}/{remote.name}") if progress else None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
            path = pooch.retrieve(
                url,
                known_hash=remote.sha256 if len(remote.sha256) == 64 else None,
                fname=remote.name,
                path=incoming,
                downloader=pooch.HTTPDownloader(progressbar=bar or False, timeout=30),  # pyright: ignore[reportArgumentType]
            )
            found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            if not found.startswith(remote.sha256):  # only the beginning of some hashes is known
                raise ValueError(f"SHA-256 {found} does not begin with {remote.sha256}")
            os.replace(path, target)
    except (OSError, ValueError) as error:  # those of requests are OSErrors, a wrong hash is a ValueError
        raise DissectError(
            f"cannot download {name}/{remote.name}: {_cause(error)}; place the file from {url} by hand at {target}",
            status=1,
        ) from error
    finally:
        if bar is not None:
            bar.close()


def _cause(error: Exception) -> str:
    """One line for what went wrong, without the layers that the libraries wrap around it."""
    kind, status = type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the server answered {status}"
    if isinstance(error, ValueError):
        return f"the content is not the expected one ({' '.join(str(error).split())})"
    if "Timeout" in kind:
        return "the server did not answer in time"
    if kind == "ChunkedEncodingError":
        return "the connection broke off before the end"
    if "Connection" in kind or "Proxy" in kind or "SSL" in kind:
        return f"no connection to the server ({kind})"
    return " ".join(str(error).split()) or kind
