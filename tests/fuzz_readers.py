"""Damaged and hostile files for every reader: each is read, or refused by a `DissectError` of one line.

    python tests/fuzz_readers.py --files 100000 --seed 0

Nothing else may come out: no other exception, no crash of the process, no code of the file run, no file half-written
by a conversion, no more memory than `MEMORY`, no more than `SECONDS` for a file. Files are made from valid ones of each
format by one to four changes, or are hostile from the start. Work is done in processes of `CHUNK` files, so that one
that dies is noticed; what it was reading is kept.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dissect.data import Sessions
from dissect.data.convert import FORMATS, convert
from dissect.data.formats import read_pickle_examples, read_pickle_sessions, read_text_sessions
from dissect.data.inter import read_inter
from dissect.data.layouts import read_timed, recognise
from dissect.data.mnist import _images, _labels, _unzip
from dissect.data.parquet import read_parquet
from dissect.data.prepare.own import own
from dissect.data.prepare.prepare import prepare
from dissect.data.timed import read_text_times
from dissect.errors import DissectError

MEMORY = 6 << 30
SECONDS = 20
CHUNK = 5_000
#: What a file must never bring about; Python's audit events.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "ctypes.dlopen",
             "pickle.find_class", "shutil.move")  # fmt: skip


class Ran(BaseException):
    """Code of a file was about to run."""


_watching = False


def _watch(event: str, arguments: Any) -> None:
    if _watching and event in FORBIDDEN:
        raise Ran(event)


class Hostile:
    """Pickles to a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> Any:
        return self.call


def sessions(r: random.Random) -> list[list[int]]:
    return [[r.randint(1, 40) for _ in range(r.randint(1, 6))] for _ in range(r.randint(1, 6))]


def pickled_sessions(r: random.Random) -> bytes:
    return pickle.dumps(sessions(r), r.randint(0, 5))


def pickled_examples(r: random.Random) -> bytes:
    rows = sessions(r)
    return pickle.dumps((rows, [r.randint(1, 40) for _ in rows]), r.randint(0, 5))


def hostile_pickle(r: random.Random) -> bytes:
    """A pickle that calls, nests, claims sizes, or says the same again and again."""
    deep, wide = r.choice([10, 1_000, 50_000]), r.choice([2, 200, 5_000])
    size = struct.pack("<Q", r.choice([2**20, 2**33, 2**40, 2**63 - 1, 2**64 - 1]))
    made = (
        lambda: pickle.dumps([[1], Hostile(exec, "raise SystemExit")], r.randint(0, 5)),
        lambda: pickle.dumps(Hostile(subprocess.run, ["true"]), r.randint(0, 5)),
        lambda: pickle.dumps([[1], Hostile(getattr, [], "append")], r.randint(0, 5)),
        lambda: b"cos\nsystem\n(S'true'\ntR.",
        lambda: b"(S'true'\nios\nsystem\n.",
        lambda: b"\x80\x02]" * deep + b"." + b"a" * deep,
        lambda: b"]" * deep + b"a" * (deep - 1) + b".",
        lambda: b"(" * deep + b"t" * deep + b".",
        lambda: b"\x80\x05\x96" + size + b"abc.",  # a bytearray
        lambda: b"\x80\x04\x8e" + size + b"abc.",  # bytes
        lambda: b"\x80\x04\x95" + size + b"]K\x01a.",  # a frame
        lambda: b"\x80\x02\x8b" + size[:4] + b"\x01.",  # an integer
        lambda: b"]" + b"r" + size[4:] + b"]K\x01aa.",  # a place in the memo
        lambda: b"]" + b"p" + b"9" * r.choice([9, 30, 5_000]) + b"\n]K\x01aa.",
        lambda: b"](" + b"]q\x00(" + b"K\x01" * wide + b"e" + b"h\x00" * wide + b"e.",  # one list, many times
        lambda: b"](" + b"2" * wide + b"e.",
        lambda: b"I" + b"9" * r.choice([10, 5_000]) + b"\n.",
        lambda: b"P1\n.",
        lambda: b"}](K\x01e.",
    )
    return r.choice(made)()


def text(r: random.Random) -> bytes:
    end = r.choice(["\n", "\n", "\r\n"])
    return end.join(r.choice([",", ",", " ", "\t"]).join(map(str, s)) for s in sessions(r)).encode()


def times(r: random.Random) -> bytes:
    return "\n".join(",".join(str(k * r.choice([1, 1.5])) for k in range(n)) for n in (3, 2, 1)).encode()


def ascending(r: random.Random) -> bytes:
    """Lines that are sessions as well as times of such sessions."""
    return "\n".join(",".join(map(str, sorted(r.randrange(50) for _ in range(n)))) for n in (3, 2, 2)).encode()


def inter_clicks(r: random.Random) -> bytes:
    rows = [f"{s}\t{item}\t{k}" for s, row in enumerate(sessions(r)) for k, item in enumerate(row)]
    return "\n".join(["session_id:token\titem_id:token\ttimestamp:float", *rows]).encode() + b"\n"


def inter_examples(r: random.Random) -> bytes:
    rows = []
    for number, s in enumerate(sessions(r)):
        stamps = " ".join(map(str, range(len(s))))
        rows.append(f"{number}\t{' '.join(map(str, s))}\t{r.randint(1, 9)}\t{stamps}\t99")
    names = "session_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp_list:float_seq\ttimestamp:float"
    return "\n".join([names, *rows]).encode()


_frames: list[bytes] = []


def parquet(r: random.Random) -> bytes:
    """One of some Parquet files that are made once: with every compression, kind of column, and a bomb."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not _frames:
        plain = {"session_id": [1, 1, 2, 2], "item_id": [3, 4, 4, 3], "timestamp": [1, 2, 3, 4]}
        tables = [
            plain,
            {"session": list("aabb"), "item": [0, 4, 5, 3]},
            {**plain, "timestamp": [1.0, 2.5, float("nan"), 4.0]},
            {**plain, "timestamp": pa.array([1, 2, 3, 4], pa.timestamp("ms"))},
            {**plain, "timestamp": pa.array([1, 2, 3, 4], pa.timestamp("ns", "Europe/Berlin"))},
            {**plain, "timestamp": ["2014-05-13 16:53:20+00:00", "2014-05-13 16:53:21.5+00:00"] * 2},
            {**plain, "timestamp": pa.array([1, 2, 3, 4], pa.date32())},
            {**plain, "timestamp": pa.array([1, 2, 3, 4], pa.time64("us"))},
            {**plain, "timestamp": pa.array([1, 2, 3, 4], pa.duration("s"))},
            {**plain, "timestamp": [b"1", b"2", b"3", b"4"]},
            {**plain, "timestamp": [{"at": 1}] * 4},
            {**plain, "item_id": [[1], [2], [], None]},
            {**plain, "item_id": [3, None, 5, 3]},
            {**plain, "item_id": pa.array(["a", "b", "a", "b"]).dictionary_encode()},
            {name: pa.array([], pa.int64()) for name in plain},
        ]
        ways = [{"compression": way} for way in ("none", "snappy", "gzip", "lz4", "zstd", "brotli")]
        ways += [{"data_page_version": "2.0"}, {"use_dictionary": False, "column_encoding": "DELTA_BINARY_PACKED"}]
        ones = pa.array(np.ones(3_000_000, np.int8))
        bomb = {"session_id": ones, "item_id": ones}
        for table, way in [*((t, w) for t in tables for w in ways), (bomb, {})]:
            file = io.BytesIO()
            try:
                pq.write_table(pa.table(table), file, **way)
            except OSError:  # not every column can be written in every way
                continue
            _frames.append(file.getvalue())
    return r.choice(_frames)


def read_some_once(folder: Path) -> None:
    """Read valid files, so that all modules are there."""
    parquet(random.Random(0))
    (folder / "fuzzed").write_bytes(_frames[0])
    read_parquet(folder / "fuzzed")
    (folder / "fuzzed").unlink()
    (folder / "fuzzed").write_bytes(gzip.compress(b"s,i,t\n1,a,1\n1,b,2\n2,a,3\n2,b,4\n"))
    prepare_table(folder / "fuzzed")
    (folder / "fuzzed").write_bytes(_frames[0])
    prepare_parquet(folder / "fuzzed")
    (folder / "fuzzed").unlink()


#: Ways to write the times of a raw log, from seconds after a day in 2014.
CLOCKS: tuple[Callable[[int], object], ...] = (
    lambda k: 1_400_000_000 + k,
    lambda k: 1_400_000_000_000 + k,
    lambda k: 1_400_000_000_000_000_000 + k,
    lambda k: 1.5e9 + k,
    lambda k: f"2014-05-{13 + k // 100} 16:53:{k % 60:02}",
    lambda k: f"2014-05-{13 + k // 100}T16:53:{k % 60:02}{'.5' * (k % 2)}Z",
    lambda k: f"2014-05-{13 + k // 100}T16:53:{k % 60:02}.125{'+02:00' if k % 2 else '+00:00'}",
)


def raw_table(r: random.Random) -> bytes:
    """A raw log for `dissect data prepare`, as it is or packed."""
    cut, end = r.choice([",", "\t", ";", "|"]), r.choice(["\n", "\n", "\r\n"])
    quote, clock = r.choice(["", "", '"']), r.choice(CLOCKS)
    rows = [
        (s, f"{quote}i{r.randint(1, 6)}{quote}", clock(100 * s + k)) for s in range(8) for k in range(r.randint(1, 5))
    ]
    content = end.join(cut.join(map(str, row)) for row in [("s", "i", "t"), *rows]).encode() + end.encode()
    return r.choice([lambda: content, lambda: content, lambda: gzip.compress(content, 1), lambda: zipped(content)])()


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", content)
    return file.getvalue()


def raw_parquet(r: random.Random) -> bytes:
    """The Parquet files of `parquet`, in place of a log."""
    return parquet(r)


def prepare_table(path: Path) -> None:
    _prepare(path, "session=s,item=i,time=t")


def prepare_parquet(path: Path) -> None:
    _prepare(path, "session=session_id,item=item_id,time=timestamp")


def _prepare(path: Path, columns: str) -> None:
    """Prepare, and clear away what was made; what a refused file leaves is found by `try_file`."""
    out = path.with_name("out")
    prepare(own(columns, test="50%", item_clicks=1), path, out, lambda line: None, quiet=True)
    shutil.rmtree(out)


def images(r: random.Random) -> bytes:
    count = r.randint(1, 2)
    content = struct.pack(">IIII", r.choice([2051, 2051, 2049]), count, 28, 28) + bytes(784 * count)
    return gzip.compress(content if r.random() < 0.98 else bytes(70 << 20), 1)


def labels(r: random.Random) -> bytes:
    return gzip.compress(struct.pack(">II", 2049, 3) + bytes([1, 2, r.randint(0, 12)]), 1)


def read_times(path: Path) -> Any:
    return read_text_times(path, Sessions(np.arange(6), np.array([0, 3, 5, 6])))


def read_images(path: Path) -> Any:
    return _images(path, _unzip(path))


def read_labels(path: Path) -> Any:
    return _labels(path, _unzip(path))


#: Format -> what makes a valid file, what reads it, and the two names under which it makes a data set.
KINDS: dict[str, tuple[Callable[[random.Random], bytes], Callable[[Path], Any], tuple[str, ...] | None]] = {
    "pickled sessions": (pickled_sessions, read_pickle_sessions, None),
    "pickled examples": (pickled_examples, read_pickle_examples, ("train.txt", "test.txt")),
    "hostile pickle": (hostile_pickle, read_pickle_sessions, ("all_train_seq.txt", "test.txt")),
    "hostile examples": (hostile_pickle, read_pickle_examples, None),
    "text": (text, read_text_sessions, ("train.txt", "test.txt")),
    "times": (times, read_times, None),
    "inter of clicks": (inter_clicks, read_inter, ("x.train.inter", "x.test.inter")),
    "inter of examples": (inter_examples, read_inter, ("x.train.inter", "x.test.inter")),
    "one inter": (inter_clicks, read_inter, ("x.inter",)),
    "one text with times": (ascending, read_text_sessions, ("sessions.txt", "timestamps.txt")),
    "parquet": (parquet, read_parquet, ("train.parquet", "test.parquet")),
    "raw table": (raw_table, prepare_table, None),
    "raw parquet": (raw_parquet, prepare_parquet, None),
    "idx images": (images, read_images, None),
    "idx labels": (labels, read_labels, None),
}
WORDS = (
    b"-1", b"0", b"1.5", b"1e9", b"nan", b"inf", b"99999999999999999999", b"2147483647", b"2147483646", b"4_0", b"+3",
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\t\t", b",,", b";", b"'", b'"', b" ", b"[[1]]", b"True",
    "٣".encode(), b"9" * 5000, b"0" * 5000, b"item_id:token",
)  # fmt: skip


def changed(content: bytes, r: random.Random) -> bytes:
    """The content after one to four changes."""
    for _ in range(r.choice([1, 1, 2, 4])):
        data = bytearray(content)
        at, other = sorted(r.randint(0, len(data)) for _ in range(2))
        how = r.randint(0, 10)
        if how <= 2 and data:  # bits
            for _ in range(r.choice([1, 1, 3, 20])):
                data[r.randrange(len(data))] ^= 1 << r.randrange(8)
        elif how == 3:
            del data[at:]
        elif how == 4:
            del data[at : min(other, at + 20)]
        elif how == 5:
            data[at:at] = data[at:other][:2000]
        elif how == 6:
            data[at:at] = r.randbytes(r.randint(1, 8))
        elif how <= 8:
            data[at : at + r.choice([0, 1, 2])] = r.choice(WORDS)
        elif how == 9 and len(data) < 5_000:
            words = bytes(data).decode("latin-1")
            data = bytearray(words.encode(r.choice(["utf-16", "utf-8", "utf-8-sig", "utf-32"])))
        elif how == 10:
            data[at : at + 8] = struct.pack("<q", r.choice([-1, 2**31, 2**40, 2**62]))[: len(data[at : at + 8])]
        content = bytes(data)
    return content


def try_file(seed: int, index: int, folder: Path) -> str:
    """Make file `index` and read it; returns the format and the outcome, raises for what must not happen."""
    r = random.Random(f"{seed}-{index}")
    name = r.choice(list(KINDS))
    make, read, pair = KINDS[name]
    whole = make(r)
    content = whole if r.random() < 0.15 else changed(whole, r)
    as_data_set = pair is not None and r.random() < 0.1
    path, source = folder / "fuzzed", folder / "source"
    if as_data_set and pair is not None:
        source.mkdir()
        victim = r.choice(pair)
        for part in pair:
            (source / part).write_bytes(content if part == victim else make(r))
        if r.random() < 0.2:
            (source / "num_items.txt").write_bytes(r.choice([b"50\n", b"3", b"0", b"-1", b"x", b"9" * 30, b"\xff"]))
    else:
        path.write_bytes(content)
    outcome = "read"
    try:
        if as_data_set:
            convert(str(source), r.choice(list(FORMATS)), folder / "out")
        else:
            read(path)
    except DissectError as error:
        outcome = "refused"
        message = str(error)
        assert "\n" not in message, f"{name}: more than one line: {message!r}"
        assert len(message) < 1_500, f"{name}: a line of {len(message)} characters"
        assert str(folder) in message, f"{name}: no file is named: {message}"
    there = sorted(entry.name for entry in folder.iterdir())
    if as_data_set:
        assert there == (["out", "source"] if outcome == "read" else ["source"]), f"left behind: {there}"
        if outcome == "read":
            layout = recognise(folder / "out")
            assert layout is not None
            read_timed(layout, "out", "0", text_times=True)  # what was written is whole
            shutil.rmtree(folder / "out")
        shutil.rmtree(folder / "source")
    else:
        assert there == ["fuzzed"], f"left behind: {there}"
        path.unlink()
    return f"{name}: {outcome}"


def run_chunk(seed: int, start: int, stop: int, folder: Path) -> Counter[str]:
    """Files `start` to `stop`; what fails stays in `folder`."""
    global _watching
    counts: Counter[str] = Counter()

    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    read_some_once(folder)  # imports before the watch begins
    read_timed_before = signal.signal(signal.SIGALRM, late)
    sys.addaudithook(_watch)
    _watching = True
    try:
        for index in range(start, stop):
            signal.alarm(SECONDS)
            try:
                counts[try_file(seed, index, folder)] += 1
            except BaseException as error:
                raise AssertionError(
                    f"--seed {seed}, file {index}: {type(error).__name__}: {str(error)[:400]}"
                ) from error
    finally:
        _watching = False
        signal.alarm(0)
        signal.signal(signal.SIGALRM, read_timed_before)
    return counts


def main() -> int:
    """Run the chunks, each in a process of its own, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first file")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so much time")
    parser.add_argument("--chunk", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.chunk:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        counts = run_chunk(given.seed, given.chunk[0], given.chunk[1], folder)
        shutil.rmtree(folder)
        print(json.dumps(counts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, sep="\t")
        return 0
    begun, counts, done, most = time.monotonic(), Counter[str](), 0, 0
    for start in range(given.start, given.start + given.files, CHUNK):
        stop = min(start + CHUNK, given.start + given.files)
        command = [sys.executable, __file__, "--seed", str(given.seed), "--chunk", str(start), str(stop)]
        child = subprocess.run(command, capture_output=True, text=True)
        if child.returncode:
            print(f"files {start} to {stop}: status {child.returncode}\n{child.stderr[-1500:]}", file=sys.stderr)
            return 1
        found, memory = child.stdout.strip().splitlines()[-1].split("\t")
        counts.update(json.loads(found))
        done, most = done + stop - start, max(most, int(memory))
        if time.monotonic() - begun > given.seconds:
            break
    for name, count in sorted(counts.items()):
        print(f"{name:32} {count:>9,}")
    print(f"{done:,} files, seed {given.seed}, {time.monotonic() - begun:.0f} s, at most {most:,} MB of memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
