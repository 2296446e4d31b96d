"""Preparations against published results, and what holds of every one: account, folder, repeatability."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from dissect.cli.data import data_prepare
from dissect.data import load
from dissect.data.prepare import archive, progress, write
from dissect.data.prepare.own import own
from dissect.data.prepare.prepare import prepare
from dissect.data.prepare.recipes import RECIPES, recipe
from dissect.data.prepare.steps import Items, Repeat, Sessions, TopItems
from dissect.errors import DissectError

DATA = Path(os.environ.get("DISSECT_DATA") or "missing")
COLUMNS = "session=s,item=i,time=t"
TABLE = "s,i,t\n" + "".join(f"{s},{i},{100 * s + i}\n" for s in range(10) for i in range(3))


def make(name: str, raw: Path, out: Path) -> dict:
    return prepare(recipe(name), raw, out, lambda line: None, quiet=True)


def sample(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"DISSECT_DATA does not name a directory with {name}")
    return DATA / name


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "raw.csv").write_text(TABLE)
    return tmp_path / "raw.csv"


def test_the_sample_of_diginetica_gives_golden_byte_by_byte(tmp_path):
    folder = sample("diginetica-sample")
    report = make("diginetica", folder / "sample_train-item-views.csv", tmp_path / "out")
    for name in ("all_train_seq.txt", "train.txt", "test.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / "golden" / name).read_bytes(), name
    assert report["train"] == {"sessions": 469, "clicks": 1_674, "items": 309, "prefixes": 1_205}
    assert report["test"]["prefixes"] == 99
    assert load("out", tmp_path, cache=False).sha256 == load("golden", folder, cache=False).sha256


def test_the_sample_of_diginetica_in_lessr_preparation(tmp_path):
    """The files that LESSR's own preprocess_diginetica writes of the sample.

    https://github.com/twchen/lessr, utils/data/preprocess.py under pandas 3, its two outdated calls of pandas replaced,
    the sample's header with sessionId, itemId as there.
    """
    make("diginetica-lessr", sample("diginetica-sample") / "sample_train-item-views.csv", tmp_path / "out")
    found = {name: hashlib.sha256((tmp_path / "out" / f"{name}.txt").read_bytes()).hexdigest()[:16] for name in LESSR}
    assert found == LESSR


LESSR = {"train": "a4907ac18917b3c2", "test": "3af87790920d48e8", "num_items": "226f76b55acb4970"}


def gowalla_by_hand(sessions: list[list[tuple[int, str]]]) -> tuple[list[list[str]], list[list[str]]]:
    """The Gowalla preparation, one rule after the other over lists; each session of the tail is a user's whole log."""
    parts: list[list[tuple[int, str]]] = []
    for log in sessions:
        before = None
        for clock, item in log:
            if before is None or clock - before > 86_400:
                parts.append([])
            parts[-1].append((clock, item))
            before = clock
    parts = [[c for k, c in enumerate(part) if k == 0 or part[k - 1][1] != c[1]][:20] for part in parts]
    assert len({item for part in parts for _, item in part}) < 30_000  # so that "the top 30,000" is all of them
    size = -1
    while size != (size := sum(map(len, parts))):
        parts = [part for part in parts if len(part) >= 2]
        counts = Counter(item for part in parts for _, item in part)
        parts = [kept for part in parts if (kept := [c for c in part if counts[c[1]] >= 5])]
    parts = sorted(parts, key=lambda part: part[-1][0])
    cut = len(parts) - int(len(parts) * 0.2)
    seen = {item for part in parts[:cut] for _, item in part}
    test = [kept for part in parts[cut:] if len(kept := [c for c in part if c[1] in seen]) >= 2]
    test.sort(key=lambda part: part[-1][0])
    train, test = ([[item for _, item in part] for part in half] for half in (parts[:cut], test))
    return train, test


def test_the_tail_of_gowalla_as_a_raw_log(tmp_path):
    folder = sample("gowalla-tail")
    words = [line.split(",") for line in (folder / "sessions.txt").read_text().split()]
    clocks = [[int(float(t)) for t in line.split(",")] for line in (folder / "timestamps.txt").read_text().split()]
    logs = [list(zip(*pair, strict=True)) for pair in zip(clocks, words, strict=True)]
    with open(tmp_path / "raw.txt", "w") as file:
        for user, log in enumerate(logs):
            for clock, item in reversed(log):  # as in the raw file; no two clicks of a session have one time
                file.write(f"{user}\t{datetime.fromtimestamp(clock, timezone.utc):%Y-%m-%dT%H:%M:%SZ}\t0\t0\t{item}\n")
    report = make("gowalla", tmp_path / "raw.txt", tmp_path / "out")
    steps = {step["step"]: step["after"] for step in report["steps"]}
    gaps = sum(b - a > 86_400 for row in clocks for a, b in pairwise(row))
    assert steps["a new session after a gap of more than 1 day"]["sessions"] == 57_492 + gaps
    assert steps["sort by time"] == {"users": 57_492, "clicks": 212_824, "items": len({i for w in words for i in w})}
    raw = (tmp_path / "out/items.txt").read_text().split()
    for name, expected in zip(("train", "test"), gowalla_by_hand(logs), strict=True):
        lines = (tmp_path / f"out/{name}.txt").read_text().split()
        assert [[raw[int(i)] for i in line.split(",")] for line in lines] == expected, name


def test_of_equally_frequent_items_the_first_in_the_clicks_are_the_top():
    clicks = pl.DataFrame({"session": [0, 0, 0, 1, 1, 1], "item": [7, 5, 9, 9, 3, 5], "time": range(6)})
    assert TopItems(2).apply(clicks)["item"].to_list() == [5, 9, 9, 5]
    assert TopItems(3).apply(clicks)["item"].to_list() == [7, 5, 9, 9, 5]


def test_repeated_rules_go_on_until_nothing_changes():
    # Item 1 falls below three clicks when session 1 goes, which goes when item 2 does; then item 3, and all is gone.
    clicks = pl.DataFrame({"session": [0, 0, 1, 1, 2, 2, 2], "item": [1, 1, 1, 2, 3, 3, 3], "time": range(7)})
    assert Repeat((Sessions(2), Items(3))).apply(clicks)["session"].to_list() == [2, 2, 2]


def test_a_share_is_told_as_it_was_given():
    for given in ("20%", "12.5%", "29%", "0.25%"):
        assert own(COLUMNS, test=given).split.text.startswith(f"test: the last {given} of the sessions")


def test_the_same_file_gives_the_same_bytes(tmp_path, table):
    for out in ("a", "b"):
        prepare(own(COLUMNS), table, tmp_path / out, lambda line: None, quiet=True)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "items.txt", "num_items.txt", "preparation.json", "test.txt", "test_timestamps.txt", "train.txt",
        "train_timestamps.txt",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_account(tmp_path, table):
    said: list[str] = []
    report = prepare(own(COLUMNS), table, tmp_path / "out", said.append, quiet=True)
    assert report == json.loads((tmp_path / "out/preparation.json").read_text())
    assert report["input"]["sha256"] == hashlib.sha256(TABLE.encode()).hexdigest()
    for name, sha256 in report["output"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == sha256
    assert sorted(report["versions"]) == ["dissect", "numpy", "polars", "pyarrow", "python"]
    assert report["versions"]["polars"] == pl.__version__
    assert report["versions"]["python"] == platform.python_version()
    assert report["input"]["columns"] == {"session": "s", "item": "i", "time": "t"}
    assert report["input"]["times"] == "a UNIX time in seconds"
    assert report["steps"][3] == {
        "step": "training part (test: the last 20% of the sessions by the time of their last click)",
        "before": {"sessions": 10, "clicks": 30, "items": 3},
        "after": {"sessions": 8, "clicks": 24, "items": 3},
    }
    assert "  test part: sessions 10 -> 2, clicks 30 -> 6, items 3" in said
    assert "  sort by time: sessions 10, clicks 30, items 3; clicks out of order 0" in said


def test_the_account_of_repeated_rules(tmp_path):
    """Each pass by hand, with items of three clicks or more; A and B have many, C and D three.

    First pass: session 9 goes, then C with two clicks left. Second: sessions 7 and 8 of a D each go, then D with one
    click left. Third: session 6 of an A goes. Fourth: nothing.
    """
    sessions = {**dict.fromkeys(range(6), "AB"), 6: "AD", 7: "CD", 8: "CD", 9: "C"}
    rows = [(s, item) for s, items in sessions.items() for item in items]
    (tmp_path / "raw").write_text("s,i,t\n" + "".join(f"{s},{i},{100 * s + k}\n" for k, (s, i) in enumerate(rows)))
    said: list[str] = []
    report = prepare(own(COLUMNS, item_clicks=3), tmp_path / "raw", tmp_path / "out", said.append, quiet=True)
    rule = "sessions of 2 clicks or more and items of 3 clicks or more, repeated until nothing changes"
    [step] = [step for step in report["steps"] if step["step"] == rule]
    assert step == {
        "step": rule,
        "before": {"sessions": 10, "clicks": 19, "items": 4},
        "after": {"sessions": 6, "clicks": 12, "items": 2},
        "passes": 4,
        "taken": {
            "sessions of 2 clicks or more": {"sessions": 4, "clicks": 4, "items": 0},
            "items of 3 clicks or more": {"sessions": 0, "clicks": 3, "items": 2},
        },
    }
    at = said.index(f"  {rule}: sessions 10 -> 6, clicks 19 -> 12, items 4 -> 2; passes 4")
    assert said[at + 1 : at + 3] == [
        "    taken by sessions of 2 clicks or more: sessions 4, clicks 4, items 0",
        "    taken by items of 3 clicks or more: sessions 0, clicks 3, items 2",
    ]


def test_an_earlier_preparation_is_replaced_only_when_told_and_other_files_never(tmp_path, table):
    def go(force: bool) -> None:
        prepare(own(COLUMNS), table, tmp_path / "out", lambda line: None, force, quiet=True)

    (tmp_path / "out").mkdir()  # an empty folder is taken
    go(False)
    first = (tmp_path / "out/train.txt").read_text()
    table.write_text(TABLE.replace(",2,", ",9,"))
    with pytest.raises(DissectError, match="earlier preparation: give --force"):
        go(False)
    assert (tmp_path / "out/train.txt").read_text() == first
    go(True)
    assert (tmp_path / "out/items.txt").read_text() == "0\n1\n9\n"
    (tmp_path / "out/preparation.json").unlink()
    with pytest.raises(DissectError, match="files of another kind: it is never overwritten"):
        go(True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw.csv"]


def test_too_little_disk_is_said_before_anything_is_written(tmp_path, table, monkeypatch):
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(DissectError, match=r"out: the prepared data set takes 0\.0 MB and 0\.0 MB are free") as caught:
        prepare(own(COLUMNS), table, tmp_path / "out", lambda line: None, quiet=True)
    assert caught.value.status == 1
    assert [path.name for path in tmp_path.iterdir()] == ["raw.csv"]


def test_a_failure_halfway_leaves_nothing(tmp_path, table, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.os, "fsync", full)
    with pytest.raises(DissectError, match=r"can't write to .*out: No space left on device"):
        prepare(own(COLUMNS), table, tmp_path / "out", lambda line: None, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.csv"]


def test_folders_above_the_new_one_are_gone_after_a_failure_and_kept_after_success(tmp_path, table):
    (tmp_path / "kept").mkdir()
    for where, rows in (("a/b/out", 5), ("kept/c/out", 5), ("a/b/out", 31)):
        (tmp_path / "cut.csv").write_text("".join(TABLE.splitlines(keepends=True)[:rows]))
        try:
            prepare(own(COLUMNS), tmp_path / "cut.csv", tmp_path / where, lambda line: None, quiet=True)
        except DissectError:
            assert rows == 5
            assert sorted(path.name for path in tmp_path.rglob("*")) == ["cut.csv", "kept", "raw.csv"]
    assert (tmp_path / "a/b/out/train.txt").is_file()


def test_an_interruption_leaves_nothing_and_a_kill_is_cleaned_up_after(tmp_path, table):
    """The process stops itself after the first line of its account: by SIGINT, then by SIGKILL."""
    code = (
        # A shell may have had its background jobs ignore SIGINT, and their children inherit that.
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\nfrom dissect.data.prepare.own import own\n"
        "from dissect.data.prepare.prepare import prepare\n"
        "lines = []\n"
        "def say(line):\n    lines.append(line)\n    len(lines) == 3 and os.kill(os.getpid(), int(sys.argv[3]))\n"
        f"prepare(own({COLUMNS!r}), Path(sys.argv[1]), Path(sys.argv[2]), say, quiet=True)\n"
    )
    for number in (signal.SIGINT, signal.SIGKILL):
        run = [sys.executable, "-c", code, str(table), str(tmp_path / "out"), str(int(number))]
        assert subprocess.run(run, capture_output=True, check=False).returncode != 0
        left = [path.name for path in tmp_path.iterdir() if path.name != "raw.csv"]
        assert "out" not in left
        assert bool(left) == (number == signal.SIGKILL)
    prepare(own(COLUMNS), table, tmp_path / "out", lambda line: None, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw.csv"]


def command(*arguments: object):
    return CliRunner().invoke(data_prepare, [str(a) for a in arguments])


def test_the_command(tmp_path, table):
    result = command("--raw", table, "--out", tmp_path / "out", "--columns", COLUMNS, "--item-clicks", 1, "--json")
    assert result.exit_code == 0, result.output
    assert f"run on it with --dataset out --data-dir {tmp_path}" in result.output
    assert json.loads(result.output.splitlines()[-1])["train"]["sessions"] == 8
    assert len(load("out", tmp_path, cache=False).train) == 8


def test_the_command_names_what_does_not_fit_together(tmp_path, table):
    where = ("--raw", table, "--out", tmp_path / "out")
    for arguments, cause in (
        (("gowalla", "--gap", "1d", "--test", "10%"), r"--gap, --test: for tables of your own; leave out the name"),
        (("gowala",), r"no preparation called 'gowala' \(did you mean gowalla\?\); choose one of: diginetica, "),
        ((), r"no name given; choose one of: .* or describe a table with --columns"),
    ):
        error = command(*arguments, *where).exception
        assert isinstance(error, DissectError)
        with pytest.raises(DissectError, match=cause):
            raise error


def test_the_help_lists_every_recipe():
    text = " ".join(command("--help").output.split())
    assert ", ".join(RECIPES) in text


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.Bar("reading", 4) as bar:
        bar.advance(1)
        bar.advance(3)
    assert capsys.readouterr().err == "reading: 25%, about 0 s left\nreading: 100%, about 0 s left\n"
    with progress.Bar("reading", 4, quiet=True) as bar:
        bar.advance(4)
    assert capsys.readouterr().err == ""


def test_the_measuring_file_is_prepared_as_last_fm_is(tmp_path):
    rows = 20_000
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("lastfm_shape", Path(__file__).with_name("lastfm_shape.py"))
    assert spec is not None
    assert spec.loader is not None
    shape = module_from_spec(spec)
    spec.loader.exec_module(shape)
    shape.make(rows, tmp_path / "raw.tsv")
    report = make("lastfm", tmp_path / "raw.tsv", tmp_path / "out")
    assert report["steps"][0]["rows_without_item"] == pytest.approx(0.03 * rows, rel=0.2)
    assert report["steps"][0]["after"]["users"] == 992


def test_a_raw_file_that_changed_since_its_download_is_refused(tmp_path):
    raw = tmp_path / "log.csv"
    raw.write_text(TABLE)
    record = tmp_path / "log.csv.sha256"
    record.write_text(f"{hashlib.sha256(raw.read_bytes()).hexdigest()}  log.csv\n")
    prepare(own(COLUMNS), raw, tmp_path / "out", lambda line: None, quiet=True)
    raw.write_text(raw.read_text() + "9,1,1000\n")
    with pytest.raises(DissectError, match=r"log.csv: SHA-256 \w{12}…, but log.csv.sha256 beside it says \w{12}…"):
        prepare(own(COLUMNS), raw, tmp_path / "other", lambda line: None, quiet=True)
    assert not (tmp_path / "other").exists()
