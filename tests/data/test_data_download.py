from __future__ import annotations

import hashlib
import http.server
import pickle
import socket
import threading

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

    ``ranges`` tells whether a part of a file can be asked for; ``heads`` are the parts that were.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.broken: set[str] = set()
        self.stalled: set[str] = set()
        self.ranges = True
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
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
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


def fails(tmp_path, cause, file="all_train_seq.txt"):
    """The failure is one line with cause, file, place and address; the failed file is not there."""
    with pytest.raises(DissectError, match=cause) as caught:
        load("toy", progress=False)
    message = str(caught.value)
    assert "\n" not in message
    assert f"cannot download toy/{file}" in message
    assert f"/toy/{file} by hand at {tmp_path / 'toy' / file}" in message
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
    fails(tmp_path, "broke off before the end")
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
    fails(tmp_path, "broke off before the end")
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
    fails(tmp_path, "the server did not answer in time", file="test.txt")
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
    fails(tmp_path, "no connection to the server")


def test_a_mirror_replaces_the_address(server, monkeypatch):
    offer(monkeypatch, server, base="http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("DISSECT_MIRROR", f"http://127.0.0.1:9 http://127.0.0.1:{server.server_port}/")
    assert load("toy", progress=False).items == 4


def test_nothing_is_downloaded_where_that_is_not_wanted(server):
    with pytest.raises(DissectError, match="dissect data fetch toy"):
        load("toy", download=False)
    assert server.asked == []
