from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissect.data import Examples, Sessions, expand, load
from dissect.data.convert import FORMATS, convert, estimated_bytes
from dissect.data.layouts import read_timed, recognise
from dissect.data.prepare import archive
from dissect.data.prepare.prepare import prepare
from dissect.data.prepare.recipes import recipe
from dissect.data.sessions import whole_sessions
from dissect.errors import DissectError

DATA = Path(os.environ.get("DISSECT_DATA") or "missing")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISSECT_DATA", raising=False)


def place(folder, train, test, items, times=None):
    """A text data set; `times` are those of the training clicks and those of the test clicks."""
    folder.mkdir(parents=True)
    (folder / "num_items.txt").write_text(str(items))
    for k, (part, sessions) in enumerate((("train", train), ("test", test))):
        (folder / f"{part}.txt").write_text("".join(",".join(map(str, s)) + "\n" for s in sessions))
        if times is not None:
            lines = "".join(",".join(map(repr, row)) + "\n" for row in times[k])
            (folder / f"{part}_timestamps.txt").write_text(lines)
    return folder


def place_pickles(folder, train, test, items, times=None):
    """SR-GNN's pickles, as their own code would write them, with times as `place` has them."""
    folder.mkdir(parents=True)
    (folder / "num_items.txt").write_text(str(items))
    named = [[[item + 1 for item in session] for session in part] for part in (train, test)]
    rows = [s[: end + 1] for s in named[1] for end in range(len(s) - 1, 0, -1)]
    (folder / "all_train_seq.txt").write_bytes(pickle.dumps(named[0]))
    (folder / "test.txt").write_bytes(pickle.dumps(([row[:-1] for row in rows], [row[-1] for row in rows])))
    for k, part in enumerate(("train", "test")):
        if times is not None:
            lines = "".join(",".join(map(repr, row)) + "\n" for row in times[k])
            (folder / f"{part}_timestamps.txt").write_text(lines)
    return folder


def content(folder):
    """(train, test) sessions, number of items, and times by session, as the folder's own reader finds them."""
    layout = recognise(folder)
    assert layout is not None
    dataset, times = read_timed(layout, "x", "0", text_times=True)
    whole = whole_sessions(dataset.test)
    assert whole is not None
    parts, stamps = [], []
    for k, sessions in enumerate((dataset.train, whole)):
        parts.append([part.tolist() for part in np.split(sessions.clicks, sessions.offsets[1:-1])])
        if times is not None:
            stamps.append([part.tolist() for part in np.split(times[k], sessions.offsets[1:-1])])
    return parts, dataset.items, stamps or None


@st.composite
def data_sets(draw):
    """Sessions of few items, so that sessions repeat, contain each other and share prefixes."""
    items = draw(st.integers(1, 6))
    session = st.lists(st.integers(0, items - 1), min_size=1, max_size=5)
    longer = st.lists(st.integers(0, items - 1), min_size=2, max_size=5)
    parts, times = [], []
    for _ in range(2):
        sessions = [*draw(st.lists(session, max_size=5)), draw(longer)]
        sessions = draw(st.permutations(sessions))
        parts.append(sessions)
        seconds = st.one_of(st.integers(0, 2**40).map(float), st.floats(-1e12, 1e12))
        times.append([sorted(draw(st.lists(seconds, min_size=len(s), max_size=len(s)))) for s in sessions])
    return (*parts, items + draw(st.integers(0, 3)), times if draw(st.booleans()) else None)


@settings(max_examples=60, deadline=None)
@given(data=data_sets(), chain=st.lists(st.sampled_from(list(FORMATS)), min_size=1, max_size=3), pickled=st.booleans())
def test_nothing_is_lost_on_the_way_through_any_formats(data, chain, pickled):
    train, test, items, times = data
    if pickled:  # pickles hold no test session of one click
        if times is not None:
            times = [times[0], [row for row in times[1] if len(row) > 1]]
        test = [session for session in test if len(session) > 1]
    with tempfile.TemporaryDirectory() as name:
        folder = (place_pickles if pickled else place)(Path(name) / "source", train, test, items, times)
        notes = []
        for k, to in enumerate([*chain, "text"]):
            notes += convert(str(folder), to, Path(name) / f"step{k}")
            folder = Path(name) / f"step{k}"
        parts, found, stamps = content(folder)
    # What a format can't hold is all that may be missing, and it was said.
    short = {"srgnn": (1,), "inter-sequence": (0, 1)}
    dropped = {k for to in chain for k in short.get(to, ())}
    expected = [[s for s in part if len(s) > 1 or k not in dropped] for k, part in enumerate((train, test))]
    assert parts == expected
    assert found == items
    assert any("of one click" in note for note in notes) == (expected != [train, test])
    if times is None:
        assert stamps is None
    else:
        assert stamps == [[s for s in part if len(s) > 1 or k not in dropped] for k, part in enumerate(times)]
    assert not any("left out: the times" in note for note in notes)


def test_the_files_of_each_format(tmp_path):
    source = place(tmp_path / "s", [[0, 1, 2], [3]], [[2, 0]], 5, [[[1.0, 2.5, 3.0], [4.0]], [[5.0, 6.0]]])
    for to in FORMATS:
        convert(str(source), to, tmp_path / to / "shop")
    srgnn = tmp_path / "srgnn" / "shop"
    assert sorted(path.name for path in srgnn.iterdir()) == [
        "all_train_seq.txt", "num_items.txt", "test.txt", "test_timestamps.txt", "train.txt", "train_timestamps.txt",
    ]  # fmt: skip
    assert (srgnn / "train_timestamps.txt").read_text() == "1,2.5,3\n4\n"
    assert (srgnn / "test_timestamps.txt").read_text() == "5,6\n"
    assert pickle.loads((srgnn / "all_train_seq.txt").read_bytes()) == [[1, 2, 3], [4]]
    assert pickle.loads((srgnn / "train.txt").read_bytes()) == ([[1, 2], [1]], [3, 2])
    assert pickle.loads((srgnn / "test.txt").read_bytes()) == ([[3]], [1])
    assert (tmp_path / "inter/shop/shop.train.inter").read_text() == (
        "session_id:token\titem_id:token\ttimestamp:float\n1\t1\t1\n1\t2\t2.5\n1\t3\t3\n2\t4\t4\n"
    )
    assert (tmp_path / "inter-sequence/shop/shop.train.inter").read_text() == (
        "session_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp_list:float_seq\ttimestamp:float\n"
        "1\t1 2\t3\t1 2.5\t3\n1\t1\t2\t1\t2.5\n"
    )
    assert (tmp_path / "text/shop/train_timestamps.txt").read_text() == "1,2.5,3\n4\n"


def test_a_converted_data_set_is_loaded_by_name(tmp_path):
    source = place(tmp_path / "s", [[0, 1, 2], [3, 3]], [[2, 0]], 5)
    first = load("s", tmp_path)
    for to in FORMATS:
        convert(str(source), to, tmp_path / to)
        dataset = load(to, tmp_path)
        assert dataset.train.clicks.tolist() == first.train.clicks.tolist()
        assert dataset.test.targets.tolist() == first.test.targets.tolist()
        assert dataset.items == 5
        assert dataset.first_id == int(to != "text")


def test_examples_that_are_not_all_prefixes_need_a_format_of_examples(tmp_path):
    (tmp_path / "s").mkdir()
    test = ([[1, 2], [4, 1], [1]], [3, 2, 3])  # the first without its shorter prefix
    (tmp_path / "s/all_train_seq.txt").write_bytes(pickle.dumps([[1, 2, 3, 4]]))
    (tmp_path / "s/test.txt").write_bytes(pickle.dumps(test))
    for to in ("text", "inter", "parquet"):
        with pytest.raises(DissectError, match="choose srgnn or inter-sequence"):
            convert(str(tmp_path / "s"), to, tmp_path / "out")
    convert(str(tmp_path / "s"), "inter-sequence", tmp_path / "a")
    convert(str(tmp_path / "a"), "srgnn", tmp_path / "b")
    assert pickle.loads((tmp_path / "b/test.txt").read_bytes()) == test


def test_times_stay_behind_only_where_pickles_would_join_two_sessions(tmp_path):
    (tmp_path / "s").mkdir()
    head = "session_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp_list:float_seq\ttimestamp:float\n"
    (tmp_path / "s/s.train.inter").write_text(head + "1\t1 2\t3\t1 2\t3\n")
    (tmp_path / "s/s.test.inter").write_text(head + "2\t1 2\t3\t5 6\t7\n3\t3 1\t2\t8 8\t9\n")
    lines = convert(str(tmp_path / "s"), "srgnn", tmp_path / "told")
    assert lines == [f"{tmp_path}/told: 1 training and 2 test sessions of s (3 items, with times) as srgnn"]
    assert (tmp_path / "told/test_timestamps.txt").read_text() == "5,6,7\n8,8,9\n"
    # The second row continues the first one's items at other times: it is of another session.
    (tmp_path / "s/s.test.inter").write_text(head + "2\t1 2\t3\t5 6\t7\n3\t1\t2\t8\t9\n")
    lines = convert(str(tmp_path / "s"), "srgnn", tmp_path / "joined")
    assert "without times" in lines[0]
    assert lines[-1].startswith("left out: the times; as pickles, some test examples can't be told")
    assert not list((tmp_path / "joined").glob("*timestamps*"))


def test_what_prepare_made_as_pickles_keeps_its_times(tmp_path):
    raw = tmp_path / "train-item-views.csv"
    days = [(f"2016-05-{1 + s // 20:02d}", s) for s in range(300)]
    rows = "".join(f"{s};NA;{s % 3 + k};{1000 * (s + k)};{day}\n" for day, s in days for k in range(3))
    raw.write_text("sessionId;userId;itemId;timeframe;eventdate\n" + rows)
    prepare(recipe("diginetica"), raw, tmp_path / "made", lambda line: None, quiet=True)
    convert(str(tmp_path / "made"), "text", tmp_path / "text")
    for name in ("train_timestamps.txt", "test_timestamps.txt"):
        assert (tmp_path / "text" / name).read_text() == (tmp_path / "made" / name).read_text()
    convert(str(tmp_path / "text"), "srgnn", tmp_path / "back")
    for name in ("train_timestamps.txt", "test_timestamps.txt"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()


@pytest.mark.parametrize("to", ["text", "srgnn", "inter", "parquet"])
def test_the_names_of_items_come_along(tmp_path, to):
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.txt").write_text("0,1,2\n2,1\n")
    (source / "test.txt").write_text("1,2\n")
    (source / "items.txt").write_text("hat\ncoat\nshoe\n")
    assert any("taken along" in line for line in convert(str(source), to, tmp_path / "out"))
    assert (tmp_path / "out/items.txt").read_text() == "hat\ncoat\nshoe\n"
    (source / "items.txt").write_text("hat\n")
    assert any("not a name for each of the 3" in line for line in convert(str(source), to, tmp_path / "short"))
    assert not (tmp_path / "short/items.txt").exists()


@pytest.mark.parametrize("layout", [place, place_pickles])
@pytest.mark.parametrize("part", ["train", "test"])
def test_one_file_of_times_alone_is_told(tmp_path, layout, part):
    source = layout(tmp_path / "s", [[0, 1]], [[1, 0]], 2, [[[1.0, 2.0]], [[3.0, 4.0]]])
    other = {"train": "test", "test": "train"}[part]
    (source / f"{part}_timestamps.txt").unlink()
    with pytest.raises(DissectError, match=f"s: there is {other}_timestamps.txt and no {part}_timestamps.txt; add it"):
        convert(str(source), "parquet", tmp_path / "out")
    assert load("s", tmp_path).items == 2  # a run doesn't need them


@pytest.mark.parametrize("wrong", ["last", "order", "none"])
def test_whole_sessions_knows_what_is_no_expansion(wrong):
    every = expand(Sessions(np.array([4, 5, 6, 9, 8, 7]), np.array([0, 3, 4, 6])))
    sessions = whole_sessions(every)
    assert sessions is not None
    assert sessions.offsets.tolist() == [0, 3, 4, 6]
    keep = {"last": [0, 2], "order": [1, 0, 2], "none": []}[wrong]
    assert whole_sessions(Examples(every.clicks, every.start[keep], every.end[keep], every.session[keep])) is None


def test_worlds_where_only_the_last_click_counts_are_refused_and_the_demo_is_not(tmp_path):
    with pytest.raises(DissectError, match="only the last click"):
        convert("last-item", "srgnn", tmp_path / "out")
    convert("demo", "parquet", tmp_path / "demo")
    assert load("demo").train.clicks.tolist() == load_folder(tmp_path / "demo").train.clicks.tolist()


def load_folder(folder):
    layout = recognise(folder)
    assert layout is not None
    return read_timed(layout, folder.name, "0")[0]


def test_what_is_there_is_never_written_over(tmp_path):
    source = place(tmp_path / "s", [[0, 1]], [[1, 0]], 2)
    (tmp_path / "out").mkdir()
    convert(str(source), "text", tmp_path / "out")  # an empty folder is taken
    with pytest.raises(DissectError, match="exists already and is not empty"):
        convert(str(source), "text", tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DissectError, match="exists already"):
        convert(str(source), "text", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(DissectError, match=r"unknown format 'csv'; choose one of: text, srgnn"):
        convert(str(source), "csv", tmp_path / "x")
    with pytest.raises(DissectError, match=r"unknown data set .*s2"):
        convert(str(tmp_path / "s2"), "text", tmp_path / "x")


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, to):
    source = place(tmp_path / "s", [[0, 1]], [[1, 0]], 2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    (tmp_path / "mine").mkdir()
    for out in ("out", "x/y/out", "mine/x/out"):
        with pytest.raises(DissectError, match=r"can't write .*out: No space left"):
            convert(str(source), to, tmp_path / out)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["mine", "s"]


def test_folders_made_on_the_way_stay_where_something_else_lies_in_them(tmp_path, monkeypatch):
    source = place(tmp_path / "s", [[0, 1]], [[1, 0]], 2)

    def full(*_):
        (tmp_path / "x/other").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DissectError, match="No space left"):
        convert(str(source), "text", tmp_path / "x/y/out")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["other"]


@pytest.mark.parametrize("to", FORMATS)
def test_too_little_disk_is_said_before_anything_is_written(tmp_path, monkeypatch, to):
    source = place(tmp_path / "s", [[0, 1]] * 3000, [[1, 0]], 2, [[[1.0, 2.0]] * 3000, [[3.0, 4.0]]])
    convert(str(source), to, tmp_path / "there")
    taken = sum(path.stat().st_size for path in (tmp_path / "there").iterdir())
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: type("Usage", (), {"free": taken - 1})())
    line = rf"out: s as {to} takes 0\.\d MB and 0\.\d MB are free; make room"
    with pytest.raises(DissectError, match=line) as caught:
        convert(str(source), to, tmp_path / "x/out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "there"]


@pytest.mark.parametrize("items", [200, 30_000, 100_000])
@pytest.mark.parametrize("to", FORMATS)
def test_the_estimate_of_the_bytes_is_near_and_above(tmp_path, to, items):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, 2_000)
    clicks = rng.integers(0, items, lengths.sum())
    sessions = [part.tolist() for part in np.split(clicks, np.cumsum(lengths)[:-1])]
    times = [(1_463_097_610 + 100 * k + np.arange(n)).astype(float).tolist() for k, n in enumerate(lengths)]
    parts = (sessions[:1600], sessions[1600:])
    for stamps in (None, (times[:1600], times[1600:])):
        source = place(tmp_path / f"s{stamps is None}", *parts, items, stamps)
        layout = recognise(source)
        assert layout is not None
        estimate = estimated_bytes(to, *read_timed(layout, "x", "0", text_times=True))
        convert(str(source), to, tmp_path / f"o{stamps is None}")
        taken = sum(path.stat().st_size for path in (tmp_path / f"o{stamps is None}").iterdir())
        assert taken <= estimate <= taken * (5 if to == "parquet" else 1.6) + 4096


def test_the_working_directory_can_be_the_folder(tmp_path, monkeypatch):
    source = place(tmp_path / "s", [[0, 1]], [[1, 0]], 2)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(str(source), "inter", ".")
    assert (tmp_path / "here/here.train.inter").is_file()


def test_single_files_and_recboles_validation_part(tmp_path):
    (tmp_path / "a").mkdir()
    rows = "".join(f"{s}\t{s % 3}\t{10 * s + k}\n" for s in range(10) for k in range(2))
    (tmp_path / "a/a.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    parts, _, times = content(tmp_path / "a")
    assert parts[1] == [[2, 2], [0, 0]]  # the last fifth
    assert times is not None
    assert times[1] == [[80.0, 81.0], [90.0, 91.0]]
    (tmp_path / "b").mkdir()
    for part, session in (("train", [1, 2]), ("valid", [2, 2]), ("test", [2, 1])):
        rows = "".join(f"1\t{item}\n" for item in session)
        (tmp_path / f"b/x.{part}.inter").write_text("session_id:token\titem_id:token\n" + rows)
    assert content(tmp_path / "b")[0] == [[[0, 1], [1, 1]], [[1, 0]]]


def test_srgnns_own_folder_is_written_as_srgnn_wrote_it(tmp_path):
    golden = DATA / "diginetica-sample/golden"
    if not golden.is_dir():
        pytest.skip("DISSECT_DATA does not name a directory with diginetica-sample")
    convert(str(golden), "text", tmp_path / "text")
    convert(str(tmp_path / "text"), "srgnn", tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["all_train_seq.txt", "test.txt", "train.txt"]
    for name in ("all_train_seq.txt", "train.txt", "test.txt"):
        ours, theirs = (pickle.loads((folder / name).read_bytes()) for folder in (tmp_path / "back", golden))
        assert [list(part) for part in ours] == [list(part) for part in theirs]


def test_real_text_with_times_comes_back_the_same(tmp_path):
    if not (DATA / "gowalla-tail").is_dir():
        pytest.skip("DISSECT_DATA does not name a directory with gowalla-tail")
    source = tmp_path / "part"
    source.mkdir()
    for name in ("sessions.txt", "timestamps.txt"):
        lines = (DATA / "gowalla-tail" / name).read_text().splitlines()[:500]
        (source / name).write_text("\n".join(lines) + "\n")
    shutil.copy(DATA / "gowalla-tail/num_items.txt", source)
    convert(str(source), "text", tmp_path / "text")
    for to in ("inter", "inter-sequence", "parquet"):
        convert(str(source), to, tmp_path / to)
        assert content(tmp_path / to) == content(source)
        assert content(tmp_path / to)[2] is not None
