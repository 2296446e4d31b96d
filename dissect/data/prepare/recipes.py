"""Each data set as the list of its rules. What papers and released code differ in stands in the docstrings.

Two families. SR-GNN's (https://github.com/CRIPAC-DIG/SR-GNN, datasets/preprocess.py) dates a session by its last row
as it stands in the file, before any filter, loses what lies exactly on the boundary, numbers items from 1 by first
appearance in the training part in time order, and writes pickles. LESSR's (https://github.com/twchen/lessr,
utils/data/preprocess.py) dates it by its last remaining click, keeps the boundary for testing, numbers items from 0 in
the order of users and sessions, and writes text. In both, a test item that training never shows is dropped.

SR-GNN's code reads days in the machine's own time zone, where a day may have 23 or 25 hours; here they are UTC.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dissect.data.prepare.split import LastShare, LastSpan, Split
from dissect.data.prepare.steps import (
    DayPlusTimeframe,
    DropRepeats,
    FirstClicks,
    Items,
    Only,
    Repeat,
    SessionDate,
    Sessions,
    Sort,
    SplitAtGaps,
    Step,
    TopItems,
    Until,
)
from dissect.data.prepare.table import Field, Kind, Table
from dissect.data.prepare.times import DAYS, HOUR, MINUTE, SECOND
from dissect.errors import DissectError


@dataclass(frozen=True)
class Recipe:
    """How one data set is made.

    Parameters
    ----------
    name : str
        What it is called on the command line.
    table : Table
        The raw file.
    steps : tuple of Step
        Rules on the clicks, in order.
    split : Split
        Which sessions are for testing.
    layout : str
        ``srgnn``: pickles, items from 1; ``text``: a session a line, items from 0.
    number : str
        Items are numbered by first appearance in training: in ``time`` order, or as the clicks stand (``rows``).
    part : int
        Only the last ``1 / part`` of the training prefixes.
    """

    name: str
    table: Table
    steps: tuple[Step, ...]
    split: Split
    layout: Literal["srgnn", "text"] = "text"
    number: Literal["time", "rows"] = "time"
    part: int = 1


def _diginetica(session: Kind) -> Table:
    return Table(
        {
            "session": Field(("sessionId", "session_id"), session),
            "item": Field(("itemId", "item_id")),
            "timeframe": Field(("timeframe",), "integer"),
            "day": Field(("eventdate",), "day"),
        },
        delimiter=";",
        member="train-item-views.csv",
    )


def diginetica() -> Recipe:
    """Diginetica (CIKM Cup 2016, ``train-item-views.csv``), SR-GNN's preparation: 43,097 items.

    The order within a session is that of ``timeframe`` alone; a session's date is the day of its last row in the file.
    Items are counted once, after sessions of one click are gone, so that some end with fewer than 5 clicks. The day
    exactly 7 days before the last is in neither part (strict < and >).
    """
    return Recipe(
        "diginetica",
        _diginetica("key"),
        (DayPlusTimeframe(), SessionDate("day"), Sort("timeframe"), Sessions(2), Items(5), Sessions(2)),
        LastSpan(7 * DAYS, "date", strict=True),
        layout="srgnn",
    )


def diginetica_lessr() -> Recipe:
    """Diginetica, LESSR's preparation, which the Atten-Mixer paper takes: 42,596 items.

    981,620 clicks in 204,591 sessions. Differs from SR-GNN's: the time is day + ``timeframe``, sessions keep their
    first 20 clicks, and sessions that end exactly 7 days before the last click, or later, are for testing. Sessions are
    taken in the order of their numbers.
    """
    return Recipe(
        "diginetica-lessr",
        _diginetica("integer"),
        (DayPlusTimeframe(), Sort(), Sessions(2), FirstClicks(20), Items(5), Sessions(2)),
        LastSpan(7 * DAYS),
        number="rows",
    )


def _lessr_log(name: str, gap: int, items: int, item: int, member: str) -> Recipe:
    fields = {
        "user": Field(("user", "userid", "user_id"), position=0),
        "time": Field(("timestamp", "time", "check-in time"), "time", position=1),
        "item": Field(("artid", "location id", "location_id"), position=item, drop_missing=True),
    }
    # Which of the two comes first changes the account and not the result: that is the largest set of clicks in which
    # both hold, and neither rule ever takes a click of it.
    stable = Repeat((Sessions(2), Items(5)))
    return Recipe(
        name,
        Table(fields, delimiter="\t", header=False, quoted=False, member=member),
        (Sort(), SplitAtGaps(gap), DropRepeats(), FirstClicks(20), TopItems(items), stable),
        LastShare(0.2),
        number="rows",
    )


def gowalla() -> Recipe:
    """Gowalla check-ins (SNAP, ``loc-gowalla_totalCheckins.txt.gz``), LESSR's preparation: 29,510 items.

    1,122,788 clicks; what the paper's Table 1 calls sessions are prefixes. Immediate repeats are removed, and sessions
    cut to 20 clicks, before rare places are: what is left may repeat an item at once or span gaps of more than a day.
    LESSR sorts sessions by their end with an unstable sort; here those of equal end keep the order of users.
    """
    return _lessr_log("gowalla", DAYS, 30_000, 4, "*totalCheckins*")


def lastfm() -> Recipe:
    """Last.fm 1K listening (``lastfm-dataset-1K.tar.gz``), LESSR's preparation: 38,615 items, which are artists.

    3,835,706 clicks. Rows without an artist id are dropped before sessions are made. LESSR reads the file with pandas,
    to which a quotation mark that opens a name encloses a field, over line ends if need be; here it is a character like
    any other, so that counts may differ by what pandas swallows.
    """
    return _lessr_log("lastfm", 8 * HOUR, 40_000, 2, "userid-timestamp-*")


def _yoochoose(part: int) -> Recipe:
    fields = {
        "session": Field(("session_id", "SessionId"), position=0),
        "time": Field(("timestamp", "Time"), "time", position=1),
        "item": Field(("item_id", "ItemId"), position=2),
    }
    return Recipe(
        f"yoochoose1_{part}",
        Table(fields, header=False, quoted=False, member="yoochoose-clicks.dat"),
        (Sort(), SessionDate(floor=SECOND), Sessions(2), Items(5), Sessions(2)),
        LastSpan(DAYS, "date", strict=True),
        layout="srgnn",
        part=part,
    )


def yoochoose1_4() -> Recipe:
    """Yoochoose (RecSys 2015, ``yoochoose-clicks.dat``), the last quarter, SR-GNN's preparation.

    The last quarter is one of prefixes, so its first session may be there in part in ``train.txt`` and is whole in
    ``all_train_seq.txt``. Items keep the numbers of the whole training part (37,483), and a test item need only be
    known to that: to a model trained on the fraction some targets are new. SR-GNN leaves clicks in the file's order,
    here they are sorted by time: the report says how many that moves.
    """
    return _yoochoose(4)


def yoochoose1_64() -> Recipe:
    """Yoochoose, the last 1/64, SR-GNN's preparation: as `yoochoose1_4`.

    Other copies, such as one of 17,189 items with 55,379 test prefixes, drop test items that the 1/64 does not show and
    number the rest anew.
    """
    return _yoochoose(64)


def retailrocket() -> Recipe:
    """RetailRocket (Kaggle, ``events.csv``): views, sessions by a gap of 30 minutes, the last 7 days for testing.

    session-rec (https://github.com/rn5l/session-rec, preprocess_retailrocket.py) makes sessions of all events and keeps
    the views afterwards, counts in whole seconds, and tests on 2 days of each of several windows; here views come
    first, as a session of clicks is meant.
    """
    fields = {
        "time": Field(("timestamp",), "time"),
        "user": Field(("visitorid",)),
        "event": Field(("event",)),
        "item": Field(("itemid",)),
    }
    return Recipe(
        "retailrocket",
        Table(fields, member="events.csv"),
        (Only("event", "view"), Sort(), SplitAtGaps(30 * MINUTE), Sessions(2), Items(5), Sessions(2)),
        LastSpan(7 * DAYS),
    )


def _gce(name: str, longest: int, test: int, member: str, until: int | None) -> Recipe:
    fields = {
        "session": Field(("SessionId",)),
        "item": Field(("ItemId",)),
        "time": Field(("Time",), "time"),
    }
    if until is not None:
        fields["number"] = Field(("SessionId",), "integer")
    first = () if until is None else (Until("number", until),)
    return Recipe(
        name,
        Table(fields, delimiter="\t", member=member),
        (*first, Sort(), SessionDate(), Sessions(2), Items(5), Sessions(2, longest)),
        LastSpan(test, "date", strict=True),
        layout="srgnn",
    )


def tmall() -> Recipe:
    """Tmall (IJCAI-15, session-rec's ``dataset15.csv``), GCE-GNN's preparation: sessions of 2 to 40 clicks, last 100 s.

    https://github.com/CCIIPLab/GCE-GNN, datasets/process_tmall.py: it reads up to the first row whose third column is
    above 120,000, which in session-rec's order of columns is the session's number, and says so in no paper. The times
    are days with a second added for each click of a session, so that "the last 100 s" are a part of the last day.
    Longer sessions are dropped, not cut, and by their length after rare items are gone.
    """
    return _gce("tmall", 40, 100 * SECOND, "dataset15.csv", 120_000)


def nowplaying() -> Recipe:
    """Nowplaying (session-rec's ``nowplaying.csv``), GCE-GNN's preparation: sessions of 2 to 30 clicks, last 60 days.

    https://github.com/CCIIPLab/GCE-GNN, datasets/process_nowplaying.py; its paper says two months.
    """
    return _gce("nowplaying", 30, 60 * DAYS, "nowplaying.csv", None)


RECIPES: dict[str, Callable[[], Recipe]] = {
    make().name: make
    for make in (
        diginetica, diginetica_lessr, gowalla, lastfm, yoochoose1_4, yoochoose1_64, retailrocket, tmall, nowplaying,
    )
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises
    ------
    DissectError
        If there is none of that name; lists the names.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        what = f"no preparation called {name!r}{hint}" if name else "no name given"
        raise DissectError(f"{what}; choose one of: {', '.join(RECIPES)}; or describe a table with --columns")
    return RECIPES[name]()
