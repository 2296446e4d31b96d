"""A hand-made raw file for each data set in which every rule has something to do; the results are worked out by hand.

Items are letters. Where a comment says that an item or a session goes, the expectation has it gone.
"""

from __future__ import annotations

import json
import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest

from dissect.data import load
from dissect.data.prepare.prepare import prepare
from dissect.data.prepare.recipes import RECIPES, recipe

START = datetime(2014, 3, 1, tzinfo=timezone.utc)
DAY, MINUTE = 86_400, 60


def stamp(seconds: float) -> str:
    return f"{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def run(tmp_path: Path):
    def run(name: str, lines: list[str]) -> Path:
        (tmp_path / "raw").write_text("\n".join(lines) + "\n")
        prepare(recipe(name), tmp_path / "raw", tmp_path / name, lambda line: None, quiet=True)
        return tmp_path / name

    return run


def letters(folder: Path, name: str) -> list[str]:
    """The sessions of a text or pickle file, as words of raw ids."""
    ids = (folder / "items.txt").read_text().split()
    content = (folder / f"{name}.txt").read_bytes()
    if content.startswith(b"\x80"):
        return ["".join(ids[i - 1] for i in row) for row in pickle.loads(content)]
    return ["".join(ids[int(i)] for i in line.split(",")) for line in content.decode().split()]


def examples(folder: Path, name: str) -> list[str]:
    """The prefixes and targets of a pickle, as ``AB>C``."""
    ids = (folder / "items.txt").read_text().split()
    rows, targets = pickle.loads((folder / f"{name}.txt").read_bytes())
    return ["".join(ids[i - 1] for i in row) + ">" + ids[t - 1] for row, t in zip(rows, targets, strict=True)]


def steps(folder: Path) -> dict[str, dict]:
    return {step["step"]: step for step in json.loads((folder / "preparation.json").read_text())["steps"]}


def digi(session: int, clicks: str, day: str, first: int = 0) -> list[str]:
    """Clicks a second apart; the file has the last one first."""
    rows = [f"{session};NA;{item};{first + 1000 * k};2016-05-{day}" for k, item in enumerate(clicks)]
    return rows[::-1]


DIGINETICA = [
    "sessionId;userId;itemId;timeframe;eventdate",
    *digi(1, "ABEE", "02"),  # E: four clicks in sessions of two or more, which is too few
    *digi(2, "ABC", "01"),  # C: two clicks
    *digi(3, "A", "01"),  # one click: goes
    *digi(9, "E", "01"),  # E's fifth click, gone with its session before items are counted
    *digi(4, "AC", "01"),  # A alone is left: goes
    "5;NA;E;3000;2016-05-30",  # the date of a session is that of its last row in the file, three lines below
    "5;NA;A;1000;2016-05-02",
    "5;NA;E;2000;2016-05-02",
    "5;NA;B;0;2016-05-02",
    *digi(6, "AB", "13"),  # exactly seven days before the last day: in neither part
    *digi(7, "BD", "20"),  # D is unknown to training; B alone is left: goes
    *digi(8, "DDDDAB", "20"),
]


def test_diginetica(run):
    folder = run("diginetica", DIGINETICA)
    assert letters(folder, "all_train_seq") == ["AB", "AB", "BA"]  # sessions 2, 1, 5
    assert pickle.loads((folder / "all_train_seq.txt").read_bytes()) == [[1, 2], [1, 2], [2, 1]]
    assert examples(folder, "train") == ["A>B", "A>B", "B>A"]
    assert examples(folder, "test") == ["A>B"]
    assert (folder / "test_timestamps.txt").read_text() == "1463702404,1463702405\n"  # 2016-05-20 and 4, 5 seconds
    assert steps(folder)["sort by timeframe"]["clicks_out_of_order"] == 3 + 2 + 1 + 2 + 1 + 1 + 5


def test_diginetica_as_parquet_with_days_as_such(tmp_path, run):
    folder = run("diginetica", DIGINETICA)
    frame = pl.read_csv(tmp_path / "raw", separator=";", try_parse_dates=True)
    assert frame.schema["eventdate"] == pl.Date
    frame.write_parquet(tmp_path / "raw.parquet")
    prepare(recipe("diginetica"), tmp_path / "raw.parquet", tmp_path / "again", lambda line: None, quiet=True)
    for path in folder.glob("*.txt"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_diginetica_lessr(run):
    lines = [
        "session_id;user_id;item_id;timeframe;eventdate",
        *digi(10, "AB", "01", first=1000),
        *digi(9, "BA", "01", first=5000),  # 9 before 10, so that B is item 0; but it ends later
        *digi(11, "AB" * 10 + "ACCCCC", "02"),  # A and C are cut off behind the twentieth click
        *digi(12, "CAEEBEEA", "03"),  # so that C's one click here is too few; E: four
        *digi(13, "A", "03"),
        *digi(18, "E", "03"),  # E's fifth click, gone with its session before items are counted
        *digi(19, "AC", "03"),  # A alone is left: goes
        *digi(15, "AB", "13", first=10_999),  # ends exactly seven days before the last click: a test session
        *digi(14, "AB", "13", first=10_998),  # and this a millisecond earlier: training
        *digi(16, "DDDDDB", "20"),  # D is unknown to training: goes, with its session
        *digi(17, "DAB", "20", first=9_999),
    ]
    folder = run("diginetica-lessr", lines)
    assert letters(folder, "train") == ["AB", "BA", "AB" * 10, "ABA", "AB"]  # 10, 9, 11, 12, 14
    assert (folder / "train.txt").read_text().startswith("1,0\n0,1\n")
    assert letters(folder, "test") == ["AB", "AB"]
    assert (folder / "num_items.txt").read_text() == "2"
    assert (folder / "test_timestamps.txt").read_text().splitlines()[0] == "1463097610.999,1463097611.999"


def log(user: str, clicks: list[tuple[float, str]], pattern: str) -> list[str]:
    """A user's clicks, the last one first as in both logs."""
    return [pattern.format(user=user, time=stamp(t), item=item) for t, item in reversed(clicks)]


def every(start: float, items: str, step: float = MINUTE) -> list[tuple[float, str]]:
    return [(start + k * step, item) for k, item in enumerate(items)]


def listening(gap: float, pattern: str) -> list[str]:
    """Users whose sessions, in the order of their ends, are QP, PQPQ..., PQ, QP, PP, PQP, QP, PQ.

    The last two end at once. They keep the order of their users, so that the fifth that is for testing, which is one
    of eight sessions, is u9's.
    """
    return [
        # The second P at once is a repeat. The gap itself does not end a session, a second more does.
        *log("u1", [*every(0, "PPQ"), (120 + gap, "P"), (121 + 2 * gap, "Q"), (150 + 2 * gap, "P")], pattern),
        *log("u2", every(10, "QPX", 1), pattern),
        *log("u3", every(200, "PQX"), pattern),
        *log("u4", every(500, "QXPR"), pattern),  # R: two clicks
        *log("u5", every(600, "R"), pattern),
        *log("u6", every(900, "PZPX"), pattern),  # Z goes after repeats are removed, so that PP stays
        *log("u7", every(30, "XY"), pattern),  # Y goes, then this session, then X with its four clicks that are left
        *log("u8", every(20, "P" + "PQ" * 10 + "P", 1), pattern),  # a repeat, without which the 21st click goes
        *log("u9", [(149 + 2 * gap, "P"), (150 + 2 * gap, "Q")], pattern),
    ]  # fmt: skip


def test_gowalla(run):
    folder = run("gowalla", listening(DAY, "{user}\t{time}\t30.2\t-97.7\t{item}"))
    assert letters(folder, "train") == ["QP", "PQ" * 10, "PQ", "QP", "PP", "PQP", "QP"]
    assert letters(folder, "test") == ["PQ"]  # int(8 * 0.2)
    assert (folder / "train.txt").read_text().startswith("1,0\n0,1,")  # numbered by user: u1 begins with P
    assert (folder / "train_timestamps.txt").read_text().splitlines()[0] == "1393632010,1393632011"
    done = steps(folder)
    assert done["a new session after a gap of more than 1 day"]["after"]["sessions"] == 10
    assert done["without immediate repeats"]["after"]["clicks"] == done["sort by time"]["after"]["clicks"] - 2
    assert done["sort by time"]["clicks_out_of_order"] == 5 + 2 + 2 + 3 + 3 + 1 + 21 + 1


def test_lastfm(run):
    lines = listening(8 * 3600, '{user}\t{time}\t{item}\t"A name with one mark\t\tA title')
    folder = run("lastfm", [*lines, f"u10\t{stamp(0)}\t\tno artist id\t\tA title"])
    assert letters(folder, "train") == ["QP", "PQ" * 10, "PQ", "QP", "PP", "PQP", "QP"]
    assert letters(folder, "test") == ["PQ"]
    done = steps(folder)
    assert done[f"{len(lines) + 1} rows read"]["rows_without_item"] == 1
    assert done[f"{len(lines) + 1} rows read"]["after"]["users"] == 9


@pytest.mark.parametrize(("name", "most", "columns"), [("gowalla", 30_000, 3), ("lastfm", 40_000, 1)])
def test_only_the_most_clicked_items_are_left(run, name, most, columns):
    """Items 0, 1, 2, ..., as many as may be left, have five clicks or more; Z, R and C have five that count, W six.

    These four come after the others, and so lose ties: W alone stays, and the last of the others goes for it. R has ten
    clicks before repeats are removed, C six before sessions are cut to twenty clicks: if the top items were chosen by
    these, R or C would stay as well. W has five once its session of one click is gone, and so would not.
    """
    sessions = [range(start, start + 20) for start in range(0, most, 20)] * 5
    odd = [[0, "Z", 1], [0, "R", "R", 1], [0, "C", 1], [0, "W", 1]] * 5 + [[*range(20), "C"], ["W"]]
    # The odd sessions end first, so that the fifth for testing is of others.
    begins = [*range(1_000, 1_000 + 60 * len(sessions), 60), *range(0, 22 * 44, 44)]
    lines = [
        f"u{user}\t{stamp(begin + k)}\t" + "\t".join([""] * (columns - 1) + [str(item)])
        for user, (begin, row) in enumerate(zip(begins, [*sessions, *odd], strict=True))
        for k, item in enumerate(row)
    ]
    folder = run(name, lines)
    items = (folder / "items.txt").read_text().split()
    assert items == [*(str(item) for item in range(most - 1)), "W"]
    train = [[items[int(i)] for i in line.split(",")] for line in (folder / "train.txt").read_text().split()]
    of_three = [["0", "1"], ["0", "1"], ["0", "1"], ["0", "W", "1"]] * 5
    assert [row for row in train if len(row) < 19] == of_three  # what is left of the odd sessions


def yoochoose() -> list[str]:
    def row(session: int, seconds: float, item: str) -> str:
        return f"{session},{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z,{item},0"

    return [
        row(2, 7200, "A"), row(2, 7300, "B"),
        row(1, 60, "B"), row(1, 30, "A"), row(1, 90.5, "C"), row(1, 120, "D"), row(1, 130, "D"),  # D is rare
        row(3, 60, "A"),
        row(4, 9000, "B"), row(4, 9001, "C"), row(4, 9002, "B"), row(4, 9003, "A"),
        *(row(4, 9002.5, "F") for _ in range(3)), row(5, 9100.5, "F"),
        row(13, 60, "F"),  # F's fifth click, gone with its session before items are counted
        row(5, 9100, "C"), row(5, 9101, "B"),
        row(10, 9150, "B"), row(10, 9151, "D"),  # B alone is left: goes
        row(14, DAY + 9160, "B"), row(14, 9190, "A"),  # its last click, not its last row in the file, is after the cut
        row(15, 9180, "A"), row(15, 9181, "B"), row(15, DAY + 9150, "D"),  # dated by D, which goes: testing
        row(6, 9090, "C"), row(6, 9200.999, "C"),  # to the second exactly a day before the last: in neither part
        row(7, DAY + 9200, "A"), row(7, DAY + 9200.5, "C"), row(7, DAY + 9200.7, "B"),
        row(8, DAY + 9150, "E"), row(8, DAY + 9151, "A"),  # E is unknown to training: goes, with its session
        row(9, DAY + 9201 - 1, "E"), row(9, DAY + 9200, "E"), row(9, DAY + 9200, "E"), row(9, DAY + 9200, "E"),
    ]  # fmt: skip


def test_yoochoose_quarter(run):
    folder = run("yoochoose1_4", yoochoose())
    # Training in full: 1 ABC, 2 AB, 4 BCBA, 5 CB: 2 + 1 + 3 + 1 prefixes, of which a quarter is 1.
    assert letters(folder, "all_train_seq") == ["CB"]
    assert examples(folder, "train") == ["C>B"]
    assert examples(folder, "test") == ["A>B", "A>B", "AC>B", "A>C"]
    # A, B, C have their numbers of the whole training part; A is new to the quarter, but no target.
    assert pickle.loads((folder / "all_train_seq.txt").read_bytes()) == [[3, 2]]
    assert steps(folder)["sessions of the last 1/4 of the training prefixes"]["test_targets_new_to_it"] == 0
    assert steps(folder)["sort by time"]["clicks_out_of_order"] == 1 + 1 + 1 + 1  # sessions 1, 4, 5, 14


def test_yoochoose_sixty_fourth(run):
    lines = [f"{s},{stamp(10 * s + k)},{item},0" for s in range(64) for k, item in enumerate("ABC" if s % 2 else "BCA")]
    folder = run("yoochoose1_64", [*lines, f"64,{stamp(2 * DAY)},A,0", f"64,{stamp(2 * DAY)},B,0"])
    # Two prefixes of each of 64 sessions: of 128, the last two.
    assert letters(folder, "all_train_seq") == ["ABC"]
    assert examples(folder, "train") == ["AB>C", "A>B"]


def test_yoochoose_cuts_within_a_session(run):
    lines = [*yoochoose(), *(f"{s},{stamp(8000 + s)},{item},0" for s in (11, 12) for item in "BCBA")]
    folder = run("yoochoose1_4", lines)
    # In time order 1 ABC, 2 AB, 11 BCBA, 12 BCBA, 4 BCBA, 5 CB: 2 + 1 + 3 + 3 + 3 + 1 = 13 prefixes, of which 3.
    assert letters(folder, "all_train_seq") == ["BCBA", "CB"]
    assert examples(folder, "train") == ["BC>B", "B>C", "C>B"]  # not BCB>A


def test_retailrocket(run):
    def row(minutes: float, user: int, item: str, event: str = "view") -> str:
        return f"{round((START.timestamp() + minutes * MINUTE) * 1000)},{user},{event},{item},"

    week = 7 * 24 * 60
    folder = run(
        "retailrocket",
        [
            "timestamp,visitorid,event,itemid,transactionid",
            row(45, 1, "B"), row(0, 1, "A"), row(30, 1, "B"),  # half an hour does not end a session
            row(20, 2, "A"), row(35, 2, "C", "addtocart"), row(50.001, 2, "B"),  # more does, whatever else happened
            row(60, 2, "A"),
            row(100, 3, "A"), row(101, 3, "C"), row(102, 3, "A"),  # C: one view
            *(row(101.5, 3, "H") for _ in range(4)), row(300, 8, "H"),  # H: four, and one that goes with its session
            row(400, 9, "A"), row(401, 9, "C"),  # A alone is left: goes
            row(200, 4, "B"), row(200, 4, "A"),  # of equal time: the file's order
            row(week + 9, 5, "A"), row(week + 10, 5, "B"),  # ends exactly seven days before the last view: testing
            row(2 * week + 10, 6, "B"), row(2 * week + 9, 6, "D"), row(2 * week + 8, 6, "A"),
            *(row(2 * week, 7, "D") for _ in range(4)),  # D has five views, but training has none of it
        ],
    )  # fmt: skip
    assert letters(folder, "train") == ["ABB", "BA", "AA", "BA"]  # users 1, 2, 3, 4
    assert letters(folder, "test") == ["AB", "AB"]
    assert steps(folder)["rows whose event is view"]["after"]["clicks"] == 20 + 5 + 2


def gce(session: int, clicks: str, time: float) -> list[str]:
    return [f"7\t{item}\t{session}\t{time + k}" for k, item in enumerate(clicks)]


HEAD = "UserId\tItemId\tSessionId\tTime"


def test_tmall(run):
    lines = [
        HEAD,
        *gce(1, "ABSSRSSA", 500),  # R: three clicks; S: four
        *gce(12, "S", 650),  # S's fifth, gone with its session before items are counted
        *gce(3, "AB" * 20, 200),  # forty clicks: stays
        *gce(4, "AB" * 20 + "A", 300),  # forty-one: goes, with its clicks
        *gce(5, "ABR" + "BA" * 19, 100),  # forty once R is gone: stays
        *gce(6, "AB", 998),  # ends exactly a hundred seconds before the last: in neither part
        *gce(7, "BA", 999),
        *gce(8, "AB", 1098),
        *gce(9, "B", 1099),
        *gce(10, "ABR", 998),  # dated by R, which goes: testing
        *gce(11, "B", 1000),
        *gce(11, "A", 998),  # dated by the last click in time, the row before: testing
        *gce(120_000, "AB", 700),
        *gce(120_001, "AB", 5000),  # from here on nothing is read
        *gce(2, "AB", 600),
        *gce(1, "B", 510),
    ]
    folder = run("tmall", lines)
    assert letters(folder, "all_train_seq") == ["AB" + "BA" * 19, "AB" * 20, "ABA", "AB"]
    assert examples(folder, "test") == ["B>A", "A>B", "A>B", "A>B"]
    done = steps(folder)
    assert done["rows before the first whose number is above 120,000"]["after"]["sessions"] == 12
    assert (
        done["sessions of 2 to 40 clicks"]["before"]["clicks"] - done["sessions of 2 to 40 clicks"]["after"]["clicks"]
        == 41
    )


def test_nowplaying(run):
    end = 100 * DAY
    lines = [
        HEAD,
        *gce(120_005, "AB" * 15, 0),  # thirty: stays
        *gce(2, "AB" * 15 + "A", 50),  # thirty-one: goes
        *gce(3, "BA", end - 60 * DAY - 2),
        *gce(4, "AB", end - 60 * DAY - 1),  # exactly sixty days before the last: in neither part
        *gce(5, "BAB", end - 60 * DAY - 1),
        *gce(6, "AB", end - 1),
        *gce(7, "ABR", end - 60 * DAY - 1),  # dated by R, which goes: testing
    ]
    folder = run("nowplaying", lines)
    assert letters(folder, "all_train_seq") == ["AB" * 15, "BA"]
    assert examples(folder, "test") == ["BA>B", "B>A", "A>B", "A>B"]


@pytest.mark.parametrize(
    ("name", "lines", "columns", "times"),
    [
        (
            "diginetica",
            DIGINETICA,
            {"session": "sessionId", "item": "itemId", "timeframe": "timeframe", "day": "eventdate"},
            "days written as YYYY-MM-DD, and whole milliseconds from midnight UTC",
        ),
        (
            "gowalla",
            listening(DAY, "{user}\t{time}\t30.2\t-97.7\t{item}"),
            {"user": "field 1", "time": "field 2", "item": "field 5"},
            "a time written as YYYY-MM-DDTHH:MM:SS[.fraction] and a zone (Z or +HH:MM)",
        ),
    ],
)
def test_the_columns_that_were_used_and_how_times_were_read(run, name, lines, columns, times):
    account = json.loads((run(name, lines) / "preparation.json").read_text())["input"]
    assert account["columns"] == columns
    assert account["times"] == times


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_its_facts_and_a_description(name):
    text = RECIPES[name].__doc__
    assert text is not None
    assert "preparation" in text or "gap" in text


def test_what_is_written_loads(run):
    for name, lines in (("diginetica", DIGINETICA), ("yoochoose1_4", yoochoose())):
        folder = run(name, lines)
        dataset = load(name, data_dir=folder.parent, cache=False)
        assert dataset.first_id == 1
        assert dataset.items == len((folder / "items.txt").read_text().split())
    folder = run("gowalla", listening(DAY, "{user}\t{time}\t30.2\t-97.7\t{item}"))
    dataset = load(folder.name, data_dir=folder.parent, cache=False)
    assert (dataset.first_id, dataset.items, len(dataset.train)) == (0, 2, 7)
