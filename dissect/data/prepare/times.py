"""Times of a raw file, as whole milliseconds since 1970 in UTC. What gives no zone is taken for UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from dissect.errors import DissectError

#: Tried in turn on the first value; the first that reads it is held to for all others.
FORMATS = (
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d",
)
DAY = "%Y-%m-%d"
#: Numbers below the bound count in this unit: (bound, unit, milliseconds in it). Each covers the years 1970 to 5138.
UNITS = ((1e11, "seconds", 1.0e3), (1e14, "milliseconds", 1.0), (1e17, "microseconds", 1.0e-3))
#: Milliseconds.
SECOND, MINUTE, HOUR, DAYS = 1_000, 60_000, 3_600_000, 86_400_000
_SPANS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAYS}


@dataclass(frozen=True)
class Times:
    """How the times of a file are written: ``text`` says it to the user; ``pattern`` is None for numbers."""

    text: str
    pattern: str | None = None
    factor: float = 1.0

    def parse(self, column: str) -> pl.Expr:
        """Milliseconds of the texts in a column; null for what is written in another way."""
        raw = pl.col(column)
        if self.pattern is None:
            return (raw.cast(pl.Float64, strict=False) * self.factor).round().cast(pl.Int64, strict=False)
        if self.pattern == DAY:
            return raw.str.to_date(DAY, strict=False).cast(pl.Datetime("ms")).cast(pl.Int64)
        return raw.str.to_datetime(self.pattern, strict=False, time_unit="ms").cast(pl.Int64)


def times_like(value: str | None) -> Times | None:
    """Return the way `value` is written; None if it is no time."""
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d*)?([eE]\+?\d+)?", value):
        for bound, unit, factor in UNITS:
            if float(value) < bound:
                return Times(f"a UNIX time in {unit}", None, factor)
        return None
    for pattern in FORMATS:
        found = Times(f"a time written as {pattern}", pattern)
        if pl.DataFrame({"value": [value]}).select(found.parse("value")).item() is not None:
            return found
    return None


def span(text: str, option: str) -> int:
    """Milliseconds of a length of time such as ``30m``, ``8h`` or ``1d``.

    Raises
    ------
    DissectError
        If it is written in another way or is not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    length = round(float(found[1]) * _SPANS[found[2]]) if found else 0
    if not length:
        raise DissectError(f"{option} {text} is not a length of time: write a number and s, m, h or d, as in 30m or 1d")
    return length


def written(length: int) -> str:
    """A length of time in milliseconds in the largest unit that it is a whole number of."""
    for unit, name in ((DAYS, "day"), (HOUR, "hour"), (MINUTE, "minute"), (SECOND, "second"), (1, "millisecond")):
        if length % unit == 0:
            return f"{length // unit} {name}{'s' * (length != unit)}"
    raise AssertionError("every whole number is a number of milliseconds")
