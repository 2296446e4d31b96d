"""The rules that recipes are made of: each takes clicks and returns those that are left, in order.

Clicks are rows of ``session`` (or ``user``, before sessions are made), ``item`` and ``time`` in milliseconds. From
`Sort` on, the rows of one session stand together, in time order, and every step keeps that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

import polars as pl

from dissect.data.prepare.times import written


class Step(Protocol):
    """A rule: ``text`` is what it is called in the report, ``apply`` what it does."""

    @property
    def text(self) -> str:
        """The rule in words."""
        ...

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        ...


def group_of(clicks: pl.DataFrame) -> str:
    """Return what the clicks are grouped by: ``session``, or ``user`` as long as there are no sessions."""
    return "session" if "session" in clicks.columns else "user"


@dataclass(frozen=True)
class Counts:
    """What clicks amount to; ``sessions`` is None as long as there are only users."""

    users: int | None
    sessions: int | None
    clicks: int
    items: int

    @classmethod
    def of(cls, clicks: pl.DataFrame) -> Counts:
        """Count."""
        group = group_of(clicks)
        number = clicks[group].n_unique()
        users, sessions = (number, None) if group == "user" else (None, number)
        return cls(users, sessions, len(clicks), clicks["item"].n_unique())

    def as_dict(self) -> dict[str, int]:
        """The counts that there are."""
        return {name: count for name, count in asdict(self).items() if count is not None}


@dataclass(frozen=True)
class Only:
    """Rows with a value in a column, which is then dropped."""

    column: str
    value: str

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"rows whose {self.column} is {self.value}"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        return clicks.filter(pl.col(self.column) == self.value).drop(self.column)


@dataclass(frozen=True)
class Until:
    """Rows before the first one, in the file's order, whose column is above a number; the column is then dropped."""

    column: str
    largest: int

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"rows before the first whose {self.column} is above {self.largest:,}"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        end = clicks.select(pl.arg_where(pl.col(self.column) > self.largest).min()).item()
        return clicks.head(len(clicks) if end is None else end).drop(self.column)


@dataclass(frozen=True)
class DayPlusTimeframe:
    """Time of a click = midnight (UTC) of its ``day`` + ``timeframe`` milliseconds."""

    text: str = "time = day + timeframe"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left: all."""
        return clicks.with_columns(time=pl.col("day") + pl.col("timeframe"))


@dataclass(frozen=True)
class SessionDate:
    """``date`` of a session = what stands in a column of its last row, rounded down; fixed from here on.

    Later steps may remove that row: the date stays.
    """

    column: str = "time"
    floor: int = 1

    @property
    def text(self) -> str:
        """The rule in words."""
        unit = f" in whole {written(self.floor).removeprefix('1 ')}s" if self.floor > 1 else ""
        return f"date of a session = {self.column} of its last row{unit}"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left: all."""
        last = pl.col(self.column).last().over("session")
        return clicks.with_columns(date=last - last % self.floor)


@dataclass(frozen=True)
class Sort:
    """Group by session or user, by time within; rows of equal time keep the file's order."""

    by: str = "time"

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"sort by {self.by}"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left: all."""
        group = group_of(clicks)
        return clicks.sort(group, self.by, maintain_order=True).drop("day", "timeframe", strict=False)

    def out_of_order(self, clicks: pl.DataFrame) -> int:
        """Count the clicks that are earlier than the one before them of the same session or user."""
        group = group_of(clicks)
        grouped = clicks.select(group, self.by).sort(group, maintain_order=True)
        return grouped.select((_same(group) & (pl.col(self.by) < pl.col(self.by).shift())).sum()).item()


def _same(group: str) -> pl.Expr:
    """Whether a row belongs to the same group as the one before."""
    return pl.col(group) == pl.col(group).shift()


@dataclass(frozen=True)
class SplitAtGaps:
    """Sessions out of users: a new one after more than ``gap`` milliseconds."""

    gap: int

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"a new session after a gap of more than {written(self.gap)}"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left: all."""
        near = _same("user") & (pl.col("time") - pl.col("time").shift() <= self.gap)
        starts = ~near.fill_null(False)
        return clicks.select((starts.cum_sum() - 1).cast(pl.UInt32).alias("session"), pl.exclude("user"))


@dataclass(frozen=True)
class DropRepeats:
    """Clicks on the item of the click before, in the same session, are dropped."""

    text: str = "without immediate repeats"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        repeat = _same("session") & (pl.col("item") == pl.col("item").shift())
        return clicks.filter(~repeat.fill_null(False))


@dataclass(frozen=True)
class FirstClicks:
    """The first clicks of each session."""

    most: int

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"the first {self.most} clicks of each session"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        return clicks.filter(pl.int_range(pl.len()).over("session") < self.most)


@dataclass(frozen=True)
class Sessions:
    """Sessions of at least ``least`` clicks, and at most ``most``: longer ones are dropped, not cut."""

    least: int = 2
    most: int | None = None

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"sessions of {self.least} " + ("clicks or more" if self.most is None else f"to {self.most} clicks")

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        length = pl.len().over("session")
        return clicks.filter(length >= self.least if self.most is None else length.is_between(self.least, self.most))


@dataclass(frozen=True)
class Items:
    """Items of at least ``least`` clicks."""

    least: int = 5

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"items of {self.least} clicks or more"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        return clicks.filter(pl.len().over("item") >= self.least)


@dataclass(frozen=True)
class TopItems:
    """The ``most`` items with most clicks; of equally many, those that come first in the clicks."""

    most: int

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"the {self.most:,} most clicked items"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        counts = clicks.group_by("item", maintain_order=True).len()  # in the order of first appearance
        top = counts.sort("len", descending=True, maintain_order=True).head(self.most)
        return clicks.join(top.select("item"), on="item", how="semi", maintain_order="left")


@dataclass(frozen=True)
class Repeat:
    """Other rules, one after the other, again and again until none changes anything."""

    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """The rule in words."""
        return " and ".join(step.text for step in self.steps) + ", repeated until nothing changes"

    def apply(self, clicks: pl.DataFrame) -> pl.DataFrame:
        """Return the clicks that are left."""
        return self.run(clicks).clicks

    def run(self, clicks: pl.DataFrame) -> Passes:
        """Return the clicks that are left, and what each rule took."""
        now, number, changed = Counts.of(clicks), 0, True
        taken = [dict.fromkeys(now.as_dict(), 0) for _ in self.steps]
        while changed:
            number, changed = number + 1, False
            for step, sums in zip(self.steps, taken, strict=True):
                left = step.apply(clicks)
                if len(left) == len(clicks):
                    continue
                clicks, before, now, changed = left, now.as_dict(), Counts.of(left), True
                for name, count in now.as_dict().items():
                    sums[name] += before[name] - count
                if not now.clicks:
                    return Passes(clicks, number, taken, step)
        return Passes(clicks, number, taken)


@dataclass(frozen=True)
class Passes:
    """What came of a `Repeat`.

    Parameters
    ----------
    clicks : DataFrame
        Those that are left.
    number : int
        How often the rules were gone through, with the last time, which changed nothing.
    taken : list of dict
        What each rule took over all passes: sessions, clicks, items.
    emptied : Step, optional
        The rule that left nothing, in the last pass.
    """

    clicks: pl.DataFrame
    number: int
    taken: list[dict[str, int]]
    emptied: Step | None = None
