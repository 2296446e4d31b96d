from __future__ import annotations

import hashlib
import http.server
import pickle
import socket
import threading

import pytest

from dissect.data import load
from dissect.data.catalogue import RemoteFile, Source
from dissect.data.sources import SOURCES, fetch
from dissect.errors import DissectError

FILES = {
    "/toy/all_train_seq.txt": pickle.dumps([[1, 2, 3], [3, 4]]),
    "/toy/test.txt": pickle.dumps(([[1, 2], [1]], [3, 2])),
}


class Server(http.server.ThreadingHTTPServer):
    """Serves FILES; ``broken`` names paths that end before their announced length."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.broken: set[str] = set()
        self.asked: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.path in self.server.broken else content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("DISSECT_DATA", "DISSECT_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    offer(monkeypatch, server)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def offer(monkeypatch, server, digits=64, wrong=False, base=None):
    """Register the source ``toy``, checked by the first ``digits`` of its files' SHA-256."""
    files = tuple(
        RemoteFile(path[5:], path[1:], ("0" * 64 if wrong else hashlib.sha256(content).hexdigest())[:digits])
        for path, content in FILES.items()
    )
    base = base or f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(SOURCES, "toy", Source("toy", "a toy", files, base=base))


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
    assert [path for path in (tmp_path / "toy").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("digits", [64, 16])
def test_wrong_hash(server, monkeypatch, tmp_path, digits):
    offer(monkeypatch, server, digits, wrong=True)
    fails(tmp_path, "not the expected one")
    assert left(tmp_path) == []


def test_not_found(server, tmp_path):
    del server.files["/toy/test.txt"]
    fails(tmp_path, "the server answered 404", file="test.txt")
    assert left(tmp_path) == ["all_train_seq.txt"]


def test_a_connection_that_breaks_off_then_another_try(server, tmp_path):
    server.broken = {"/toy/all_train_seq.txt"}
    fails(tmp_path, "broke off before the end")
    server.broken = set()
    assert load("toy", progress=False).items == 4


def test_no_network(server, monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    offer(monkeypatch, server, base=f"http://127.0.0.1:{port}")
    fails(tmp_path, "no connection to the server")


def test_a_mirror_replaces_the_address(server, monkeypatch):
    offer(monkeypatch, server, base="http://127.0.0.1:9/elsewhere")
    monkeypatch.setenv("DISSECT_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    assert load("toy", progress=False).items == 4


def test_nothing_is_downloaded_where_that_is_not_wanted(server):
    with pytest.raises(DissectError, match="dissect data fetch toy"):
        load("toy", download=False)
    assert server.asked == []
