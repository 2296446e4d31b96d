from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import io
import pickle
import re
import shlex
import shutil
import socket
import tarfile
import threading
import time
from collections import namedtuple
from dataclasses import replace

import pytest

from dissect.cli import main
from dissect.data import download, load
from dissect.data.catalogue import RAW, RemoteFile, Source
from dissect.data.download import CONNECTIONS
from dissect.data.prepare.recipes import RECIPES
from dissect.data.sources import SOURCES, available, fetch
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


# Raw files: what `dissect data fetch` brings for `dissect data prepare`.

#: Two users whose sessions, a week apart, walk over the same five places.
LOG = "".join(
    f"{user}\t2010-10-{7 * week + day:02}T{hour:02}:00:00Z\t0\t0\t{place}\n"
    for user in (0, 1)
    for week in (0, 1, 2)
    for day in (1, 3, 5)
    for hour, place in enumerate((11, 12, 13, 14, 15))
)
GOWALLA = "/data/loc-gowalla_totalCheckins.txt.gz"


@pytest.fixture
def raw(server, monkeypatch, tmp_path):
    """The server in place of the raw files' own."""
    monkeypatch.setenv("DISSECT_MIRROR", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.chdir(tmp_path)
    server.files[GOWALLA] = gzip.compress(LOG.encode(), mtime=0)
    return server


@pytest.fixture
def run(capsys, monkeypatch):
    def call(line):
        status = 0
        words = shlex.split(line)
        monkeypatch.setattr("sys.argv", words)
        try:
            main(words[1:])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return (status, *capsys.readouterr())

    return call


def test_a_raw_file_is_brought_its_hash_kept_and_the_printed_command_prepares_it(raw, run, tmp_path):
    status, out, err = run("dissect data fetch gowalla")
    path = tmp_path / "raw/gowalla/loc-gowalla_totalCheckins.txt.gz"
    sha256 = hashlib.sha256(raw.files[GOWALLA]).hexdigest()
    command = f"dissect data prepare gowalla --raw {path} --out data/gowalla"
    assert (status, out) == (0, f"{path}\nprepare it with:\n  {command}\n")
    assert err == f"SHA-256 {sha256} kept in {path}.sha256: later downloads are checked against it\n"
    assert (tmp_path / f"{path}.sha256").read_text() == f"{sha256}  {path.name}\n"
    assert left(tmp_path) == [path.name, f"{path.name}.sha256"]
    assert run("dissect data fetch gowalla --raw")[1:] == (
        out, f"the SHA-256 is that of the first download, {path}.sha256\n"
    )  # fmt: skip
    assert raw.asked == [GOWALLA]
    status, out, _ = run(command)
    assert status == 0
    assert "together: items 5," in out
    assert load("gowalla", "data").items == 5
    assert fetch("gowalla", "data").name == "gowalla"  # the data set, now that there is one


@pytest.mark.parametrize("again", [True, False])
def test_a_raw_file_that_is_another_than_at_its_first_download(raw, run, tmp_path, again):
    run("dissect data fetch gowalla")
    path = tmp_path / "raw/gowalla/loc-gowalla_totalCheckins.txt.gz"
    first, other = raw.files[GOWALLA], gzip.compress(LOG.encode() * 2, mtime=0)
    digests = [hashlib.sha256(content).hexdigest() for content in (first, other)]
    if again:
        path.unlink()
        raw.files[GOWALLA] = other
    else:
        path.write_bytes(other)
    status, out, err = run("dissect data fetch gowalla")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("dissect: cannot download gowalla/" if again else f"dissect: {path}: the content is not")
    assert all(digest[:12] in err for digest in digests)
    assert "first download" in err
    assert f"remove {path}.sha256 and run" in err or f"and {path}.sha256 too if the file was meant to change" in err
    assert path.exists() != again
    assert (tmp_path / f"{path}.sha256").read_text().startswith(digests[0])
    raw.files[GOWALLA] = first
    path.unlink(missing_ok=True)
    assert run("dissect data fetch gowalla")[0] == 0


def test_a_record_without_a_hash(raw, run, tmp_path):
    run("dissect data fetch gowalla")
    record = tmp_path / "raw/gowalla/loc-gowalla_totalCheckins.txt.gz.sha256"
    record.write_text("d41d8\n")
    status, out, err = run("dissect data fetch gowalla")
    assert (status, out) == (2, "")
    assert err == f"dissect: {record}: expected a SHA-256, 64 hexadecimal digits, at its beginning; remove it\n"


def test_a_raw_file_placed_by_hand_is_checked_by_what_comes_after(raw, run, tmp_path):
    path = tmp_path / "raw/gowalla/loc-gowalla_totalCheckins.txt.gz"
    path.parent.mkdir(parents=True)
    path.write_text("<!DOCTYPE html>")
    status, _, err = run("dissect data fetch gowalla")
    assert (status, err.count("\n")) == (1, 1)
    assert "it does not begin as a .gz file does" in err
    path.write_bytes(raw.files[GOWALLA])
    status, _, err = run("dissect data fetch gowalla")
    assert status == 0
    assert err.startswith(f"SHA-256 {hashlib.sha256(raw.files[GOWALLA]).hexdigest()} kept in {path}.sha256")
    assert raw.asked == []


@pytest.mark.parametrize(
    ("name", "path", "content", "cause"),
    [
        ("gowalla", GOWALLA, b"<html>log in</html>", "it does not begin as a .gz file does"),
        ("yoochoose", "/yc-rdata/yoochoose-data.7z", b"<html>log in</html>", "it does not begin as a .7z file does"),
        ("diginetica --raw", "/train-item-views.csv", b"\n<html>log in</html>", "it is a web page"),
        ("gowalla", GOWALLA, b"", "it is empty"),
    ],
)
def test_what_cannot_be_the_file_is_not_kept_as_its_first_download(raw, run, tmp_path, name, path, content, cause):
    raw.files[path] = content
    status, out, err = run(f"dissect data fetch {name}")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert cause in err
    assert left(tmp_path) == []


def test_a_gz_file_that_is_called_an_encoding_is_kept_as_it_is(raw, run, tmp_path):
    raw.more = {"Content-Encoding": "x-gzip"}
    assert run("dissect data fetch gowalla")[0] == 0
    assert (tmp_path / "raw/gowalla/loc-gowalla_totalCheckins.txt.gz").read_bytes() == raw.files[GOWALLA]


def test_a_raw_download_that_breaks_off_is_gone_on_with(raw, run, tmp_path):
    raw.broken = {GOWALLA}
    status, out, err = run("dissect data fetch gowalla")
    assert (status, out) == (1, "")
    part = tmp_path / "raw/gowalla/.loc-gowalla_totalCheckins.txt.gz.part"
    kept = part.stat().st_size
    assert err == (
        "dissect: cannot download gowalla/loc-gowalla_totalCheckins.txt.gz: the connection broke off before the end; "
        f"run the same command again: {kept} bytes are kept\n"
    )
    raw.broken = set()
    assert run("dissect data fetch gowalla")[0] == 0
    assert raw.heads[-1] == f"bytes={kept}-"


def test_a_raw_file_that_the_server_lacks(raw, run):
    del raw.files[GOWALLA]
    status, out, err = run("dissect data fetch gowalla")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(
        "dissect: cannot download gowalla/loc-gowalla_totalCheckins.txt.gz: the server answered 404; "
    )


def packed(member, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in (("lastfm-dataset-1K/README.txt", b"read me"), (f"lastfm-dataset-1K/{member}", content)):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return buffer.getvalue()


def offer_lastfm(monkeypatch, content):
    """Expect a table of that content in Last.fm's archive; returns the archive."""
    remote = RAW["lastfm"].files[0]
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(RAW, "lastfm", replace(RAW["lastfm"], files=(replace(remote, member_md5=md5),)))
    return packed(remote.member, content)


def test_the_md5_of_the_table_in_the_archive_is_checked(raw, run, monkeypatch, tmp_path):
    raw.files["/lastfm-dataset-1K.tar.gz"] = offer_lastfm(monkeypatch, b"user_1\t2009\n")
    status, out, err = run("dissect data fetch lastfm")
    path = tmp_path / "raw/lastfm/lastfm-dataset-1K.tar.gz"
    assert (status, out.splitlines()[0]) == (0, str(path))
    assert out.endswith(f"  dissect data prepare lastfm --raw {path} --out data/lastfm\n")
    md5, sha256 = err.splitlines()
    assert md5 == (
        "the MD5 of userid-timestamp-artid-artname-traid-traname.tsv in it is the published one, "
        f"{hashlib.md5(b'user_1' + bytes([9]) + b'2009' + bytes([10])).hexdigest()}"
    )
    assert sha256.startswith("SHA-256 ")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda archive: packed(RAW["lastfm"].files[0].member, b"other"), "the MD5 of userid-.* in it is 795f3202"),
        (lambda archive: packed("other.tsv", b"user_1"), r"there is no userid-timestamp-.*\.tsv in it"),
        (lambda archive: archive[: len(archive) // 2], "the archive is damaged or cut off"),
    ],
)
def test_another_table_in_the_archive(raw, run, monkeypatch, tmp_path, change, cause):
    raw.files["/lastfm-dataset-1K.tar.gz"] = change(offer_lastfm(monkeypatch, bytes(range(256)) * 99))
    status, out, err = run("dissect data fetch lastfm")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.search(cause, err), err
    assert left(tmp_path) == []


def test_what_prepare_does_not_read_is_unpacked_first(raw, run, tmp_path):
    raw.files["/yc-rdata/yoochoose-data.7z"] = b"7z\xbc\xaf\x27\x1c and more"
    folder = tmp_path / "raw/yoochoose"
    unpack = f"unpack it with:\n  7z x {folder}/yoochoose-data.7z -o{folder} yoochoose-clicks.dat\n"
    quarter = f"  dissect data prepare yoochoose1_4 --raw {folder}/yoochoose-clicks.dat --out data/yoochoose1_4\n"
    part = (
        f"  dissect data prepare yoochoose1_64 --raw {folder}/yoochoose-clicks.dat --out data/yoochoose1_64-prepared\n"
    )
    path = f"{folder}/yoochoose-data.7z\n"
    assert run("dissect data fetch yoochoose")[1] == f"{path}{unpack}prepare it with, one of:\n{quarter}{part}"
    assert run("dissect data fetch yoochoose1_4")[1] == f"{path}{unpack}prepare it with:\n{quarter}"
    (folder / "yoochoose-clicks.dat").write_text("")
    assert run("dissect data fetch yoochoose1_64 --raw")[1] == f"{path}prepare it with:\n{part}"


def test_a_name_that_is_both_is_the_data_set_unless_the_raw_file_is_asked_for(raw, run, monkeypatch, tmp_path):
    monkeypatch.setitem(SOURCES, "diginetica", SOURCES["toy"])
    raw.files["/train-item-views.csv"] = b"sessionId;userId;itemId;timeframe;eventdate\n"
    assert run("dissect data fetch diginetica")[1] == f"{tmp_path / 'diginetica'}\n"
    path = tmp_path / "raw/diginetica/train-item-views.csv"
    srgnn = f"  dissect data prepare diginetica --raw {path} --out data/diginetica-prepared\n"
    lessr = f"  dissect data prepare diginetica-lessr --raw {path} --out data/diginetica-lessr\n"
    assert run("dissect data fetch diginetica --raw")[1] == f"{path}\nprepare it with, one of:\n{srgnn}{lessr}"
    assert run("dissect data fetch diginetica-lessr")[1] == f"{path}\nprepare it with:\n{lessr}"


def test_the_list_has_the_raw_files(raw, tmp_path):
    rows = {row.name: row for row in available()}
    assert {f"{name} --raw" for name in RAW} < set(rows)
    assert rows["gowalla --raw"].where == "download"
    assert rows["retailrocket --raw"].where == "place by hand"
    fetch("gowalla", progress=False)
    assert {row.name: row.where for row in available()}["gowalla --raw"].startswith(str(tmp_path / "raw/gowalla/"))


def test_names_that_are_no_raw_file(run, tmp_path, monkeypatch):
    status, out, err = run("dissect data fetch mnist --raw")
    assert (status, out) == (2, "")
    assert err == (
        "dissect: unknown raw file 'mnist'; choose one of: diginetica, diginetica-lessr, gowalla, lastfm, yoochoose, "
        "yoochoose1_4, yoochoose1_64, retailrocket, tmall, nowplaying\n"
    )
    assert "(did you mean gowalla?)" in run("dissect data fetch gowala --raw")[2]
    err = run("dissect data fetch last-fm")[2]
    assert "unknown data set 'last-fm' (did you mean lastfm?)" in err
    assert "; or fetch a raw file: diginetica, " in err


def prepares(text):
    """The preparations in the commands of a text."""
    return re.findall(r"dissect data prepare (\S+) --raw \S+ --out [^\s']+", text)


def test_what_is_to_be_had_by_hand_ends_with_the_command_to_run(run, monkeypatch, tmp_path):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path))
    monkeypatch.delenv("DISSECT_DATA", raising=False)
    by_hand = [f"{source.name} --raw" for source in RAW.values() if not source.files]
    by_hand += [source.name for source in SOURCES.values() if not source.files and source.name != "lessr-sample"]
    assert {"retailrocket", "tmall --raw", "gowalla-tail"} < set(by_hand)
    for name in by_hand:
        status, out, err = run(f"dissect data fetch {name}")
        assert (status, out, err.count("\n")) == (2, "", 1), name
        names = prepares(err)
        assert names, err
        assert set(names) <= set(RECIPES), err
        assert "{" not in err
        assert err.endswith("'\n"), err
    assert f"--out {tmp_path}/retailrocket'" in run("dissect data fetch retailrocket")[2]
    for name in ("yoochoose1_64", "gowalla-tail"):
        assert "no command makes this copy" in run(f"dissect data fetch {name}")[2]


def test_a_run_on_a_raw_file_is_told_how_to_prepare_it(run, monkeypatch, tmp_path):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path))
    monkeypatch.delenv("DISSECT_DATA", raising=False)
    with pytest.raises(DissectError, match=r"gowalla is not in .*'dissect data fetch gowalla' brings that and prints"):
        load("gowalla")
