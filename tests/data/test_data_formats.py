from __future__ import annotations

import os
import pickle
import time
import tracemalloc

import pytest

from dissect.data.formats import is_pickle, read_pickle_examples, read_pickle_sessions, read_text_sessions
from dissect.errors import DissectError


def save(path, value, protocol=3):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [list, tuple])
def test_pickles_of_every_protocol(tmp_path, protocol, kind):
    path = save(tmp_path / "a.txt", kind([kind([1, 300]), [70000, 2, 2]]), protocol)
    sessions = read_pickle_sessions(path)
    assert is_pickle(path)
    assert sessions.clicks.tolist() == [1, 300, 70000, 2, 2]
    assert sessions.offsets.tolist() == [0, 2, 5]
    rows = kind([kind([[1, 2], (1,), [5], [5]]), [3, 2, 5, 6]])
    examples = read_pickle_examples(save(tmp_path / "b.txt", rows, protocol))
    assert examples.clicks.tolist() == [1, 2, 3, 5, 5, 5, 6]
    assert examples.session.tolist() == [0, 0, 1, 2]
    assert examples.targets.tolist() == [3, 2, 5, 6]


def test_rows_that_continue_nothing_are_kept(tmp_path):
    # [1, 2] -> 3 without its shorter sibling, then a chain, then a look-alike with another target.
    sequences, targets = [[1, 2], [4, 5, 6], [4, 5], [4], [4, 5], [4]], [3, 7, 6, 5, 9, 8]
    examples = read_pickle_examples(save(tmp_path / "t", (sequences, targets)))
    windows = zip(examples.start, examples.end, strict=True)
    assert [examples.clicks[a:b].tolist() for a, b in windows] == sequences
    assert examples.targets.tolist() == targets
    assert examples.session.tolist() == [0, 1, 1, 1, 2, 3]
    assert len(examples.clicks) == 3 + 4 + 3 + 2


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("read", [read_pickle_sessions, read_pickle_examples])
def test_a_pickle_that_calls_is_refused_and_runs_nothing(tmp_path, protocol, read):
    marker = tmp_path / "marker"
    path = save(tmp_path / "evil.txt", [[1, 2], Malicious(marker)], protocol)
    with pytest.raises(DissectError, match=r"evil\.txt: refused, it asks for \w+\.system"):
        read(path)
    assert not marker.exists()


def test_a_persistent_id_is_refused(tmp_path):
    (tmp_path / "p").write_bytes(b"(lp0\nPsomewhere\na.")
    with pytest.raises(DissectError, match="outside the file"):
        read_pickle_sessions(tmp_path / "p")


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x0f", b"r\x00\x00\x00\x01", b"p268435455\n"])
def test_a_memo_index_beyond_the_file_takes_no_memory(tmp_path, put):
    # [[1, 2]], where the outer list is put into the memo at an index of many millions.
    (tmp_path / "wide").write_bytes(b"\x80\x02]" + put + b"](K\x01K\x02ea.")
    tracemalloc.start()
    try:
        assert read_pickle_sessions(tmp_path / "wide").clicks.tolist() == [1, 2]
        assert tracemalloc.get_traced_memory()[1] < 1e6  # the unpickler in C takes 0.3 to 4 GB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("put", [b"r\x07\x00\x00\x00", b"r\xff\xff\x00\x00", b"r\x00\x00\x01\x00"])
def test_whatever_its_indices_a_plain_pickle_is_read(tmp_path, put):
    path = tmp_path / "s"
    path.write_bytes(b"\x80\x02]" + put + b"](K\x01Krea.")
    assert read_pickle_sessions(path).clicks.tolist() == [1, 114]  # 114 is the byte r


def test_a_large_plain_pickle_is_read_fast(tmp_path):
    path = save(tmp_path / "large", [[k % 50_000 + 1, 300, 70_000, 114] for k in range(200_000)], protocol=2)
    begun = time.perf_counter()
    assert len(read_pickle_sessions(path)) == 200_000
    assert time.perf_counter() - begun < 5  # about 0.4 s


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_every_truncation_is_a_clear_error(tmp_path, protocol):
    content = pickle.dumps([[1, 2, 3], [4, 5]], protocol=protocol)
    for length in range(len(content)):
        path = tmp_path / "cut"
        path.write_bytes(content[:length])
        with pytest.raises(DissectError, match=r"cut: (not a readable pickle|the file is empty)"):
            read_pickle_sessions(path)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ([[1, 2], [0, 3]], "item id 0 is outside 1"),
        ([[1, -2]], "item id -2 is outside 1"),
        ([[1, 2**31]], "is outside 1"),
        ([[1, 2**80]], "is outside 1"),
        ([[1, True]], "integers, found bool"),
        ([[1, 2.0]], "integers, found float"),
        ([["a"]], "integers, found str"),
        ([[1], []], "number 1 should be a list of ids, is an empty list"),
        ([1, 2], "number 0 should be a list of ids, is a int"),
        ([], "found an empty list"),
        ({"a": 1}, "found a dict"),
        ([[[1]]], "integers, found list"),
    ],
)
def test_wrong_content_of_sessions(tmp_path, value, cause):
    with pytest.raises(DissectError, match=cause) as caught:
        read_pickle_sessions(save(tmp_path / "s", value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ([[1], [2], [3]], "pair"),
        (([[1], [2]], [1]), "2 sequences need as many targets, found 1"),
        (([[1]], [True]), "found bool"),
        (([[1]], 5), "as many targets"),
        (([[]], [1]), "should be a list of ids"),
    ],
)
def test_wrong_content_of_examples(tmp_path, value, cause):
    with pytest.raises(DissectError, match=cause):
        read_pickle_examples(save(tmp_path / "e", value))


def test_a_list_that_holds_itself(tmp_path):
    loop: list = []
    loop.append(loop)
    with pytest.raises(DissectError, match="found list"):
        read_pickle_sessions(save(tmp_path / "loop", loop))


@pytest.mark.parametrize(
    "text", ["0,1,2\n3,3\n7\n", "0, 1 ,2\r\n3\t3\r\n7", "\ufeff0 1 2\n 3  3 \n7\n", "00,1,2\n3,03\n7\n"]
)
def test_text_in_its_variants(tmp_path, text):
    path = tmp_path / "t"
    path.write_bytes(text.encode())
    assert not is_pickle(path)
    sessions = read_text_sessions(path)
    assert sessions.clicks.tolist() == [0, 1, 2, 3, 3, 7]
    assert sessions.lengths.tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("1,2\n\n3,4\n", "t, line 2: the line is blank"),
        ("1,2\n3,4\n\n", "t, line 3: the line is blank"),
        ("1,2\n3,x\n", "t, line 2: 'x' is not an item id"),
        ("1,2\n3,4.5\n", "t, line 2: '4.5' is not"),
        ("1,2\n3,1_0\n", "t, line 2: '1_0' is not"),
        ("1,2\n3,\u0664\n", "t, line 2: .* is not"),
        ("1,2\n3,-4\n", "t, line 2: the item id '-4' is negative"),
        ("1,,2\n", "t, line 1: a field is empty"),
        ("1,2,\n", "t, line 1: a field is empty"),
        ("1\n99999999999\n", "t, line 2: the item id '99999999999' is above"),
        ("1\n" + "9" * 5000 + "\n", "t, line 2: .* is above"),
        ("1\n2147483647\n", "t, line 2: .* is above"),
        ("1\r2\n", "t, line 1: .* is not"),
        ("", "t: the file is empty"),
        ("\n\n", "t: the file is empty"),
    ],
)
def test_faulty_text_names_file_line_and_cause(tmp_path, text, cause):
    (tmp_path / "t").write_bytes(text.encode())
    with pytest.raises(DissectError, match=cause) as caught:
        read_text_sessions(tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DissectError, match="cannot be read"):
            read_text_sessions(path)


def test_text_is_read_in_bulk(tmp_path):
    path = tmp_path / "t"
    path.write_text("12345,23456,1,2,3\n" * 100_000)
    begun = time.perf_counter()
    assert len(read_text_sessions(path).clicks) == 500_000
    assert time.perf_counter() - begun < 5  # about 0.2 s; a field at a time would take far longer
