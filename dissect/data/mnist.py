"""MNIST, for the control that needs no sessions: four gzipped idx files, found as any data set is.

An idx file is a magic number (2051 for images, 2049 for labels), the size of each dimension, both as big-endian
32-bit integers, and then one byte for each value.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dissect.data.cache import cache_dir
from dissect.data.catalogue import RemoteFile, Source
from dissect.data.formats import read_bytes
from dissect.data.sources import _roots
from dissect.errors import DissectError

SIDE, CLASSES = 28, 10
IMAGES, LABELS = 2051, 2049

#: The hashes are those of the files as first published; a copy compressed anew has others.
SOURCE = Source(
    "mnist",
    "MNIST, handwritten digits",
    (
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            "mnist/train-images-idx3-ubyte.gz",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            "mnist/train-labels-idx1-ubyte.gz",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            "mnist/t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            "mnist/t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    base="https://ossci-datasets.s3.amazonaws.com",
    mirrors=("https://storage.googleapis.com/cvdf-datasets",),
)

#: `Mnist.sha256` of the published 60,000 and 10,000 digits.
PUBLISHED_SHA256 = "e9914cff2ade526da2ab1ac60c072f9173cc53e35b9411692de8207cb1b9009d"


@dataclass(frozen=True)
class Mnist:
    """Digits and their labels.

    Attributes
    ----------
    train_images, test_images : array of float32, (60000, 784) and (10000, 784)
        Rows of pixels from 0 to 1.
    train_labels, test_labels : array of int64, (60000,) and (10000,)
    sha256 : str
        SHA-256 over the uncompressed content of the four files; `PUBLISHED_SHA256` for the published ones.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    sha256: str


def load_mnist(data_dir: str | Path | None = None, download: bool = True, progress: bool = True) -> Mnist:
    """Load MNIST.

    Its folder ``mnist`` is looked for in ``data_dir``, then in the directory that the environment variable
    ``DISSECT_DATA`` names, then in the user's cache directory, where it is downloaded to.

    Parameters
    ----------
    data_dir : path, optional
        Directory with one folder for each data set.
    download : bool, default True
        Download what is not found.
    progress : bool, default True
        Show a progress bar on stderr while downloading.

    Raises
    ------
    DissectError
        If the files are not found or cannot be downloaded, or one is faulty.
    """
    folder = locate(data_dir, download, progress)
    paths = [folder / remote.name for remote in SOURCE.files]
    contents = [_unzip(path) for path in paths]
    train_images, test_images = (_images(paths[i], contents[i]) for i in (0, 2))
    train_labels, test_labels = (_labels(paths[i], contents[i]) for i in (1, 3))
    for path, images, labels in ((paths[1], train_images, train_labels), (paths[3], test_images, test_labels)):
        if len(images) != len(labels):
            raise DissectError(f"{path}: {len(labels)} labels for {len(images)} images")
    digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents))
    return Mnist(train_images, train_labels, test_images, test_labels, digest.hexdigest())


def locate(data_dir: str | Path | None = None, download: bool = True, progress: bool = True) -> Path:
    """The folder that holds the four files, downloaded where there is none."""
    roots, names = _roots(data_dir), [remote.name for remote in SOURCE.files]
    for root in roots:
        folder = root / SOURCE.name
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return folder
        # As for session data: elsewhere an incomplete folder is a slip to report, in the cache a download to finish.
        if folder.is_dir() and root != cache_dir():
            raise DissectError(f"{folder} lacks {', '.join(missing)}")
    target = cache_dir() / SOURCE.name
    if not download:
        looked = ", ".join(str(root) for root in roots)
        raise DissectError(f"data set mnist is not in {looked}; place {', '.join(names)} in {target}")
    from dissect.data.download import download as bring

    bring(SOURCE, target, progress)
    return target


#: Bytes of the largest of the four files, unpacked, and somewhat more.
LARGEST = 64 << 20


def _unzip(path: Path) -> bytes:
    packed = read_bytes(path)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            content = file.read(LARGEST + 1)  # no more, however much a file of zeros would give
        if len(content) > LARGEST:
            raise DissectError(f"{path}: refused, {len(packed):,} bytes unpack to more than {LARGEST:,}")
        return content
    except EOFError:
        raise DissectError(f"{path}: the file is truncated ({len(packed)} bytes)") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        cause = "damaged" if packed.startswith(b"\x1f\x8b") else "not a gzip file"
        raise DissectError(f"{path}: {cause} ({error})") from None


def _values(path: Path, content: bytes, magic: int, what: str) -> tuple[tuple[int, ...], np.ndarray]:
    """The dimensions and the flat bytes of an idx file."""
    dimensions = magic & 0xFF  # the magic number's last byte
    start = 4 * (1 + dimensions)
    if len(content) < start:
        raise DissectError(f"{path}: {len(content)} bytes are too few for the head of an idx file of {what}")
    found, *sizes = struct.unpack(f">{1 + dimensions}I", content[:start])
    if found != magic:
        raise DissectError(f"{path}: not an idx file of {what} (magic number {found}, not {magic})")
    expected = int(np.prod(sizes, dtype=object))
    if not expected:
        raise DissectError(f"{path}: there are no {what} in it")
    if len(content) - start != expected:
        shape = " x ".join(map(str, sizes))
        raise DissectError(f"{path}: {shape} {what} need {expected} bytes, found {len(content) - start}")
    return tuple(sizes), np.frombuffer(content, np.uint8, offset=start)


def _images(path: Path, content: bytes) -> np.ndarray:
    (count, *sides), pixels = _values(path, content, IMAGES, "images")
    if sides != [SIDE, SIDE]:
        raise DissectError(f"{path}: images are {sides[0]} x {sides[1]}, not {SIDE} x {SIDE}")
    return pixels.reshape(count, SIDE * SIDE).astype(np.float32) / np.float32(255)


def _labels(path: Path, content: bytes) -> np.ndarray:
    _, labels = _values(path, content, LABELS, "labels")
    if labels.max() >= CLASSES:
        raise DissectError(f"{path}: label {labels.max()} is not a digit")
    return labels.astype(np.int64)
