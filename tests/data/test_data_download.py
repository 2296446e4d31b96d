from __future__ import annotations

import errno
import hashlib
import http.server
import pickle
import re
import shutil
import socket
import threading
import time
from collections import namedtuple

import pytest

from dissect.data import download, load
from dissect.data.catalogue import RemoteFile, Source
from dissect.data.download import CONNECTIONS
from dissect.data.sources import SOURCES, fetch
from dissect.errors import DissectError

FILES = {
    "/toy/all_train_seq.txt": pickle.dumps([[1, 2, 3], [3, 4]]),
    "/toy/test.txt": pickle.dumps(([[1, 2], [1]], [3, 2])),
}


class Server(http.server.ThreadingHTTPServer):
    """Serves FILES; ``broken`` names paths whose answers end half-way, ``stalled`` those that then just wait.

    ``slow`` is a pause after each byte, ``sized`` whether the length is told, ``more`` are further headers.
    ``ranges`` tells whether a part of a file can be asked for; ``heads`` are the parts that were.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.broken: set[str] = set()
        self.stalled: set[str] = set()
        self.ranges = self.sized = True
        self.slow = 0.0
        self.more: dict[str, str] = {}
        self.asked: list[str] = []
        self.heads: list[str | None] = []
        self.over = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range") if self.server.ranges else None
        self.server.heads.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        content = content[start:]
        if self.server.sized:
            self.send_header("Content-Length", str(len(content)))
        for name, value in self.server.more.items():
            self.send_header(name, value)
        self.end_headers()
        for byte in content if self.server.slow else b"":
            self.wfile.write(bytes([byte]))
            time.sleep(self.server.slow)
        content = b"" if self.server.slow else content
        halved = self.path in self.server.broken | self.server.stalled
        self.wfile.write(content[: len(content) // 2] if halved else content)
        if self.path in self.server.stalled:
            self.wfile.flush()
            self.server.over.wait(10)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("DISSECT_DATA", "DISSECT_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "CHUNK", 1)  # the files here are small
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    offer(monkeypatch, server)
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def offer(monkeypatch, server, digits=64, wrong=False, base=None, mirrors=()):
    """Register the source ``toy``, checked by the first ``digits`` of its files' SHA-256."""
    files = tuple(
        RemoteFile(path[5:], path[1:], ("0" * 64 if wrong else hashlib.sha256(content).hexdigest())[:digits])
        for path, content in FILES.items()
    )
    base = base or f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(SOURCES, "toy", Source("toy", "a toy", files, base=base, mirrors=mirrors))


def left(tmp_path):
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and "parsed" not in path.parts)


@pytest.mark.parametrize("digits", [64, 16])
@pytest.mark.parametrize("progress", [True, False])
def test_a_download_is_checked_kept_and_not_repeated(server, monkeypatch, tmp_path, digits, progress):
    offer(monkeypatch, server, digits)
    assert load("toy", progress=progress).items == 4
    assert left(tmp_path) == ["all_train_seq.txt", "test.txt"]
    assert fetch("toy") == tmp_path / "toy"
    assert len(server.asked) == 2


def test_only_what_is_missing_is_brought(server, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/test.txt").write_bytes(FILES["/toy/test.txt"])
    load("toy", progress=False)
    assert server.asked == ["/toy/all_train_seq.txt"]


@pytest.mark.parametrize("digits", [64, 16])
def test_files_that_are_there_are_checked_by_fetch(server, monkeypatch, tmp_path, digits):
    offer(monkeypatch, server, digits)
    fetch("toy", progress=False)
    path, other = tmp_path / "toy/test.txt", pickle.dumps(([[1]], [3]))
    path.write_bytes(other)
    with pytest.raises(DissectError) as caught:
        fetch("toy", progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: the content is not the expected one")
    assert hashlib.sha256(other).hexdigest()[:12] in message
    assert hashlib.sha256(FILES["/toy/test.txt"]).hexdigest()[:12] in message
    assert path.read_bytes() == other
    (tmp_path / "toy/all_train_seq.txt").unlink()  # a download to finish: what is there is checked too
    with pytest.raises(DissectError, match=r"test\.txt: the content is not the expected one"):
        load("toy", progress=False)


def fails(tmp_path, cause, file="all_train_seq.txt", kept=0):
    """The failure is one line with cause, file, and what to do; the failed file is not there.

    Where ``kept`` bytes have come that is the same command again, else to place the file by hand, where and from where.
    """
    with pytest.raises(DissectError, match=cause) as caught:
        load("toy", progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert f"cannot download toy/{file}" in message
    if kept:
        assert message.endswith(f"; run the same command again: {kept} bytes are kept")
    else:
        assert message.endswith(f"/toy/{file} by hand at {tmp_path / 'toy' / file}")
    assert caught.value.status == 1
    assert file not in left(tmp_path)
    assert [path.name for path in (tmp_path / "toy").iterdir() if path.name.startswith(".incoming")] == []


@pytest.mark.parametrize("digits", [64, 16])
def test_wrong_hash(server, monkeypatch, tmp_path, digits):
    offer(monkeypatch, server, digits, wrong=True)
    fails(tmp_path, "not the expected one")
    assert left(tmp_path) == []


def test_not_found(server, tmp_path):
    del server.files["/toy/test.txt"]
    fails(tmp_path, "the server answered 404", file="test.txt")
    assert left(tmp_path) == ["all_train_seq.txt"]


TRAIN = FILES["/toy/all_train_seq.txt"]
PART = ".all_train_seq.txt.part"


def test_a_connection_that_breaks_off_is_gone_on_with(server, tmp_path):
    server.broken = {"/toy/all_train_seq.txt"}
    remaining = len(TRAIN)
    for _ in range(CONNECTIONS):
        remaining -= remaining // 2
    fails(tmp_path, "broke off before the end", kept=len(TRAIN) - remaining)
    # Each connection brought half of what was missing, and was asked for no more than that.
    assert server.asked == ["/toy/all_train_seq.txt"] * CONNECTIONS
    assert server.heads[:2] == [None, f"bytes={len(TRAIN) // 2}-"]
    came = (tmp_path / "toy" / PART).read_bytes()
    assert came
    assert TRAIN.startswith(came)
    server.broken = set()
    assert load("toy", progress=False).items == 4
    assert server.heads[CONNECTIONS] == f"bytes={len(came)}-"
    assert left(tmp_path) == ["all_train_seq.txt", "test.txt"]


def test_a_server_that_knows_no_ranges_begins_again(server, tmp_path):
    server.broken, server.ranges = {"/toy/all_train_seq.txt"}, False
    fails(tmp_path, "broke off before the end", kept=len(TRAIN) // 2)
    assert len(server.asked) == 2  # the second brought no more than the first
    server.broken = set()
    assert load("toy", progress=False).items == 4
    assert left(tmp_path) == ["all_train_seq.txt", "test.txt"]


@pytest.mark.parametrize("rest", [b"of another file", b"longer than all that the server has" * 9, TRAIN])
def test_what_is_left_of_another_file_does_no_harm(server, tmp_path, rest):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / PART).write_bytes(rest)
    assert load("toy", progress=True).items == 4
    assert server.heads[0] == f"bytes={len(rest)}-"
    assert left(tmp_path) == ["all_train_seq.txt", "test.txt"]


def test_a_server_that_stops_sending(server, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "CONNECTIONS", 2)
    server.stalled = {"/toy/test.txt"}
    size = len(FILES["/toy/test.txt"])
    fails(tmp_path, "the server did not answer in time", file="test.txt", kept=size // 2 + (size - size // 2) // 2)
    assert server.asked.count("/toy/test.txt") == 2
    server.stalled = set()
    assert load("toy", progress=False).items == 4


def test_a_server_that_never_answers(monkeypatch, server, tmp_path):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        offer(monkeypatch, server, base=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        fails(tmp_path, "the server did not answer in time")
    assert left(tmp_path) == []


def test_mirrors_are_tried_in_turn(server, monkeypatch, tmp_path):
    here = f"http://127.0.0.1:{server.server_port}"
    offer(monkeypatch, server, base="http://127.0.0.1:9", mirrors=(f"{here}/nowhere", here))
    assert load("toy", progress=False).items == 4
    assert server.asked[:2] == ["/nowhere/toy/all_train_seq.txt", "/toy/all_train_seq.txt"]


def test_when_every_mirror_fails_each_cause_is_named(server, monkeypatch, tmp_path):
    here = f"http://127.0.0.1:{server.server_port}"
    offer(monkeypatch, server, base="http://127.0.0.1:9", mirrors=(f"{here}/nowhere",))
    fails(
        tmp_path, rf"no connection .* \(127\.0\.0\.1:9\), the server answered 404 \(127\.0\.0\.1:{server.server_port}\)"
    )


def test_a_mirror_goes_on_with_what_another_left(server, monkeypatch, tmp_path):
    here = f"http://127.0.0.1:{server.server_port}"
    server.files["/cut/toy/all_train_seq.txt"] = TRAIN
    server.broken = {"/cut/toy/all_train_seq.txt"}
    offer(monkeypatch, server, base=f"{here}/cut", mirrors=(here,))
    assert load("toy", progress=False).items == 4
    assert server.heads[CONNECTIONS] not in (None, "bytes=0-")


def test_no_network(server, monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    offer(monkeypatch, server, base=f"http://127.0.0.1:{port}")
    fails(tmp_path, "no connection to the server.*; run the same command again later, or place the file")


def test_a_mirror_replaces_the_address(server, monkeypatch):
    offer(monkeypatch, server, base="http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("DISSECT_MIRROR", f"http://127.0.0.1:9 http://127.0.0.1:{server.server_port}/")
    assert load("toy", progress=False).items == 4


def test_nothing_is_downloaded_where_that_is_not_wanted(server):
    with pytest.raises(DissectError, match="dissect data fetch toy"):
        load("toy", download=False)
    assert server.asked == []


def test_an_address_that_is_none(server, monkeypatch, tmp_path):
    monkeypatch.setenv("DISSECT_MIRROR", "nowhere")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / PART).write_bytes(TRAIN[:3])  # what came from another address
    with pytest.raises(
        DissectError, match=r"cannot download toy/all_train_seq\.txt: the address is not valid"
    ) as caught:
        load("toy", progress=False)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == [PART]


def test_a_server_that_tells_no_length(server):
    server.sized = False
    assert load("toy", progress=True).items == 4


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("begun", [0, 7])
@pytest.mark.parametrize("ranges", [True, False])
def test_too_little_disk(server, monkeypatch, tmp_path, begun, ranges):
    server.ranges = ranges
    offer(monkeypatch, server, mirrors=("http://127.0.0.1:9",))  # no other address would help
    part = tmp_path / "toy" / PART
    part.parent.mkdir()
    part.write_bytes(TRAIN[:begun])
    (part.parent / "test.txt").write_bytes(FILES["/toy/test.txt"])
    need = len(TRAIN) - begun
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9, 9, need - 1))
    with pytest.raises(DissectError, match="to come") as caught:
        load("toy", progress=False)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'toy'}: {need} bytes of all_train_seq.txt are still to come and {need - 1} "
    )
    assert f"({begun} bytes are kept); make room" in message
    assert "\n" not in message
    assert caught.value.status == 1
    assert part.read_bytes() == TRAIN[:begun]
    assert left(tmp_path) == [PART, "test.txt"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9, 9, need))
    assert load("toy", progress=False).items == 4


def test_a_disk_that_fills_up_and_a_folder_that_cannot_be_made(server, monkeypatch, tmp_path):
    def full(self, url):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(download._Resuming, "_connect", full)
        with pytest.raises(DissectError, match="toy: the disk is full; make room and run the same command again"):
            load("toy", progress=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DissectError, match=r"cannot be written \(Not a directory\); set DISSECT_CACHE"):
        load("toy", progress=False)
    assert server.asked == []


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(server, monkeypatch, capsys):
    load("toy")
    assert capsys.readouterr().err == ""  # it was there at once
    monkeypatch.setattr(download, "LINE_SECONDS", 0.0)
    progress = download._progress("toy/big")
    progress.begin(1_000_000, 4_000_000)
    progress.advance(1_000_000)
    progress.begin(0, None)
    progress.advance(10)
    progress.close()
    lines = [line.rpartition(", ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["toy/big: 2.0 MB of 4.0 MB (50%)", "toy/big: 10 bytes"]


def test_a_slow_server_is_seen_to_send(server, monkeypatch, capsys):
    server.slow = 0.005
    monkeypatch.setattr(download, "LINE_SECONDS", 0.02)
    load("toy")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    pattern = (
        rf"toy/(all_train_seq|test)\.txt: \d+ bytes of ({len(TRAIN)}|{len(FILES['/toy/test.txt'])}) bytes \(\d+%\), "
    )
    assert all(re.match(pattern, line) for line in lines), lines
