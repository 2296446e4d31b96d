"""Raw files of every kind: what is read of them, and the one line for what is wrong with them."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import zipfile
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dissect.data.prepare import archive
from dissect.data.prepare import read as reading
from dissect.data.prepare.own import own
from dissect.data.prepare.prepare import prepare
from dissect.data.prepare.recipes import recipe
from dissect.data.prepare.times import span, times_like, written
from dissect.errors import DissectError

COLUMNS = "session=s,item=i,time=t"
ROWS = [(s, f"item {i}", 1_400_000_000 + 100 * s + i) for s in range(10) for i in range(3)]
TRAIN = "0,1,2\n" * 8


def table(delimiter: str = ",", rows: list[tuple] = ROWS) -> str:
    return "\n".join(delimiter.join(map(str, row)) for row in [("s", "i", "t"), *rows]) + "\n"


def go(path: Path, columns: str = COLUMNS, **options) -> str:
    """Prepare a table beside it and return what lies in train.txt."""
    out = path.with_name("out")
    prepare(own(columns, **options), path, out, lambda line: None, force=True, quiet=True)
    return (out / "train.txt").read_text()


def complaint(path: Path, name: str | None = None, columns: str = COLUMNS, **options) -> str:
    """The line that preparing it ends with; nothing may be left."""
    rules = recipe(name) if name else own(columns, **options)
    with pytest.raises(DissectError) as caught:
        prepare(rules, path, path.with_name("out"), lambda line: None, quiet=True)
    assert [p for p in path.parent.iterdir() if p != path] == []
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.fixture
def raw(tmp_path: Path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "raw"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def packed(kind: str) -> bytes:
    content, stream = table().encode(), io.BytesIO()
    if kind == "gz":
        return gzip.compress(content)
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("inner/README", "no table")
            file.writestr("inner/table.csv", content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if kind == "tar.gz" else "w") as file:
            for name, data in (("inner/README", b"no table"), ("inner/table.csv", content)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["gz", "zip", "tar", "tar.gz"])
def test_archives_are_told_by_content(raw, kind):
    assert go(raw(packed(kind))) == TRAIN


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_by_the_header(raw, delimiter):
    assert go(raw(table(delimiter))) == TRAIN


def test_quotes_byte_order_mark_carriage_returns_and_blank_lines(raw):
    text = table(rows=[(s, f'"a, ""b""\nand {i}"', t) for (s, i, t) in ROWS]).replace("\n9,", "\n\n9,")
    path = raw(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert go(path) == TRAIN
    assert (path.with_name("out") / "items.txt").read_text() == "".join(f'a, "b" and item {i}\n' for i in range(3))


@pytest.mark.parametrize(
    "times",
    [
        [t * 1000 for *_, t in ROWS],
        [float(t) for *_, t in ROWS],
        [datetime.fromtimestamp(t).isoformat() for *_, t in ROWS],
        [datetime.fromtimestamp(t).isoformat(" ") for *_, t in ROWS],
        [datetime.fromtimestamp(t).isoformat() + "Z" for *_, t in ROWS],
        [t * 1_000_000 for *_, t in ROWS],
        [t * 1_000_000_000 for *_, t in ROWS],
        [datetime.fromtimestamp(t, timezone.utc).isoformat() for *_, t in ROWS],
        [datetime.fromtimestamp(t, timezone(timedelta(hours=t % 5 - 2))).isoformat(" ") for *_, t in ROWS],
        [datetime.fromtimestamp(t + t % 3 / 4, timezone.utc).isoformat() for *_, t in ROWS],
        [datetime.fromtimestamp(t * 60).isoformat()[:16] for *_, t in ROWS],
    ],
    ids=[
        "milliseconds", "floats", "iso", "iso with a blank", "iso in UTC", "microseconds", "nanoseconds", "iso +00:00",
        "iso of several zones", "iso with a fraction here and there", "iso without seconds",
    ],
)  # fmt: skip
def test_times(raw, times):
    assert go(raw(table(rows=[(s, i, t) for (s, i, _), t in zip(ROWS, times, strict=True)]))) == TRAIN


@pytest.mark.parametrize("kind", ["text", "numbers", "datetime"])
def test_parquet(tmp_path, kind):
    sessions, items, times = zip(*ROWS, strict=True)
    frame = pl.DataFrame({"s": sessions, "more": 0.5, "i": items, "t": times})
    if kind == "text":
        frame = frame.cast(pl.String)
    if kind == "datetime":
        frame = frame.with_columns(pl.from_epoch("t"))
    frame.write_parquet(tmp_path / "raw")
    assert go(tmp_path / "raw") == TRAIN


def test_users_are_cut_into_sessions_at_gaps(raw):
    rows = [("u", f"item {i % 3}", 7200 * (i // 3) + i % 3) for i in range(30)]
    assert go(raw(table(rows=rows)), "user=s,item=i,time=t", gap="1h") == TRAIN
    assert go(raw(table(rows=rows)), "user=s,item=i,time=t", gap="1h", test="6h").count("\n") == 6


def test_several_batches_are_one_file(raw, monkeypatch):
    monkeypatch.setattr(reading, "BATCH", 4)
    assert go(raw(table())) == TRAIN
    path = raw(table().replace("1400000802", "x"))
    path.with_name("out").rename(path.with_name("before"))
    with pytest.raises(DissectError, match=r"raw, line 28: 'x' in t is not a UNIX time in seconds"):
        go(path)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "raw: the file is empty"),
        ("\n1,2,3\n", "raw, line 1: the line is blank"),
        ("s,i,t\n", "raw: there is no row of data in it"),
        ("s,i,t\n\n\n", "raw: there is no row of data in it"),
        ("s,i,t\n" + "1,2,\n" * 1_001 + "1,2,3\n", "raw: t (time) is empty in the first 1,000 rows"),
        (
            table().replace("t\n", "time\n", 1),
            "raw, line 1: no column 't'; the columns, separated by commas, are: s, i, time",
        ),
        (
            table("^"),
            "raw, line 1: no column 's'; the header is one column, 's^i^t' (tried: commas, semicolons, tabs, bars)",
        ),
        (table().replace("s,i,t", "s,i,t,i", 1), "raw, line 1: the column 'i' stands there twice"),
        (
            table().replace("3,item 1,1400000301", "3,item 1,soon"),
            "raw, line 12: 'soon' in t is not a UNIX time in seconds",
        ),
        (
            table().replace("3,item 1,1400000301", "3,item 1,2014-05-13"),
            "raw, line 12: '2014-05-13' in t is not a UNIX time in seconds",
        ),
        (table().replace("3,item 1,", "3,,"), "raw, line 12: no item (i is empty)"),
        (
            table().replace("3,item 1,1400000301", "3,item 1"),
            "raw, line 12: 2 fields, so that time (field 3) is missing; the file may be cut off",
        ),
        ("s,i,t\n\n1,2\n1,2,3\n", "raw, line 3: 2 fields where the first line has 3; the file may be cut off"),
        (table().replace("\n", "\r\n").replace("301\r\n", "301\r"), "raw, line 12: a carriage return within the line"),
        (table().replace("3,item 1,", "3,item,1,"), "raw, line 12: 4 fields where the first line has 3"),
        # A quotation mark that none closes, at the first row, among rows without and among rows with such; one within.
        (table().replace("0,item 0,", '0,"item 0,'), "raw, line 2: the quotation marks do not pair"),
        (table().replace("3,item 1,", '3,"item 1,'), "raw, line 12: the quotation marks do not pair"),
        (
            table().replace("item", '"item').replace(",14", '",14').replace('1",1400000301', "1,1400000301"),
            "raw, line 12: the quotation marks do not pair; one that opens a field is closed at its end, and one "
            "within it is written twice",
        ),
        (table().replace("3,item 1,", '3,"item" 1,'), "raw, line 12: the quotation marks do not pair"),
        (table().replace("3,item 1,", '3,3" item 1,'), "raw, line 12: the quotation marks do not pair"),
        # The record that begins in line 12 and ends in line 13.
        (table().replace("3,item 1,", '3,"item\n1",,'), "raw, line 12: 4 fields where the first line has 3"),
        (table().replace("3,item 1,1400000301", '3,"item\n1",soon'), "raw, line 12: 'soon' in t is not a UNIX time"),
        (table().encode().replace(b"3,item 1,", b"3,item \xff,"), "raw, line 12: not UTF-8 text (byte 0xff)"),
        (
            "s,i,t\n1,2,yesterday\n",
            "raw, line 2: 'yesterday' in t is not a time: ISO 8601 such as 2014-05-13, 2014-05-13T16:53 or 2014-05-13 "
            "16:53:20.5+02:00, or UNIX in seconds, milliseconds, microseconds or nanoseconds",
        ),
        ("s,i,t\n1,2,-5\n", "raw, line 2: '-5' in t is not a time: ISO 8601"),
        (table().replace("1400000301", "-5"), "raw, line 12: '-5' in t is not a UNIX time in seconds"),
        (table().replace("1400000301", "nan"), "raw, line 12: 'nan' in t is not a UNIX time in seconds"),
        # Another unit from some row on: milliseconds after seconds, and the other way round.
        (
            table(rows=[(s, i, t * 1000 if s >= 5 else t) for s, i, t in ROWS]),
            "raw, line 17: '1400000500000' in t is not a UNIX time in seconds (from 0 to below 100,000,000,000), as "
            "the first one is",
        ),
        (
            table(rows=[(s, i, t * 1000 if s < 5 else t) for s, i, t in ROWS]),
            "raw, line 17: '1400000500' in t is not a UNIX time in milliseconds (from 100,000,000,000 to below "
            "100,000,000,000,000), as the first one is",
        ),
        (
            table(rows=[(s, i, f"2014-05-13T16:53:{i[-1]}{s}" + "Z" * (s != 5)) for s, i, t in ROWS]),
            "raw, line 17: '2014-05-13T16:53:05' in t is not a time written as YYYY-MM-DDTHH:MM:SS[.fraction] and a "
            "zone (Z or +HH:MM), as the first one is",
        ),
        (b"\x00\x01\x02", "raw: neither text nor Parquet, gz, zip or tar.gz"),
        (b"7z\xbc\xaf\x27\x1c..", "raw: 7z is not read; unpack it (7z x raw) and name the file in it"),
        (gzip.compress(table().encode())[:-20], "raw: the archive is damaged or cut off"),
        (packed("zip")[:200], "raw: the archive is damaged or cut off"),
        (
            table().replace("\n", "\r"),
            "raw, line 1: a carriage return within the line; lines should end in LF or CR LF",
        ),
        # The name of a packed file is cut off; its way of packing is unknown.
        (packed("zip").replace(b"\x0c\x00", b"\x00\x00"), "raw: the archive is damaged or cut off"),
        (packed("zip").replace(b"\x08\x00", b"\x63\x00"), "raw: the archive is damaged or cut off"),
        # Its directory is said to begin behind its end, so that a place before the file's beginning is sought.
        (packed("zip")[:-6] + b"\xff\xff\xff\x7f\x00\x00", "raw: the archive is damaged or cut off"),
        (b"PAR1 and no more", "raw: not a readable Parquet file"),
        (table(rows=ROWS[:12]), "raw: nothing is left after the rule 'sessions of 2 clicks or more and items"),
        (
            table(rows=[("a", i % 2, i) for i in range(20)]),
            "raw: --test 20%: 20% of 1 session round down to 0; there must be 2 or more",
        ),
        (
            table(rows=[(i % 3, i % 2, i) for i in range(30)]),
            "raw: --test 20%: 20% of 3 sessions round down to 0; choose 34% or more",
        ),
    ],
)
def test_one_line_names_file_line_and_cause(raw, text, cause):
    assert complaint(raw(text)).startswith(cause)


DIGI = "sessionId;userId;itemId;timeframe;eventdate\n1;NA;7;100;2016-05-09\n"
EVENTS = "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
TSV = "UserId\tItemId\tSessionId\tTime\n1\t2\t3\t4.5\n"
YOO = "1,2014-04-07T10:51:09.277Z,214536502,0\n"
LOG = "0\t2010-10-19T23:55:27Z\t30.2\t-97.7\t22847\n"
FM = "user_1\t2009-05-04T23:08:57Z\tf1b1\tA name\t\tA title\n"


@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("diginetica", DIGI.replace(";", ","), "raw, line 1: the columns are separated by commas, expected semicolons"),
        ("diginetica", DIGI.replace("timeframe", "when"), "raw, line 1: no column 'timeframe'; the columns"),
        ("diginetica", DIGI + "1;NA;8;12.5;2016-05-09\n", "raw, line 3: '12.5' in timeframe is not a whole number"),
        (
            "diginetica",
            DIGI + "1;NA;8;12;09.05.2016\n",
            "raw, line 3: '09.05.2016' in eventdate is not a day written as",
        ),
        ("diginetica-lessr", DIGI + "x;NA;8;12;2016-05-09\n", "raw, line 3: 'x' in sessionId is not a whole number"),
        ("diginetica", DIGI, "raw: nothing is left after the rule 'sessions of 2 clicks or more', of 1 clicks"),
        ("retailrocket", EVENTS.replace("event,", "kind,"), "raw, line 1: no column 'event'"),
        (
            "retailrocket",
            EVENTS + "143322133211x,1,view,3,\n",
            "raw, line 3: '143322133211x' in timestamp is not a UNIX",
        ),
        (
            "retailrocket",
            EVENTS.replace("view", "addtocart"),
            "raw: nothing is left after the rule 'rows whose event is view'",
        ),
        ("retailrocket", EVENTS.replace(",", "\t"), "raw, line 1: the columns are separated by tabs, expected commas"),
        ("tmall", TSV.replace("\t", ","), "raw, line 1: the columns are separated by commas, expected tabs"),
        ("tmall", TSV + "1\t2\tthree\t4\n", "raw, line 3: 'three' in SessionId is not a whole number"),
        (
            "tmall",
            TSV.replace("\t3\t", "\t120001\t"),
            "raw: nothing is left after the rule 'rows before the first whose",
        ),
        ("nowplaying", TSV + "1\t2\t3\t\n", "raw, line 3: no time (Time is empty)"),
        ("nowplaying", TSV.replace("ItemId", "TrackId"), "raw, line 1: no column 'ItemId'"),
        (
            "yoochoose1_64",
            YOO.replace(",", ";"),
            "raw, line 1: 1 field where at least 3 are expected, separated by commas; it "
            "seems to be separated by semicolons",
        ),
        ("yoochoose1_64", YOO + "1,2014-04-07,3,0\n", "raw, line 2: '2014-04-07' in field 2 is not a time written as"),
        (
            "yoochoose1_4",
            YOO + "1,2014-04-07T10:51:09.277Z\n",
            "raw, line 2: 2 fields, so that item (field 3) is missing",
        ),
        ("gowalla", LOG.replace("\t", " "), "raw, line 1: 1 field where at least 5 are expected, separated by tabs"),
        ("gowalla", LOG + "0\t2010\n", "raw, line 2: '2010' in field 2 is not a time written as"),
        ("gowalla", LOG, "raw: nothing is left after the rule 'sessions of 2 clicks or more and items"),
        (
            "gowalla",
            "".join(f"0\t2010-10-19T23:55:{k:02}Z\t30.2\t-97.7\t{k % 2}\n" for k in range(10)),
            "raw: test part: 20% of 1 session round down to 0",
        ),
        ("lastfm", FM + "user_1\t\tf1b1\n", "raw, line 2: no time (field 2 is empty)"),
        ("lastfm", FM + "user_1\n", "raw, line 2: 1 field, so that time (field 2) is missing"),
    ],
)
def test_one_line_for_each_data_set(raw, name, text, cause):
    assert complaint(raw(text), name).startswith(cause)


def test_the_share_that_is_advised_is_enough(raw):
    assert go(raw(table(rows=[(i % 3, i % 2, i) for i in range(30)])), test="34%").count("\n") == 2


def test_what_leaves_nothing_is_named_with_the_option_that_may_help(raw):
    rule = "nothing is left after the rule 'sessions of 2 clicks or more and items of 5 clicks or more, repeated until"
    # Items of a click each: gone in the first pass. Sessions of a click each: so are these, and no option helps.
    assert complaint(raw(table(rows=[(0, i, i) for i in range(9)]))) == (
        f"raw: {rule} nothing changes', of 9 clicks: in pass 1 'items of 5 clicks or more' took the last; choose a "
        "smaller --item-clicks"
    )
    assert complaint(raw(table(rows=[(i, 0, i) for i in range(9)]))) == (
        f"raw: {rule} nothing changes', of 9 clicks: in pass 1 'sessions of 2 clicks or more' took the last"
    )
    # Item 1 goes, which leaves each session a click of item 0.
    assert complaint(raw(table(rows=[(i // 2, i % 2 * (i + 1), i) for i in range(12)]))).endswith(
        "of 12 clicks: in pass 2 'sessions of 2 clicks or more' took the last; choose a smaller --item-clicks"
    )
    assert complaint(raw(table()), test="7d").endswith("', of 30 clicks; choose a shorter --test")


def test_a_file_that_is_not_there_or_may_not_be_read(tmp_path):
    with pytest.raises(DissectError, match=r"nowhere: cannot be read \(No such file or directory\)"):
        go(tmp_path / "nowhere")
    with pytest.raises(DissectError, match=r"cannot be read \(Is a directory\)"):
        go(tmp_path)


def test_parquet_with_other_columns(tmp_path):
    path = tmp_path / "raw"
    frame = pl.DataFrame({"s": [1, 2], "i": [0.5, 1.5], "t": [date(2020, 1, 1), None]})
    frame.write_parquet(path)
    assert complaint(path) == "raw: column 'i' holds double, expected text or whole numbers"
    assert complaint(path, columns="session=s,item=x,time=t") == "raw: no column 'x'; the columns are: s, i, t"
    frame.with_columns(i=1).write_parquet(path)
    assert complaint(path) == "raw, row 2: no time (t is null)"
    frame.select("s", pl.col("s").alias("i"), pl.Series("t", [5, -5])).write_parquet(path)
    assert complaint(path).startswith("raw, row 2: '-5' in t is not a UNIX time in seconds (from 0 to below")
    frame.select("s", pl.col("s").alias("i"), pl.Series("t", ["soon", "5"])).write_parquet(path)
    assert complaint(path).startswith("raw: column 't' begins with 'soon', which is not a time: ISO 8601 such as")
    frame.head(0).with_columns(i=1).write_parquet(path)
    assert complaint(path) == "raw: there is no row of data in it"
    frame.select("s", pl.col("s").alias("i"), pl.lit(None, pl.Int64).alias("t")).write_parquet(path)
    assert complaint(path) == "raw: column 't' holds no time"


@pytest.mark.parametrize(
    ("column", "held", "refused_as"),
    [
        (pa.array([[1]] * 30), "list<element: int64>", "sit"),
        (pa.array([b"a"] * 30), "binary", "sit"),
        (pa.array([time(1, 2)] * 30), "time64[us]", "sit"),
        (pa.array([timedelta(1)] * 30), "duration[us]", "sit"),
        (pa.array([True] * 30), "bool", "sit"),
        (pa.array([{"a": 1}] * 30), "struct<a: int64>", "sit"),
        (pa.array([None] * 30), "null", "sit"),
        (pa.array([Decimal(n) for n in range(30)]), "decimal128(2, 0)", "si"),
        (pa.array([n / 2 for n in range(30)]), "double", "si"),
        (pa.array([date(2014, 5, 13)] * 30), "date32[day]", "si"),
        (pa.array([datetime(1914, 5, 13)] * 30), "timestamp[us]", "si"),
        (pa.array([datetime(2014, 5, 13)] * 30, pa.timestamp("ns", "Europe/Berlin")), "timestamp[ns, tz=Eu", "si"),
        (pa.array(range(30), pa.uint64()), "", ""),
        (pa.array([str(n) for n in range(30)]).dictionary_encode(), "", ""),
        (pa.array(list(range(30))).dictionary_encode(), "", ""),
        (pa.array([str(n) for n in range(30)], pa.large_string()), "", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_types_of_parquet_columns(tmp_path, column, held, refused_as):
    """Each type in the place of each column: refused by name before anything is read, or read."""
    for role in "sit":
        path = tmp_path / "raw"
        # With the column in place of session or item nothing may be left, which is another matter.
        rows = {"s": [s for s, *_ in ROWS], "i": [i for _, i, _ in ROWS], "t": [t for *_, t in ROWS]}
        pq.write_table(pa.table({**rows, role: column}), path)
        if role in refused_as:
            expected = "dates, text or numbers" if role == "t" else "text or whole numbers"
            found = complaint(path)
            assert found.startswith(f"raw: column {role!r} holds {held}")
            assert found.endswith(f", expected {expected}")
        elif role == "t":
            assert go(path) == TRAIN
            shutil.rmtree(tmp_path / "out")
        else:
            assert complaint(path).startswith("raw: nothing is left after the rule")


@pytest.mark.parametrize("role", ["s", "i", "t"])
@pytest.mark.parametrize("packed", ["text", "large", "categories"])
def test_parquet_text_that_is_not_utf8(tmp_path, role, packed):
    columns = {name: pa.array(["2014-05-13"] * 4) for name in "sit"}
    kind = pa.large_string() if packed == "large" else pa.string()
    offsets, data = pa.py_buffer(np.array([0, 1, 2, 3, 4], np.int64 if packed == "large" else np.int32)), b"a\xffbc"
    broken = pa.Array.from_buffers(kind, 4, [None, offsets, pa.py_buffer(data)])
    columns[role] = broken.dictionary_encode() if packed == "categories" else broken
    pq.write_table(pa.table(columns), tmp_path / "raw")
    assert re.match(r"raw: not a readable Parquet file \(.*Invalid UTF8 sequence", complaint(tmp_path / "raw"))


def test_parquet_items_that_are_categories(tmp_path):
    sessions, items, times = zip(*ROWS, strict=True)
    for kind in (pl.Categorical, pl.Enum(sorted(set(items)))):
        frame = pl.DataFrame({"s": sessions, "i": pl.Series(items).cast(kind), "t": times})
        frame.write_parquet(tmp_path / "raw")
        assert go(tmp_path / "raw") == TRAIN


def test_types_of_diginetica_in_parquet(tmp_path):
    path = tmp_path / "raw"
    good = {"sessionId": [1], "itemId": [1], "timeframe": [1], "eventdate": ["2016-05-09"]}
    for name, values, expected in (
        ("timeframe", [0.5], "holds double, expected whole numbers"),
        ("eventdate", [5], "holds int64, expected dates, or text as in 2014-05-13"),
    ):
        pq.write_table(pa.table({**good, name: values}), path)
        assert complaint(path, "diginetica") == f"raw: column {name!r} {expected}"


def test_a_damaged_parquet_file_is_refused_by_one_line(tmp_path):
    path = tmp_path / "raw"
    pl.DataFrame({"session": ["a", "b"], "item": [1, 2], "t": [1, 2]}).write_parquet(path)
    whole, refused = path.read_bytes(), 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        line = complaint(path, columns="session=session,item=item,time=t")
        assert "\n" not in line
        refused += "not a readable Parquet file" in line
    assert refused > 100


def test_a_parquet_file_of_several_batches(tmp_path, monkeypatch):
    path = tmp_path / "raw"
    sessions, items, times = zip(*ROWS, strict=True)
    frame = pl.DataFrame({"s": sessions, "i": pl.Series(items, dtype=pl.Categorical), "t": times})
    frame.write_parquet(path, row_group_size=11)
    monkeypatch.setattr(reading, "BATCH", 4)
    assert go(path) == TRAIN
    bad = pl.Series([None if k == 17 else t for k, t in enumerate(times)])
    (tmp_path / "other").mkdir()
    frame.with_columns(t=bad).write_parquet(tmp_path / "other" / "raw")
    assert complaint(tmp_path / "other" / "raw") == "raw, row 18: no time (t is null)"


def test_a_column_with_line_breaks_in_its_name_is_listed_on_one_line(tmp_path):
    path = tmp_path / "raw"
    pl.DataFrame({"s": [1], "a\n\nb": [2], "t": [3]}).write_parquet(path)
    assert complaint(path) == "raw: no column 'i'; the columns are: s, a b, t"


def test_an_archive_of_several_tables(tmp_path):
    path = tmp_path / "raw"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.csv", "x")
        file.writestr("b.csv", "x")
    assert complaint(path) == "raw: expected one table in it, found a.csv, b.csv; unpack it and name the file"
    assert complaint(path, "retailrocket").startswith("raw: expected one file events.csv in it, found a.csv, b.csv")


#: What `zip -P secret raw.zip t.csv` packs of a table; Python's zipfile writes none that is encrypted.
ENCRYPTED = """
504b0304140009000800c5a6795deedc22af1d000000f000000005001c00742e6373765554090003f14a076bf14a076b75780b0001040000000004
000000009990266365f2c16e3652afab84601ff490da3875adfece9ff41c42fe45504b0708eedc22af1d000000f0000000504b01021e0314000900
0800c5a6795deedc22af1d000000f0000000050018000000000001000000a48100000000742e6373765554050003f14a076b75780b000104000000
000400000000504b050600000000010001004b0000006c0000000000
"""


def test_an_encrypted_archive(raw):
    path = raw(bytes.fromhex(ENCRYPTED))
    assert complaint(path) == "raw: t.csv in it is encrypted; unpack it with its password and name the file"


def test_unpacking_asks_for_room_first(raw, monkeypatch):
    path = raw(packed("zip"))
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    assert "unpacking inner/table.csv takes 0.0 MB and 0.0 MB are free" in complaint(path)


def test_clicks_out_of_order_are_sorted_and_counted(raw):
    path = raw(table(rows=[*ROWS[1::-1], *ROWS[2:]]))
    said: list[str] = []
    prepare(own(COLUMNS), path, path.with_name("out"), said.append, quiet=True)
    assert any("clicks out of order 1" in line for line in said)
    assert (path.with_name("out") / "train.txt").read_text() == TRAIN


def test_a_name_with_a_comma(raw):
    text = table().replace("s,i,t", '"s, or visit","i,",t', 1)
    assert go(raw(text), r"session=s\, or visit, item=i\,,time=t") == TRAIN


@pytest.mark.parametrize(
    ("columns", "options", "cause"),
    [
        ("session=s,item=i", {}, "name time as well"),
        ("item=i,time=t", {}, "name either session or user as well"),
        ("session=s,user=u,item=i,time=t", {}, "name either session or user as well"),
        ("session=s,item=i,time=t,colour=c", {}, "'colour=c' is not understood"),
        ("session=a, b,item=i,time=t", {}, r"' b' is not understood; write .*, and \\, for a comma within a name"),
        ("session=s,item=s,time=t", {}, "a column is named twice"),
        ("user=s,item=i,time=t", {}, "--gap makes sessions out of users"),
        (COLUMNS, {"gap": "1d"}, "--gap makes sessions out of users"),
        ("user=s,item=i,time=t", {"gap": "a while"}, "--gap a while is not a length of time"),
        (COLUMNS, {"test": "0d"}, "--test 0d is not a length of time"),
        (COLUMNS, {"test": "100%"}, "--test 100% is not a share"),
        (COLUMNS, {"item_clicks": 0}, "--item-clicks 0 is not valid"),
    ],
)
def test_options_that_do_not_fit(columns, options, cause):
    with pytest.raises(DissectError, match=cause):
        own(columns, **options)


def test_lengths_of_time_and_how_times_are_told():
    assert [span(text, "") for text in ("90s", "30m", "8h", "1.5d")] == [90_000, 1_800_000, 28_800_000, 129_600_000]
    assert [written(n) for n in (86_400_000, 5_400_000, 1_000, 1)] == [
        "1 day",
        "90 minutes",
        "1 second",
        "1 millisecond",
    ]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1396867869", 1_396_867_869_000),
        ("1.396867869277E9", 1_396_867_869_277),
        ("1396867869277", 1_396_867_869_277),
        ("1396867869277499", 1_396_867_869_277),
        ("1396867869277000000", 1_396_867_869_277),
        ("2014-04-07", 1_396_828_800_000),
        ("2014-04-07T10:51", 1_396_867_860_000),
        ("2014-04-07T10:51:09", 1_396_867_869_000),
        ("2014-04-07 10:51:09.277", 1_396_867_869_277),
        ("2014-04-07T10:51:09.277Z", 1_396_867_869_277),
        ("2014-04-07T10:51:09.2Z", 1_396_867_869_200),
        ("2014-04-07T10:51:09.277000+00:00", 1_396_867_869_277),
        ("2014-04-07 10:51:09+00", 1_396_867_869_000),
        ("2014-04-07T12:51:09.277+02:00", 1_396_867_869_277),
        ("2014-04-07T08:21:09-0230", 1_396_867_869_000),
        ("1969-12-31T23:59:59Z", -1_000),
        ("", None),
        ("noon", None),
        ("07.04.2014", None),
        ("2014-02-30", None),
        ("2014-04-07T25:51:09Z", None),
        ("2014-04-07T10:51:09 UTC", None),
        ("-5", None),
        ("1" * 21, None),
    ],
)
def test_how_times_are_told(text, milliseconds):
    found = times_like(text)
    assert (found.parse(pl.Series([text, None])).to_list() if found else None) == (
        None if milliseconds is None else [milliseconds, None]
    )


@pytest.mark.parametrize("first", ["20Z", "20.5Z", "20.500Z", "20+00:00", "20.500000+00:00", "20+01:00"])
def test_whatever_the_first_time_is_like_fractions_and_zones_may_vary(first):
    found = times_like(f"2014-05-13T16:53:{first}")
    assert found is not None
    texts = ["20Z", "21.5Z", "22.125+00:00", "23.123456Z", "24-01:00"]
    given = pl.Series([*(f"2014-05-13T16:53:{text}" for text in texts), None, "2014-05-13T16:53:20", "2014-05-13"])
    begin = 1_400_000_000_000
    parsed = [begin, begin + 1_500, begin + 2_125, begin + 3_123, begin + 4_000 + 3_600_000]
    assert found.parse(given).to_list() == [*parsed, None, None, None]
