"""How far a preparation is: a bar with the time left on a terminal, a line every quarter of a minute elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

#: Seconds between lines where stderr is no terminal.
LINE_SECONDS = 15.0


class Bar:
    """One piece of work whose size is known, at least roughly.

    Parameters
    ----------
    text : str
        What is being done.
    total : float
        Its size, in any unit.
    quiet : bool
        Show nothing.
    """

    def __init__(self, text: str, total: float, quiet: bool = False) -> None:
        self.text, self.total, self.quiet = text, max(total, 1), quiet
        self._done = 0.0
        self._begun = self._line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.text, total=self.total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, amount: float) -> None:
        """Note that `amount` more is done."""
        self._done += amount
        if self._bar is not None:
            self._bar.advance(self._task, amount)
            return
        now = time.monotonic()
        if not self.quiet and now - self._line >= LINE_SECONDS:
            self._line = now
            share = min(self._done / self.total, 1.0)
            left = (now - self._begun) * (1 - share) / max(share, 1e-9)
            sys.stderr.write(f"{self.text}: {share:.0%}, about {left:.0f} s left\n")
