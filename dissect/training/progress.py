"""A progress bar for the loop: nll, KL, density of each part, examples a second, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dissect.training.plan import Callback
from dissect.training.train import Loop

#: Seconds between lines where stderr is no terminal.
LINE_SECONDS = 15.0
#: Training bars on the screen now, at most one.
_live: list[Any] = []


def _short_time(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress(Callback):
    """Show how far training is: a bar on a terminal, a line every quarter of a minute elsewhere.

    Parameters
    ----------
    title : str
    kl : callable, optional
        Returns the KL in nats for each training example, without warm-up.
    density : mapping, optional
        Part -> latest density; read each time the bar is drawn.
    """

    def __init__(
        self,
        title: str,
        kl: Callable[[], float] | None = None,
        density: dict[str, float] | None = None,
        quiet: bool = False,
    ) -> None:
        self.title, self.kl, self.density, self.quiet = title, kl, density, quiet
        self._bar: Any = None
        self._task: Any = None
        self._begun = self._drawn = self._line = 0.0
        self._first = 0
        self._nll = 0.0
        self._kl = 0.0

    def on_start(self, loop: Loop) -> None:
        """Draw the empty bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._begun = self._line = time.monotonic()
        self._first = loop.step
        console = Console(stderr=True)
        if console.is_terminal and not self.quiet:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),  # last: a narrow terminal cuts this, not the time left
                console=console,
                speed_estimate_period=120,
            )
            self._task = self._bar.add_task(self.title, total=loop.plan.steps, completed=loop.step, note="")
            self._bar.start()
            _live.append(self._bar)

    def on_step(self, loop: Loop) -> None:
        """Redraw at most four times a second."""
        now = time.monotonic()
        if self.quiet or now - self._drawn < 0.25:
            return
        self._drawn = now
        nll = float(loop.nll)  # waits for an accelerator: not at every step
        self._nll = 0.9 * self._nll + 0.1 * nll if self._nll else nll
        if self._bar is not None:
            self._bar.update(self._task, completed=loop.step, note=self._note(loop))
        elif now - self._line > LINE_SECONDS:
            self._line = now
            left = (now - self._begun) / max(1, loop.step - self._first) * (loop.plan.steps - loop.step)
            print(
                f"{self.title}: step {loop.step:,}/{loop.plan.steps:,} {self._note(loop)}, {_short_time(left)} left",
                file=sys.stderr,
                flush=True,
            )

    def on_end(self, loop: Loop) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.update(self._task, completed=loop.step, note=self._note(loop))
            self._bar.stop()
            _live.remove(self._bar)
            self._bar = None

    def _note(self, loop: Loop) -> str:
        parts = [f"nll {self._nll:.3f}"]
        if self.kl is not None:
            parts.append(f"kl/N {self.kl():.3f}")
        if self.density:
            parts.append("density " + " ".join(f"{k[:5]} {v:.2f}" for k, v in self.density.items()))
        rate = loop.train_examples / max(loop.train_seconds, 1e-9)
        return ", ".join([*parts, f"{rate:,.0f} ex/s"])


@contextmanager
def counting(title: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar for evaluation: yields a function of (done, total); nothing where stderr is no terminal.

    While a training bar is up it gets a second line; two live displays would overwrite each other.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, total: None
    elif _live:
        bar = _live[-1]
        task = bar.add_task(title, total=None, note="")
        try:
            yield lambda done, total: bar.update(task, completed=done, total=total)
        finally:
            bar.remove_task(task)
    else:
        with Bar(console=console, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
