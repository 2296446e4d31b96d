from __future__ import annotations

import dataclasses
import hashlib
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dissect.data import load, split_validation
from dissect.data.cache import remember
from dissect.data.layouts import read, read_timed, recognise, split_rule
from dissect.data.sources import available, fetch, stats
from dissect.errors import DissectError

TRAIN = [[1, 2, 3], [3, 4], [5], [2, 2]]
TEST = ([[1, 2], [1], [4]], [3, 2, 5])


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISSECT_DATA", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def place_pickles(folder, train=TRAIN, test=TEST):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all_train_seq.txt").write_bytes(pickle.dumps(train))
    (folder / "test.txt").write_bytes(pickle.dumps(test))


def place_text(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)


def test_pickles_count_items_from_one(root):
    place_pickles(root / "mine")
    dataset = load("mine", data_dir=root)
    assert (dataset.items, dataset.first_id, dataset.source) == (5, 1, str(root / "mine"))
    assert dataset.train.clicks.tolist() == [0, 1, 2, 2, 3, 4, 1, 1]
    assert dataset.test.targets.tolist() == [2, 1, 4]


def test_text_counts_items_from_zero_with_and_without_their_number(root):
    place_text(root / "a", train="0,1\n2\n", test="1,3,0\n")
    assert (load("a", root).items, load("a", root).first_id) == (4, 0)
    place_text(root / "b", train="0,1\n2\n", test="1,3,0\n", num_items="9")
    dataset = load("b", root)
    assert dataset.items == 9
    assert len(dataset.train) == 2
    assert dataset.test.targets.tolist() == [0, 3]


def test_one_file_of_sessions_without_times_is_split_in_its_order(root):
    place_text(root / "a", sessions="".join(f"{i},{i + 1}\n" for i in range(10)))
    dataset = load("a", root)
    assert len(dataset.train) == 8
    assert dataset.test.targets.tolist() == [9, 10]
    assert split_rule(dataset.source) == (
        "the last 20% of the sessions in sessions.txt, in the file's order (there are no times)"
    )


#: Ten sessions of two clicks, on items s and s + 1, that end at these times: newest first, but for two of equal time.
ENDS = [90, 80, 80, 60, 50, 40, 30, 20, 10, 0]
#: The same, oldest first; of equal times the one that stands first in the file is first.
SORTED = [9, 8, 7, 6, 5, 4, 3, 1, 2, 0]


def newest_first(folder, form):
    folder.mkdir(parents=True)
    rows = [(s, s + k, end + k) for s, end in enumerate(ENDS) for k in range(2)]
    if form == "inter":
        head = "session_id:token\titem_id:token\ttimestamp:float\n"
        (folder / "x.inter").write_text(head + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    elif form == "sequence":
        head = "item_id_list:token_seq\titem_id:token\ttimestamp_list:float_seq\ttimestamp:float\n"
        lines = (f"{s}\t{s + 1}\t{end}\t{end + 1}\n" for s, end in enumerate(ENDS))
        (folder / "x.inter").write_text(head + "".join(lines))
    elif form == "parquet":
        names = ("session_id", "item_id", "timestamp")
        columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        pq.write_table(pa.table(columns), folder / "sessions.parquet")
    else:
        times = "".join(f"{end},{end + 1}\n" for end in ENDS)
        sessions = [[s, s + 1] for s in range(10)]
        if form == "text":
            place_text(folder, sessions="".join(f"{a},{b}\n" for a, b in sessions), timestamps=times)
        else:
            (folder / "sessions.txt").write_bytes(pickle.dumps([[a + 1, b + 1] for a, b in sessions]))
            (folder / "timestamps.txt").write_text(times)


@pytest.mark.parametrize("form", ["text", "pickle", "inter", "sequence", "parquet"])
def test_one_file_of_sessions_is_split_by_the_time_of_the_last_click(root, form):
    newest_first(root / "a", form)
    for _ in range(2):  # the second time from the parsed copy
        dataset = load("a", root)
        assert dataset.train.clicks[::2].tolist() == SORTED[:8]
        assert dataset.test.clicks[::2].tolist() == SORTED[8:]
        assert dataset.test.targets.tolist() == [s + 1 for s in SORTED[8:]]
        _, valid = split_validation(dataset.train)  # the next to last in time
        assert valid.clicks[::2].tolist() == SORTED[6:8]
    layout = recognise(root / "a")
    assert layout is not None
    times = read_timed(layout, "a", "")[1]
    assert times is not None
    assert [part[::2].tolist() for part in times] == [[ENDS[s] for s in part] for part in (SORTED[:8], SORTED[8:])]
    rule = f"the last 20% of the sessions in {layout.train.name}, by the time of their last click"
    assert split_rule(root / "a") == rule


def test_times_that_change_the_order_are_part_of_what_the_data_set_is(root):
    place_text(root / "a", sessions="".join(f"{i},{i + 1}\n" for i in range(10)))
    alone = load("a", root)
    # In order, with two of equal time: the data set is the one without times, and so is its parsed copy.
    place_text(root / "a", timestamps="".join(f"{max(i, 3)},{max(i, 3)}\n" for i in range(10)))
    assert load("a", root).sha256 == alone.sha256
    # Out of order: another one, though its sessions are the same, and not what was kept before.
    place_text(root / "a", timestamps="".join(f"{9 - i},{9 - i}\n" for i in range(10)))
    turned = load("a", root)
    assert turned.sha256 != alone.sha256
    assert turned.test.clicks.tolist() == [1, 2, 0, 1]
    place_text(root / "a", timestamps="".join(f"{(i + 5) % 10},{(i + 5) % 10}\n" for i in range(10)))
    assert load("a", root).test.clicks.tolist() == [3, 4, 4, 5]
    place_text(root / "a", timestamps="0,0\n" * 9 + "0,noon\n")
    with pytest.raises(DissectError, match=r"a/timestamps\.txt, line 10: 'noon' is not a time"):
        load("a", root)


def test_a_parsed_copy_of_a_table_split_in_the_files_order_is_not_used(root):
    newest_first(root / "a", "inter")
    layout = recognise(root / "a")
    assert layout is not None
    content = layout.train.read_bytes()
    before = hashlib.sha256(f"x.inter\0{len(content)}\0".encode() + content).hexdigest()  # no word of the split in it
    stale = dataclasses.replace(read(layout, "a", before), items=99)
    remember(stale)
    assert load("a", root).items == 11
    # Without times nothing has changed, and nothing is said.
    (root / "b").mkdir()
    content = b"session_id:token\titem_id:token\n" + b"".join(b"%d\t%d\n" % (i // 2, i) for i in range(20))
    (root / "b/x.inter").write_bytes(content)
    expected = hashlib.sha256(f"x.inter\0{len(content)}\0".encode() + content).hexdigest()
    assert load("b", root).sha256 == expected


def test_two_files_keep_their_order_whatever_the_times(root):
    place_text(root / "a", train="0,1\n2,3\n", test="1,0\n2,1\n")
    place_text(root / "a", train_timestamps="9,9\n1,1\n", test_timestamps="20,20\n10,10\n")
    dataset = load("a", root)
    assert dataset.train.clicks.tolist() == [0, 1, 2, 3]
    assert dataset.test.targets.tolist() == [0, 1]
    assert split_rule(dataset.source) is None
    assert split_rule("generated") is None


def test_the_kind_is_told_by_content_not_by_name(root):
    place_text(root / "a", all_train_seq="0,1\n", test="1,0\n")
    assert load("a", root).first_id == 0
    (root / "b").mkdir()
    (root / "b/train.txt").write_bytes(pickle.dumps(TEST))  # SR-GNN's train.txt: prefixes and targets
    (root / "b/test.txt").write_bytes(pickle.dumps(TEST, protocol=0))
    dataset = load("b", root)
    assert dataset.first_id == 1
    assert dataset.train.lengths.tolist() == [3, 2]


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        (
            {"train": "0,1\n2,5\n", "test": "0,1\n", "num_items": "5"},
            r"train\.txt, line 2: item id 5 .* 0 to 4",
        ),
        (
            {"train": "0,1\n", "test": "0,1\n1\n0,7\n", "num_items": "5"},
            r"test\.txt, line 3: item id 7 .* 0 to 4",
        ),
        ({"train": "0,1\n", "test": "0,1\n", "num_items": "many"}, r"num_items\.txt, line 1: 'many' is not"),
        ({"train": "0,1\n", "test": "0,1\n", "num_items": "0"}, r"num_items\.txt, line 1: '0' is not"),
        ({"sessions": "0,1\n"}, r"sessions\.txt: there is one session in it; 2 or more"),
        ({"train": "0\n1\n", "test": "0,1\n"}, "no training session"),
        ({"train": "0,1\n", "test": "0\n"}, "no test session"),
        ({"train": "0,1\n", "test": ""}, r"test\.txt: the file is empty"),
    ],
)
def test_faulty_text_folders(root, files, cause):
    place_text(root / "a", **files)
    with pytest.raises(DissectError, match=cause):
        load("a", root)


def test_a_test_id_that_training_does_not_know(root):
    place_pickles(root / "a", test=([[1, 2], [1]], [9, 2]))
    with pytest.raises(DissectError, match=r"test\.txt: item id 9 is out of range, 1 to 5"):
        load("a", root)


def test_pickle_and_text_do_not_mix(root):
    place_pickles(root / "a")
    (root / "a/test.txt").write_text("0,1\n")
    with pytest.raises(DissectError, match="both must be of one kind"):
        load("a", root)


def test_search_order(root, tmp_path, monkeypatch):
    monkeypatch.setenv("DISSECT_DATA", str(tmp_path / "env"))
    for place in (tmp_path / "cache", tmp_path / "env", root):
        place_pickles(place / "gowalla-tail")
        place_pickles(place / "own")
    for name in ("gowalla-tail", "own"):
        assert fetch(name, root) == root / name
        assert fetch(name) == tmp_path / "env" / name
    shutil.rmtree(root / "gowalla-tail")
    shutil.rmtree(root / "own")
    assert fetch("gowalla-tail", root) == tmp_path / "env/gowalla-tail"  # known by name: looked for further on
    with pytest.raises(DissectError, match=f"unknown data set 'own'; looked in {root}; choose one of: demo, "):
        load("own", root)  # not known by name: only where the user said
    shutil.rmtree(tmp_path / "env/own")
    assert fetch("own") == tmp_path / "cache/own"


def test_golden_lies_one_folder_deeper(root):
    place_pickles(root / "diginetica-sample/golden")
    assert fetch("diginetica-sample", root) == root / "diginetica-sample/golden"


def test_unknown_names_get_choices_and_a_near_name(root):
    place_pickles(root / "mine")
    with pytest.raises(DissectError, match=r"did you mean diginetica\?") as caught:
        load("diginetika", root)
    assert "yoochoose1_64" in str(caught.value)
    assert "mine" in str(caught.value)
    for name in ("", "..", "../data/mine"):
        with pytest.raises(DissectError, match="unknown data set"):
            load(name, root)
    with pytest.raises(DissectError, match=f"a name, not a folder: --dataset mine --data-dir {root}"):
        load(str(root / "mine"), root)


def test_what_is_not_there_says_what_to_do(root, tmp_path):
    with pytest.raises(DissectError, match=f"gowalla-tail is not in .*by hand in {root}/gowalla-tail"):
        load("gowalla-tail", root)
    with pytest.raises(DissectError, match="dissect data fetch diginetica"):
        load("diginetica", root, download=False)
    with pytest.raises(DissectError, match="does not exist"):
        load("diginetica", tmp_path / "nowhere")
    with pytest.raises(DissectError, match="made on the spot"):
        fetch("demo")
    (root / "tmall").mkdir()
    with pytest.raises(DissectError, match=r"tmall holds no data set: expected all_train_seq\.txt"):
        load("tmall", root)


def test_the_list_of_data_sets(root):
    place_text(root / "mine", train="0,1\n", test="1,0\n", num_items="7")
    rows = {row.name: row for row in available(root)}
    assert rows["mine"].where == str(root / "mine")
    assert rows["mine"].items == 7
    assert rows["tmall"].where == "download"
    assert rows["lessr-sample"].where == "place by hand"


def test_numbers_of_a_data_set_counted_by_hand(root):
    place_pickles(root / "a", test=([[1, 2], [1], [4], [3], [2]], [3, 2, 5, 4, 2]))
    assert stats(load("a", root)) == {
        "all_clicks": 17,  # 8 + 9: as in the paper's Table 1, training and test
        "all_prefixes": 9,
        "average_length": 17 / 8,
        "sessions": 4,
        "clicks": 8,
        "items": 5,
        "items_in_training": 5,
        "train_prefixes": 4,
        "test_prefixes": 5,
        "test_sessions": 4,
        "mean_length": 2.0,
        "median_length": 2.0,
        "max_length": 3,
        "share_with_repeats": 0.25,
        "share_distinct": 0.75,
        "repeat_rate": 1 / 4,
        "repeated_targets": 1,
        "unseen_targets": 0,
        "repeated_examples": 4,  # all but 4 -> 5
        "test_sessions_in_training": 3,
        "repeated_sessions": 0,
        "test_items": 5,
        "test_items_unseen": 0,
        "most_popular_share": 3 / 8,
        "top_1_percent_share": 3 / 8,  # of five items, one
        "top_10_percent_share": 3 / 8,
        "gini": pytest.approx(0.25),  # counts 3, 2, 1, 1, 1
    }


def parsed(tmp_path):
    return sorted(path for path in (tmp_path / "cache/parsed").iterdir())


def test_the_parsed_copy_is_mapped_and_equal(root, tmp_path):
    place_pickles(root / "a")
    first, again = load("a", root), load("a", root)
    assert isinstance(again.train.clicks.base, np.memmap)
    for one, other in ((first.train, again.train), (first.test, again.test)):
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (first.items, first.first_id, first.sha256) == (again.items, again.first_id, again.sha256)
    assert [path.name for path in parsed(tmp_path)] == [f"a-{first.sha256[:16]}"]


def test_changed_data_is_never_served_from_the_old_copy(root, tmp_path):
    place_pickles(root / "a")
    load("a", root)
    place_pickles(root / "a", train=[[1, 2, 3], [3, 5], [5], [2, 2]])
    assert load("a", root).train.clicks.tolist() == [0, 1, 2, 2, 4, 4, 1, 1]
    assert len(parsed(tmp_path)) == 2
    (root / "a/num_items.txt").write_text("8")
    assert load("a", root).items == 8


@pytest.mark.parametrize("how", ["truncate", "flip", "remove", "meta", "empty"])
def test_a_damaged_copy_is_rebuilt(root, tmp_path, how):
    place_pickles(root / "a")
    first = load("a", root)
    folder = parsed(tmp_path)[0]
    victim = folder / ("meta.json" if how == "meta" else "train_clicks.npy")
    content = victim.read_bytes()
    if how == "remove":
        victim.unlink()
    else:
        flipped = content[:-4] + bytes([content[-4] ^ 1]) + content[-3:]
        victim.write_bytes({"truncate": content[:-5], "flip": flipped, "meta": b"[]", "empty": b""}[how])
    assert load("a", root).train.clicks.tolist() == first.train.clicks.tolist()
    assert victim.read_bytes() == content
    assert parsed(tmp_path) == [folder]


def test_a_cache_that_cannot_be_written_is_left_out(root, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    place_pickles(root / "a")
    assert len(load("a", root).train) == 4


def test_no_cache_writes_nothing(root, tmp_path):
    place_pickles(root / "a")
    load("a", root, cache=False)
    assert not (tmp_path / "cache").exists()
