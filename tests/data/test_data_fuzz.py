"""A short run of the fuzzer, and the hostile files that it or its making found, one by one."""

from __future__ import annotations

import gzip
import importlib.util
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dissect.data.formats import read_pickle_examples, read_pickle_sessions
from dissect.data.inter import read_inter
from dissect.data.mnist import LARGEST, _unzip
from dissect.errors import DissectError

SCRIPT = Path(__file__).resolve().parent.parent / "fuzz_readers.py"


def test_a_short_run_of_the_fuzzer():
    done = subprocess.run([sys.executable, str(SCRIPT), "--files", "1500"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1,500 files, seed 0" in done.stdout
    for line in done.stdout.splitlines()[:-1]:
        assert line.split(":")[1].split()[0] in ("read", "refused")
    assert "parquet: read" in done.stdout
    assert "hostile pickle: refused" in done.stdout


@pytest.mark.parametrize(
    ("error", "what"),
    [(ValueError("a crash"), "ValueError: a crash"), (DissectError("two\nlines"), "more than one line")],
)
def test_the_fuzzer_tells_of_what_must_not_happen(monkeypatch, tmp_path, error, what):
    spec = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)

    def read(path):
        raise error

    monkeypatch.setattr(fuzz, "KINDS", {"broken": (fuzz.text, read, None)})
    monkeypatch.setattr(sys, "addaudithook", lambda hook: None)  # it could not be taken away again
    with pytest.raises(AssertionError, match=what):
        fuzz.run_chunk(0, 0, 1, tmp_path)


def refused(read, path, content, cause):
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DissectError, match=cause) as caught:
        read(path)
    assert len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_one_list_named_again_and_again_takes_no_memory(tmp_path):
    row = pickle.dumps([1] * 100_000, 2)[2:-1]  # without mark and stop: the list itself, memo place 0
    many = b"\x80\x02](" + row + b"h\x00" * 100_000 + b"e."
    refused(read_pickle_sessions, tmp_path / "s", many, "refused, it claims 10,000")
    refused(read_pickle_examples, tmp_path / "s", many[:-1] + many[2:-1] + b"\x86.", "refused, it claims")


def test_a_bytearray_of_a_claimed_size_is_not_made(tmp_path):
    content = b"\x80\x05\x96" + (2**33).to_bytes(8, "little") + b"abc."
    refused(read_pickle_sessions, tmp_path / "s", content, "it holds bytes")


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    content = gzip.compress(bytes(LARGEST + 1), 1)
    refused(_unzip, tmp_path / "s.gz", content, r"refused, .* unpack to more than 67,108,864")


def test_long_names_are_cut(tmp_path):
    long = b"x" * 5_000
    refused(read_inter, tmp_path / "a", long + b":token\t" + b"b:token\n1\t2\n", "there are x{40}, b$")
    refused(
        read_inter, tmp_path / "a", b"\t".join([long + b":token"] * 2) + b"\n1\t2\n", "two columns are called 'x{40}'"
    )
    refused(read_pickle_sessions, tmp_path / "a", b"c" + long + b"\n" + long + b"\n.", r"asks for x{40}\.x{40};")
