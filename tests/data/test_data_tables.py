"""Files with rows: RecBole's `.inter` of both kinds, Parquet, and the times beside text."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dissect.data import Sessions
from dissect.data.inter import read_inter
from dissect.data.parquet import ROWS_AT_LEAST, read_parquet
from dissect.data.timed import read_text_times
from dissect.errors import DissectError

CLICKS = "session_id:token\titem_id:token\ttimestamp:float\n"
EXAMPLES = "session_id:token\titem_id_list:token_seq\titem_id:token\n"
TIMED = EXAMPLES[:-1] + "\ttimestamp_list:float_seq\ttimestamp:float\n"


def fails(read, path, cause):
    with pytest.raises(DissectError, match=cause) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_rows_of_clicks_are_gathered_by_session(tmp_path, ending):
    text = "item_id:token\tage:float\tuser_id:token\ttimestamp:float\n7\tx\tb\t5\n8\t\ta\t6\n9\t?\tb\t5.5\n0\t\ta\t6\n"
    (tmp_path / "x.inter").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", ending).encode())
    timed = read_inter(tmp_path / "x.inter")
    assert isinstance(timed.content, Sessions)
    assert timed.content.clicks.tolist() == [7, 9, 8, 0]
    assert timed.content.offsets.tolist() == [0, 2, 4]
    assert timed.times is not None
    assert timed.times.tolist() == [5, 5.5, 6, 6]


def test_rows_of_examples_are_joined_into_sessions(tmp_path):
    (tmp_path / "x.inter").write_text(EXAMPLES + "1\t1 2\t3\n2\t1\t2\n3\t5\t5\n4\t5\t6\n")
    examples = read_inter(tmp_path / "x.inter").content
    assert not isinstance(examples, Sessions)
    assert examples.clicks.tolist() == [1, 2, 3, 5, 5, 5, 6]
    assert examples.session.tolist() == [0, 0, 1, 2]
    assert examples.targets.tolist() == [3, 2, 5, 6]


def test_examples_of_other_times_are_of_other_sessions(tmp_path):
    (tmp_path / "x.inter").write_text(TIMED + "1\t1 2\t3\t1 2\t3\n1\t1\t2\t1\t2\n2\t4 5\t6\t1 2\t3\n3\t4\t5\t8\t9\n")
    timed = read_inter(tmp_path / "x.inter")
    assert not isinstance(timed.content, Sessions)
    assert timed.content.session.tolist() == [0, 0, 1, 2]
    assert timed.times is not None
    assert timed.times.tolist() == [1, 2, 3, 1, 2, 3, 8, 9]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", ": the file is empty"),
        (CLICKS, ": there are no rows below the header"),
        (
            "session_id:token\ttimestamp:float\n1\t2\n",
            ", line 1: no column item_id or .* there are session_id, timestamp",
        ),
        ("item_id:token\ttimestamp:float\n1\t2\n", ", line 1: no column session_id or"),
        ("item_id_list:token_seq\n1\n", ", line 1: no column item_id or"),
        ("session_id:token,item_id:token\n1,2\n", ", line 1: .*separated by tabs"),
        ("session_id\titem_id\n1\t2\n", ", line 1: 'session_id' is not a column of the form name:token"),
        ("a:token\ta:token\n1\t2\n", ", line 1: two columns are called 'a'"),
        (CLICKS + "1\t2\t3\n1\t2\n", ", line 3: 2 fields, the header has 3"),
        (CLICKS + "1,2,3\n", ", line 2: 1 fields, the header has 3"),
        (CLICKS + "1\t2\t3\n\n", ", line 3: the line is blank"),
        (CLICKS + "1\t2\t3\n1\tshoe\t4\n", ", line 3: 'shoe' is not an item id"),
        (CLICKS + "1\t2\t3\n1\t2.0\t4\n", r", line 3: '2\.0' is not an item id"),
        (CLICKS + "1\t-2\t3\n", ", line 2: the item id '-2' is negative"),
        (CLICKS + "1\t99999999999\t3\n", ", line 2: the item id '99999999999' is above"),
        (CLICKS + "1\t2\tnoon\n", ", line 2: 'noon' is not a time"),
        (CLICKS + "1\t2\tnan\n", ", line 2: 'nan' is not a time"),
        (CLICKS + "1\t2\t1e999\n", ", line 2: '1e999' is not a time"),
        (CLICKS + "1\t2\t3\n\t2\t3\n", ", line 3: the session's name is empty"),
        (
            CLICKS + "a\t2\t3\nb\t2\t9\na\t1\t2.5\n",
            r", line 4: the time goes backwards within a session, from 3 to 2\.5",
        ),
        (EXAMPLES + "1\t1 2\t3\n1\t1 x\t3\n", ", line 3: 'x' is not an item id"),
        (EXAMPLES + "1\t1  2\t3\n", ", line 2: a field is empty"),
        (EXAMPLES + "1\t\t3\n", ", line 2: a field is empty"),
        (EXAMPLES + "1\t1,2\t3\n", ", line 2: '1,2' is not an item id"),
        (TIMED + "1\t1\t3\t1\t2\n1\t1 2\t3\t5\t6\n", ", line 3: 1 times for 2 items"),
        (TIMED + "1\t1\t3\t1\t2\n1\t1 2\t3\t5 4\t6\n", ", line 3: the time goes backwards"),
        ("\x00\x01\x02", ", line 1: .* is not a column"),
    ],
)
def test_faulty_inter_names_file_line_and_cause(tmp_path, text, cause):
    (tmp_path / "x.inter").write_text(text)
    fails(read_inter, tmp_path / "x.inter", "x.inter" + cause)


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("keys", [[5, 4, 5], ["b", "a", "b"]])
def test_parquet_rows_are_gathered_by_session(tmp_path, keys):
    timed = read_parquet(write(tmp_path / "x.parquet", session=keys, item=[7, 8, 9], other=[None, None, [1]]))
    assert isinstance(timed.content, Sessions)
    assert timed.content.clicks.tolist() == [7, 9, 8]
    assert timed.content.offsets.tolist() == [0, 2, 3]
    assert timed.times is None


def test_parquet_dates_are_seconds(tmp_path):
    when = [datetime.datetime(1970, 1, 1, 0, 1), datetime.datetime(1970, 1, 1, 0, 1, 0, 500_000)]
    timed = read_parquet(write(tmp_path / "x.parquet", session_id=[1, 1], item_id=[1, 2], timestamp=when))
    assert timed.times is not None
    assert timed.times.tolist() == [60.0, 60.5]


@pytest.mark.parametrize(
    ("columns", "cause"),
    [
        ({"session_id": [1], "name": [2]}, ": no column item_id or .* there are session_id, name"),
        ({"item_id": [1], "name": [2]}, ": no column session_id or"),
        ({"session_id": [1], "item_id": ["a"]}, ": column item_id holds string, not whole numbers"),
        ({"session_id": [1], "item_id": [1.0]}, ": column item_id holds double"),
        ({"session_id": [1], "item_id": [[1]]}, r": column item_id holds list<"),
        ({"session_id": [1.5], "item_id": [1]}, ": column session_id holds double"),
        ({"session_id": [1], "item_id": [1], "timestamp": ["noon"]}, ": column timestamp holds string, not times"),
        ({"session_id": [1, 1], "item_id": [1, None]}, ", row 2: column item_id has no value"),
        ({"session_id": [1, 1], "item_id": [1, -1]}, ", row 2: the item id -1 is outside 0"),
        ({"session_id": [1, 1], "item_id": [1, 2**40]}, ", row 2: the item id 1099511627776 is outside"),
        ({"session_id": [1], "item_id": [1], "time": [float("inf")]}, ", row 1: the time is not a finite number"),
        ({"session_id": [1, 1], "item_id": [1, 2], "time": [2, 1]}, ", row 2: the time goes backwards .* from 2 to 1"),
        ({"session_id": [None], "item_id": [1]}, ": column session_id holds null"),
        ({"session_id": pa.array([], pa.int8()), "item_id": pa.array([], pa.int8())}, ": there are no rows"),
    ],
)
def test_faulty_parquet_names_file_row_and_cause(tmp_path, columns, cause):
    fails(read_parquet, write(tmp_path / "x.parquet", **columns), r"x\.parquet" + cause)


def test_parquet_that_is_none(tmp_path):
    path = write(tmp_path / "x.parquet", session_id=[1, 1], item_id=[1, 2])
    whole = path.read_bytes()
    for text, cause in ((b"", "the file is empty"), (b"session,item\n", "not a Parquet file"), (whole[:-9], "damaged")):
        path.write_bytes(text)
        fails(read_parquet, path, cause)


def test_parquet_with_far_more_rows_than_bytes_is_refused_unread(tmp_path):
    # One value repeated is a few bytes in Parquet, and gigabytes in memory.
    ones = np.ones(ROWS_AT_LEAST + 1_000_000, np.int8)
    path = write(tmp_path / "x.parquet", session_id=ones, item_id=ones)
    assert path.stat().st_size < 50_000
    fails(read_parquet, path, "refused, it claims 2,000,000 rows in")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("1,2\n3\n", "ok"),
        ("", ": the file is empty"),
        ("1,2,3\n4\n", ", line 1: 3 times for a session of 2 clicks"),
        ("1\n2,4\n", ", line 1: 1 times for a session of 2 clicks"),
        ("1,2\n", ": 1 lines of times for 2 sessions"),
        ("1,2\n3\n4\n", ": 3 lines of times for 2 sessions"),
        ("1,2\nnoon\n", ", line 2: 'noon' is not a time"),
        ("1,\n3\n", ", line 1: '' is not a time"),
        ("2,1\n3\n", ", line 1: the time goes backwards within a session, from 2 to 1"),
    ],
)
def test_times_beside_text(tmp_path, text, cause):
    (tmp_path / "t").write_text(text)
    sessions = Sessions(np.array([1, 2, 3]), np.array([0, 2, 3]))
    if cause == "ok":
        assert read_text_times(tmp_path / "t", sessions).tolist() == [1, 2, 3]
    else:
        fails(lambda path: read_text_times(path, sessions), tmp_path / "t", "t" + cause)
