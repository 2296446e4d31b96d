"""A recipe for a table of one's own, from the options of the command line."""

from __future__ import annotations

import re

from dissect.data.prepare.recipes import Recipe
from dissect.data.prepare.split import LastShare, LastSpan, Split
from dissect.data.prepare.steps import Items, Repeat, Sessions, Sort, SplitAtGaps
from dissect.data.prepare.table import Field, Kind, Table
from dissect.data.prepare.times import span
from dissect.errors import DissectError


def own(columns: str, gap: str | None = None, test: str = "20%", item_clicks: int = 5) -> Recipe:
    """A recipe for a table with named columns: sessions of 2 clicks or more, frequent items, the last ones for testing.

    Parameters
    ----------
    columns : str
        ``session=NAME,item=NAME,time=NAME``, or ``user=`` in place of ``session=``. A comma within a name is written
        ``\\,``.
    gap : str, optional
        With ``user=``: the gap that ends a session, such as ``30m``, ``8h`` or ``1d``.
    test : str
        ``20%`` for the last fifth of the sessions, ``7d`` for those that end in the last 7 days.
    item_clicks : int
        The fewest clicks of an item.

    Raises
    ------
    DissectError
        If a column is named twice or not at all, or an option does not fit.
    """
    named: dict[str, str] = {}
    for pair in re.split(r"(?<!\\),", columns):
        role, equals, name = (text.strip().replace("\\,", ",") for text in pair.partition("="))
        if not (equals and name) or role in named or role not in ("session", "user", "item", "time"):
            raise DissectError(
                f"--columns {columns}: {pair!r} is not understood; write session=NAME,item=NAME,time=NAME, or user= in "
                "place of session=, and \\, for a comma within a name"
            )
        named[role] = name
    missing = [role for role in ("item", "time") if role not in named]
    if ("session" in named) == ("user" in named):
        missing.append("either session or user")
    if missing:
        raise DissectError(f"--columns {columns}: name {' and '.join(missing)} as well")
    if len(set(named.values())) < len(named):
        raise DissectError(f"--columns {columns}: a column is named twice")
    if ("user" in named) != (gap is not None):
        raise DissectError("--gap makes sessions out of users: give it with user= in --columns, and only then")
    if item_clicks < 1:
        raise DissectError(f"--item-clicks {item_clicks} is not valid: choose 1 or more")
    sessions = () if gap is None else (SplitAtGaps(span(gap, "--gap")),)
    kinds: dict[str, Kind] = {"time": "time"}
    return Recipe(
        "own",
        Table({role: Field((name,), kinds.get(role, "key")) for role, name in named.items()}, delimiter=None),
        (Sort(), *sessions, Repeat((Sessions(2), Items(item_clicks)))),
        _test(test),
    )


def _test(text: str) -> Split:
    if not text.endswith("%"):
        return LastSpan(span(text, "--test"))
    number = text[:-1].strip()
    if not number.replace(".", "", 1).isdigit() or not 0 < float(number) < 100:
        raise DissectError(f"--test {text} is not a share: write a number above 0 and below 100, and %")
    return LastShare(float(number) / 100)
