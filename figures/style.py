"""What every figure script shares: the look, which lives in `dissect.report.style`, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from dissect.errors import DissectError
from dissect.report.style import GRID, INK, MUTED, PARTS, RC, of_part

__all__ = ["GRID", "HERE", "INK", "MUTED", "PARTS", "RC", "RECORDS", "of_part", "run"]

HERE = Path(__file__).resolve().parent
RECORDS = HERE.parent / "analyses" / "records"


def run(draw: Callable[[], Iterable[Path]]) -> None:
    """Draw and print what was written; an error is one line."""
    try:
        for path in draw():
            print(path)
    except DissectError as error:
        raise SystemExit(str(error)) from None
