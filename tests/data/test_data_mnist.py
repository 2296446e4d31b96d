from __future__ import annotations

import gzip
import hashlib
import http.server
import struct
import threading

import numpy as np
import pytest

from dissect.data import mnist
from dissect.data.catalogue import RemoteFile, Source
from dissect.data.mnist import SOURCE, load_mnist
from dissect.data.sources import available
from dissect.errors import DissectError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (remote.name for remote in SOURCE.files)


def images(*fills):
    """An idx file of images, each of one grey."""
    return struct.pack(">IIII", 2051, len(fills), 28, 28) + b"".join(bytes([fill]) * 784 for fill in fills)


def labels(*digits):
    return struct.pack(">II", 2049, len(digits)) + bytes(digits)


CONTENTS = {
    TRAIN_IMAGES: images(0, 51, 255),
    TRAIN_LABELS: labels(7, 0, 9),
    TEST_IMAGES: images(102, 1),
    TEST_LABELS: labels(3, 3),
}
PACKED = {name: gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}


@pytest.fixture(autouse=True)
def own_places(monkeypatch, tmp_path):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path / "cache"))
    for name in ("DISSECT_DATA", "DISSECT_MIRROR"):
        monkeypatch.delenv(name, raising=False)


def place(root, changes=None):
    """The four files under `root`, some of them changed (None: left out); returns `root`."""
    (root / "mnist").mkdir(parents=True)
    for name, content in {**PACKED, **(changes or {})}.items():
        if content is not None:
            (root / "mnist" / name).write_bytes(content)
    return root


def test_pixels_labels_and_hash(tmp_path):
    data = load_mnist(place(tmp_path / "data"), download=False)
    assert data.train_images.shape == (3, 784)
    assert data.test_images.shape == (2, 784)
    assert data.train_images.dtype == data.test_images.dtype == np.float32
    assert (data.train_images[:, 0] == np.array([0, 0.2, 1], np.float32)).all()
    assert (data.train_images == data.train_images[:, :1]).all()
    assert (data.test_images[:, 783] == np.array([102, 1], np.float32) / np.float32(255)).all()
    assert data.train_labels.tolist() == [7, 0, 9]
    assert data.test_labels.tolist() == [3, 3]
    assert data.train_labels.dtype == data.test_labels.dtype == np.int64
    inner = b"".join(hashlib.sha256(content).digest() for content in CONTENTS.values())
    assert data.sha256 == hashlib.sha256(inner).hexdigest() != mnist.PUBLISHED_SHA256


def test_pixels_stay_in_their_places(tmp_path):
    ramp = struct.pack(">IIII", 2051, 1, 28, 28) + bytes(i % 251 for i in range(784))
    changes = {TEST_IMAGES: gzip.compress(ramp), TEST_LABELS: gzip.compress(labels(1))}
    row = load_mnist(place(tmp_path / "data", changes)).test_images[0]
    assert (np.round(row * 255) == np.arange(784) % 251).all()


def test_a_copy_compressed_anew_is_the_same_data(tmp_path):
    stored = {name: gzip.compress(content, compresslevel=0) for name, content in CONTENTS.items()}
    first, second = load_mnist(place(tmp_path / "a")), load_mnist(place(tmp_path / "b", stored))
    assert first.sha256 == second.sha256
    other = {TEST_LABELS: gzip.compress(labels(3, 4))}
    assert load_mnist(place(tmp_path / "c", other)).sha256 != first.sha256


def test_where_it_is_looked_for(monkeypatch, tmp_path):
    def with_first_label(digit):
        return {TRAIN_LABELS: gzip.compress(labels(digit, 0, 0))}

    place(tmp_path / "cache", with_first_label(3))
    assert load_mnist(download=False).train_labels[0] == 3
    monkeypatch.setenv("DISSECT_DATA", str(place(tmp_path / "named", with_first_label(2))))
    assert load_mnist(download=False).train_labels[0] == 2
    assert load_mnist(place(tmp_path / "given", with_first_label(1)), download=False).train_labels[0] == 1
    (tmp_path / "empty").mkdir()
    assert load_mnist(tmp_path / "empty", download=False).train_labels[0] == 2


def test_it_is_no_session_data_set(tmp_path):
    assert "mnist" not in [row.name for row in available(place(tmp_path / "data"))]


def truncated(name, by=20):
    return {name: PACKED[name][:-by]}


@pytest.mark.parametrize(
    ("changes", "file", "cause"),
    [
        (truncated(TRAIN_IMAGES), TRAIN_IMAGES, "truncated"),
        ({TRAIN_LABELS: CONTENTS[TRAIN_LABELS]}, TRAIN_LABELS, "not a gzip file"),
        ({TEST_LABELS: b""}, TEST_LABELS, "empty"),
        ({TEST_LABELS: PACKED[TEST_LABELS][:10] + b"\xff" * 9}, TEST_LABELS, "damaged"),
        ({TEST_LABELS: PACKED[TEST_LABELS][:-8] + bytes(8)}, TEST_LABELS, "damaged"),  # checksum and length
        ({TEST_IMAGES: PACKED[TEST_LABELS]}, TEST_IMAGES, "too few for the head"),
        ({TEST_LABELS: PACKED[TEST_IMAGES]}, TEST_LABELS, "magic number 2051, not 2049"),
        ({TEST_LABELS: gzip.compress(labels(3, 3) + b"\0")}, TEST_LABELS, "2 labels need 2 bytes, found 3"),
        (
            {TEST_IMAGES: gzip.compress(images(1, 2)[:-1])},
            TEST_IMAGES,
            "2 x 28 x 28 images need 1568 bytes, found 1567",
        ),
        ({TEST_IMAGES: gzip.compress(struct.pack(">IIII", 2051, 1, 1, 2) + b"ab")}, TEST_IMAGES, "1 x 2, not 28 x 28"),
        ({TEST_LABELS: gzip.compress(labels())}, TEST_LABELS, "no labels"),
        ({TEST_LABELS: gzip.compress(labels(3))}, TEST_LABELS, "1 labels for 2 images"),
        ({TRAIN_LABELS: gzip.compress(labels(1, 2, 10))}, TRAIN_LABELS, "label 10 is not a digit"),
    ],
)
def test_a_faulty_file_is_named_with_the_cause(tmp_path, changes, file, cause):
    with pytest.raises(DissectError, match=cause) as caught:
        load_mnist(place(tmp_path / "data", changes), download=False)
    assert str(caught.value).startswith(f"{tmp_path / 'data/mnist' / file}: ")
    assert "\n" not in str(caught.value)


def test_dimensions_that_overflow_are_refused(tmp_path):
    huge = struct.pack(">IIII", 2051, 2**32 - 1, 2**31, 2**31) + bytes(784)  # 2^94 bytes
    with pytest.raises(DissectError, match="images need"):
        load_mnist(place(tmp_path / "data", {TEST_IMAGES: gzip.compress(huge)}), download=False)


def test_an_incomplete_folder_is_reported(tmp_path):
    data = place(tmp_path / "data", {TEST_LABELS: None, TRAIN_LABELS: None})
    with pytest.raises(DissectError, match=f"data/mnist lacks {TRAIN_LABELS}, {TEST_LABELS}$"):
        load_mnist(data)


def test_not_found_and_not_to_be_downloaded(tmp_path):
    with pytest.raises(DissectError, match=f"mnist is not in .*place {TRAIN_IMAGES}, .* in {tmp_path}/cache/mnist$"):
        load_mnist(download=False)


class Handler(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        content = PACKED.get(self.path.removeprefix("/mnist/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    Handler.asked.clear()
    monkeypatch.setenv("DISSECT_MIRROR", f"http://127.0.0.1:{server.server_port}/")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_checked_kept_and_not_repeated(mirror, monkeypatch, tmp_path):
    files = tuple(
        RemoteFile(remote.name, remote.path, hashlib.sha256(PACKED[remote.name]).hexdigest()) for remote in SOURCE.files
    )
    monkeypatch.setattr(mnist, "SOURCE", Source("mnist", "digits", files, base="http://127.0.0.1:9/elsewhere"))
    place(tmp_path / "cache", {TEST_LABELS: None})  # a download to finish
    assert load_mnist(progress=False).test_labels.tolist() == [3, 3]
    assert Handler.asked == [f"/mnist/{TEST_LABELS}"]
    assert (tmp_path / "cache/mnist" / TEST_LABELS).read_bytes() == PACKED[TEST_LABELS]
    load_mnist(progress=False)
    assert len(Handler.asked) == 1


def test_other_files_than_the_published_are_not_kept(mirror, tmp_path):
    with pytest.raises(DissectError, match="not the expected one") as caught:
        load_mnist(progress=False)
    assert f"cannot download mnist/{TRAIN_IMAGES}" in str(caught.value)
    assert not (tmp_path / "cache/mnist" / TRAIN_IMAGES).exists()
