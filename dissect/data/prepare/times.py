"""Times of a raw file, as whole milliseconds since 1970 in UTC. What gives no zone is taken for UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from dissect.errors import DissectError

DAY = "%Y-%m-%d"
#: Numbers below the bound count in this unit, those from it on in the next: (bound, unit, milliseconds in it). Each
#: reaches to the year 5138, and from 1973 where there is a smaller one.
UNITS = (
    (1e11, "seconds", 1.0e3),
    (1e14, "milliseconds", 1.0),
    (1e17, "microseconds", 1.0e-3),
    (1e20, "nanoseconds", 1.0e-6),
)
#: What is read as a time, for messages.
FORMS = (
    "a time: ISO 8601 such as 2014-05-13, 2014-05-13T16:53 or 2014-05-13 16:53:20.5+02:00, or UNIX in seconds, "
    "milliseconds, microseconds or nanoseconds"
)
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:(?P<middle>[T ])\d\d:\d\d(?P<seconds>:\d\d(?:\.(?P<digits>\d+))?)?"
    r"(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?)?"
)
#: Milliseconds.
SECOND, MINUTE, HOUR, DAYS = 1_000, 60_000, 3_600_000, 86_400_000
_SPANS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAYS}


@dataclass(frozen=True)
class Times:
    """How the times of a file are written.

    Parameters
    ----------
    text : str
        What to call them.
    patterns : tuple of str
        Tried in turn, each on a whole column; none for numbers.
    factor : float
        Milliseconds in the unit of numbers.
    least, bound : float
        Numbers from ``least`` to below ``bound`` are in the unit; others are of another one, or a slip.
    """

    text: str
    patterns: tuple[str, ...] = ()
    factor: float = 1.0
    least: float = 0.0
    bound: float = UNITS[0][0]

    @property
    def wanted(self) -> str:
        """What a time of the file has to be, for messages."""
        between = "" if self.patterns else f" (from {self.least:,.0f} to below {self.bound:,.0f})"
        return f"{self.text}{between}, as the first one is"

    def parse(self, column: pl.Series) -> pl.Series:
        """Milliseconds of what stands in a column, texts or numbers; null for what is written in another way."""
        if not self.patterns:
            number = column.cast(pl.Float64, strict=False).to_frame("x")
            inside = pl.when((pl.col("x") >= self.least) & (pl.col("x") < self.bound)).then("x")
            return number.select((inside * self.factor).round().cast(pl.Int64)).to_series()
        found = pl.Series([None] * len(column), dtype=pl.Int64)
        for pattern in self.patterns:
            if pattern == DAY:
                more = column.str.to_date(DAY, strict=False).cast(pl.Datetime("ms")).cast(pl.Int64)
            else:
                more = column.str.to_datetime(pattern, strict=False, time_unit="ms").cast(pl.Int64)
            found = more if found.null_count() == len(found) else found.fill_null(more)
            if found.null_count() == column.null_count():
                break
        return found


#: Days without a time, as two of Diginetica's preparations have them.
DAYS_ONLY = Times("a day written as YYYY-MM-DD", (DAY,))


def times_like(value: str | None) -> Times | None:
    """Return the way `value` is written; None if it is no time."""
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d*)?([eE]\+?\d+)?", value):
        least = 0.0
        for bound, unit, factor in UNITS:
            if float(value) < bound:
                return Times(f"a UNIX time in {unit}", (), factor, least, bound)
            least = bound
        return None
    iso = _ISO.fullmatch(value)
    found = _iso(iso) if iso else None
    return found if found and found.parse(pl.Series([value])).null_count() == 0 else None


def _iso(value: re.Match[str]) -> Times:
    """The way in which a time of ISO 8601 is written: a fraction may lack or be there, a zone be any, in the others.

    Polars reads patterns of fixed width four times as fast as others, so that the first value's own comes first; what
    it does not read (isoformat and pandas leave out fractions that are 0) is left to the general one.
    """
    middle, seconds, digits, zone = value.group("middle", "seconds", "digits", "zone")
    if not middle:
        return DAYS_ONLY
    begin, shown = f"%Y-%m-%d{middle}%H:%M", f"YYYY-MM-DD{middle}HH:MM"
    general = begin + (":%S%.f" if seconds else "") + ("%#z" if zone else "")
    shown += (":SS[.fraction]" if seconds else "") + (" and a zone (Z or +HH:MM)" if zone else "")
    patterns = (general,)
    if seconds and (digits is None or len(digits) in (3, 6, 9)) and zone in (None, "Z", "+00:00"):
        patterns = (begin + ":%S" + (f".%{len(digits)}f" if digits else "") + (zone or ""), general)
    return Times(f"a time written as {shown}", patterns)


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
