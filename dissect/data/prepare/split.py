"""Clicks into a training and a test part: by time first, items and order afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from dissect.data.prepare.times import written


class Split(Protocol):
    """A rule that says which sessions are for training and which for testing.

    ``key`` is the column whose largest value in a session says when the session was: ``time`` (its last click) or
    ``date`` (see `SessionDate`).
    """

    @property
    def key(self) -> str:
        """The column that dates a session."""
        ...

    @property
    def text(self) -> str:
        """The rule in words."""
        ...

    def masks(self, dates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each session is for training, and whether for testing; some may be for neither."""
        ...


@dataclass(frozen=True)
class LastSpan:
    """Test sessions: those of the last ``length`` milliseconds.

    Parameters
    ----------
    length : int
        Before the latest session's date.
    key : str
        See `Split`.
    strict : bool
        Leave out what lies exactly on the boundary, as SR-GNN does; else it is for testing.
    """

    length: int
    key: str = "time"
    strict: bool = False

    @property
    def text(self) -> str:
        """The rule in words."""
        edge = "the boundary itself is in neither part" if self.strict else "the boundary is in the test part"
        return f"test: sessions whose {self.key} is in the last {written(self.length)}, {edge}"

    def masks(self, dates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each session is for training, and whether for testing."""
        boundary = dates.max() - self.length
        return dates < boundary, dates > boundary if self.strict else dates >= boundary


@dataclass(frozen=True)
class LastShare:
    """Test sessions: the last share of them by the time of the last click, rounded down; ties in the clicks' order."""

    share: float
    key: str = "time"

    @property
    def text(self) -> str:
        """The rule in words."""
        return f"test: the last {self.share * 100:g}% of the sessions by the time of their last click"

    def masks(self, dates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each session is for training, and whether for testing."""
        order = np.argsort(dates, kind="stable")
        test = np.zeros(len(dates), dtype=bool)
        test[order[len(order) - int(len(order) * self.share) :]] = True
        return ~test, test


def divide(clicks: pl.DataFrame, split: Split) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the clicks of training and of test sessions."""
    dates = _dates(clicks, split.key)
    parts = split.masks(dates["date"].to_numpy())
    first, second = (
        clicks.join(dates.filter(pl.Series(mask)), on="session", how="semi", maintain_order="left") for mask in parts
    )
    return first, second


def known(test: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """Return the test clicks on items that training shows."""
    return test.join(train.select("item").unique(), on="item", how="semi", maintain_order="left")


def in_time_order(clicks: pl.DataFrame, split: Split) -> pl.DataFrame:
    """Return whole sessions in the order of their dates; those of equal date keep their order."""
    order = _dates(clicks, split.key).sort("date", maintain_order=True).select("session").with_row_index("place")
    return clicks.join(order, on="session", how="left", maintain_order="left").sort("place", maintain_order=True)


def numbers(train: pl.DataFrame) -> pl.DataFrame:
    """Return ``item`` and its ``number``, from 0 by first appearance in training."""
    return train.select(pl.col("item").unique(maintain_order=True)).with_row_index("number")


def renumber(clicks: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Return clicks with the numbers of their items."""
    return clicks.join(items, on="item", how="left", maintain_order="left")


def tail(train: pl.DataFrame, part: int) -> tuple[pl.DataFrame, int]:
    """Return the sessions that the last ``1 / part`` of all training prefixes come from, and how many prefixes.

    The first of these sessions is whole, though only some of its prefixes may be among them.
    """
    lengths = train.group_by("session", maintain_order=True).len()
    prefixes = lengths["len"].to_numpy().astype(np.int64) - 1
    wanted = int(prefixes.sum()) // part
    before = np.cumsum(prefixes[::-1])[::-1]  # prefixes of this session and all later ones
    first = int((before >= wanted).sum()) - 1
    return train.join(lengths.slice(first), on="session", how="semi", maintain_order="left"), wanted


def _dates(clicks: pl.DataFrame, key: str) -> pl.DataFrame:
    """Each session once, in the clicks' order, with its date."""
    return clicks.group_by("session", maintain_order=True).agg(date=pl.col(key).max())
