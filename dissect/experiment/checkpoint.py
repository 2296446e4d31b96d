"""Saved states: when they are written, and leaving when asked to."""

from __future__ import annotations

import signal
import time
from typing import Any

import torch

from dissect.experiment import record
from dissect.experiment.callbacks import Selection
from dissect.experiment.record import RunFolder, replacing
from dissect.training.plan import Callback, Stop
from dissect.training.train import Loop


class Interrupted(BaseException):
    """The run was asked to stop and has saved its state.

    No `Exception`, as KeyboardInterrupt is none: what catches one run's errors to go on with the next must let it by.
    """

    def __init__(self, step: int, signum: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.signum = step, signum


class Checkpoint(Callback):
    """Save the state every two minutes, after each epoch, and when SIGINT or SIGTERM asks to stop.

    It stands last in the list of callbacks, so that a saved state holds all that the others did.

    Parameters
    ----------
    folder : RunFolder
    phase : str
        ``select`` or ``refit``; a state knows to which phase it belongs.
    selection : Selection, optional
        Asked after each epoch whether to go on.
    seconds : float
        Between saves.
    """

    name = "checkpoint"

    def __init__(
        self, folder: RunFolder, phase: str, selection: Selection | None = None, seconds: float = 120.0
    ) -> None:
        self.folder, self.phase, self.selection, self.seconds = folder, phase, selection, seconds
        self.extra: dict[str, Any] = {}
        self._saved = time.monotonic()
        self._signal = 0
        self._loop: Loop | None = None
        self._handlers: dict[int, Any] = {}

    def on_start(self, loop: Loop) -> None:
        """Listen for signals, save the beginning; stop at once where a restored state had run out of patience."""
        self._loop = loop
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._handlers[number] = signal.signal(number, self._listen)
            except ValueError:  # not in the main thread: nobody can send it a signal
                break
        if loop.step == 0:
            self.save(loop)
        if self.selection is not None and self.selection.exhausted:
            raise Stop

    def _listen(self, number: int, frame: Any) -> None:
        self._signal = number
        if self._loop is not None:
            self._loop.asked = True  # of several processes all leave, after the same step

    def on_step(self, loop: Loop) -> None:
        """Save when it is time or when asked to stop."""
        at_end = loop.step % loop.plan.steps_per_epoch == 0 or loop.step == loop.plan.steps
        if at_end:  # on_epoch follows; a state saved here would skip its evaluation
            return
        if self._asked(loop) or time.monotonic() - self._saved > self.seconds:
            self.save(loop)
        self._leave_if_asked(loop)

    def on_epoch(self, loop: Loop) -> None:
        """Save, and stop when the selection has run out of patience."""
        self.save(loop)
        self._leave_if_asked(loop)
        if self.selection is not None and self.selection.exhausted:
            raise Stop

    def on_end(self, loop: Loop) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def save(self, loop: Loop) -> None:
        """Write the state atomically, straight to disk; never one with weights that are not finite."""
        loop.check_finite()
        self._saved = begun = time.monotonic()
        if not self.folder.writes:
            return
        state = {
            "phase": self.phase,
            "logs": self.folder.log_sizes(),
            "extra": self.extra,
            **loop.state_dict(),
        }
        if not all(bool(torch.isfinite(p).all()) for p in loop.model.parameters()):
            raise loop.not_finite(float("nan"))
        with replacing(self.folder / record.STATE) as temporary:
            torch.save(state, temporary)
        loop.saving_seconds += time.monotonic() - begun

    def _asked(self, loop: Loop) -> bool:
        return loop.leave or (loop.world.size == 1 and self._signal != 0)

    def _leave_if_asked(self, loop: Loop) -> None:
        if self._asked(loop):
            raise Interrupted(loop.step, self._signal or signal.SIGTERM)
