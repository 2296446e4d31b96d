"""The one exception whose text is meant for the user."""

from __future__ import annotations

#: What a value of a type is called in a message.
KINDS: dict[type, str] = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a name"}


class DissectError(Exception):
    """A failure the user can act on: one line that says what, where and the valid choices.

    Parameters
    ----------
    message : str
        The line to print on stderr.
    status : int, default 2
        Exit status of the command line: 2 for wrong use or bad input, 1 for a run that failed.
    """

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


class NotFinite(DissectError):
    """A loss that is no number: it says something about the run's values, as nothing else that fails does."""


class InUse(DissectError):
    """A run folder that another process writes to."""
