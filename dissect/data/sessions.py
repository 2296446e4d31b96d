"""Sessions as flat arrays, and the prefixes that a model is trained and tested on.

A session is a run of clicks in one flat array; an example is a window of the same array. Clicks are
therefore stored once, however many prefixes refer to them, and nothing loops over sessions in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dissect.errors import DissectError


@dataclass(frozen=True)
class Sessions:
    """Sessions in time order; session ``s`` is ``clicks[offsets[s]:offsets[s + 1]]``.

    Parameters
    ----------
    clicks : ndarray of int32, shape (N,)
        Item ids, all sessions one after the other.
    offsets : ndarray of int64, shape (S + 1,)
        Where each session starts; the first is 0 and the last is N.

    Raises
    ------
    ValueError
        If the arrays do not fit together, or a session is empty.
    """

    clicks: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        # A memory-mapped array stays mapped under asarray; a wrong dtype is converted once, here.
        object.__setattr__(self, "clicks", np.asarray(self.clicks, dtype=np.int32))
        object.__setattr__(self, "offsets", np.asarray(self.offsets, dtype=np.int64))
        if self.clicks.ndim != 1 or self.offsets.ndim != 1 or len(self.offsets) == 0:
            raise ValueError("clicks and offsets must be flat arrays, offsets with at least one entry")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.clicks):
            raise ValueError(f"offsets must run from 0 to the number of clicks, {len(self.clicks)}")
        if len(self) and self.lengths.min() < 1:
            raise ValueError(f"session {int(self.lengths.argmin())} is empty")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Clicks of each session, int64, shape (S,)."""
        return np.diff(self.offsets)

    def take(self, indices: np.ndarray) -> Sessions:
        """Copy the sessions numbered ``indices``, in that order."""
        lengths = self.lengths[indices]
        offsets = _starts(lengths)
        shift = self.offsets[:-1][indices] - offsets[:-1]
        return Sessions(self.clicks[np.arange(offsets[-1]) + np.repeat(shift, lengths)], offsets)

    def slice(self, start: int, stop: int) -> Sessions:
        """Return the sessions ``start`` to ``stop`` (excluded) as a view of the same clicks."""
        start, stop, _ = slice(start, stop).indices(len(self))
        stop = max(start, stop)
        first, last = self.offsets[start], self.offsets[stop]
        return Sessions(self.clicks[first:last], self.offsets[start : stop + 1] - first)


@dataclass(frozen=True)
class Examples:
    """Prefixes with the click that follows each: ``clicks[start:end]`` predicts ``clicks[end]``.

    Parameters
    ----------
    clicks : ndarray of int32, shape (N,)
        Item ids, all sessions one after the other.
    start, end : ndarray of int64, shape (E,)
        Bounds of each prefix; ``end`` is also where its target stands.
    session : ndarray of int64, shape (E,)
        Number of the session that each example comes from.

    Raises
    ------
    ValueError
        If the arrays differ in length, a prefix is empty or a window leaves the clicks.
    """

    clicks: np.ndarray
    start: np.ndarray
    end: np.ndarray
    session: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "clicks", np.asarray(self.clicks, dtype=np.int32))
        for name in ("start", "end", "session"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        if not len(self.start) == len(self.end) == len(self.session):
            raise ValueError("start, end and session must have one entry an example")
        if len(self) and (self.start.min() < 0 or self.lengths.min() < 1 or self.end.max() >= len(self.clicks)):
            raise ValueError("every prefix needs at least one click and a target inside the clicks")

    def __len__(self) -> int:
        return len(self.start)

    @property
    def lengths(self) -> np.ndarray:
        """Clicks of each prefix, int64, shape (E,)."""
        return self.end - self.start

    @property
    def targets(self) -> np.ndarray:
        """The click after each prefix, int32, shape (E,)."""
        return self.clicks[self.end]


@dataclass(frozen=True)
class Dataset:
    """One data set: training sessions (validation included), test examples and where both come from.

    Parameters
    ----------
    name : str
        The name it was loaded under.
    train : Sessions
        All training sessions in time order; split the validation part off with `split_validation`.
    test : Examples
        The test examples.
    items : int
        Number of items; internal ids are 0 to ``items - 1``.
    first_id : int
        External id = internal id + ``first_id``.
    sha256 : str
        SHA-256 of the source's content.
    source : str
        The folder it was read from, or ``generated``.
    last_only : bool
        Whether only the last click of a session is to be predicted; else every click but the first.
    """

    name: str
    train: Sessions
    test: Examples
    items: int
    first_id: int
    sha256: str
    source: str
    last_only: bool = False

    @property
    def longest(self) -> int:
        """Clicks of the longest example, its target aside."""
        train = int(self.train.lengths.max()) - 1 if len(self.train) else 0
        return max(train, int(self.test.lengths.max()) if len(self.test) else 0)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Offsets of runs of the given lengths, with the total at the end."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def expand(sessions: Sessions, last_only: bool = False) -> Examples:
    """Every proper prefix of every session of two clicks or more, session by session, longest first.

    Parameters
    ----------
    sessions : Sessions
    last_only : bool
        The longest prefix of each session alone.

    Examples
    --------
    >>> expand(Sessions(np.array([4, 5, 6, 9]), np.array([0, 3, 4]))).targets.tolist()
    [6, 5]
    """
    counts = sessions.lengths - 1
    if last_only:
        counts = np.minimum(counts, 1)
    session = np.repeat(np.arange(len(sessions)), counts)
    rank = np.arange(len(session)) - _starts(counts)[session]  # 0 is the longest prefix of its session
    return Examples(sessions.clicks, sessions.offsets[session], sessions.offsets[session + 1] - 1 - rank, session)


def whole_sessions(examples: Examples) -> Sessions | None:
    """Return the sessions of which `examples` are all proper prefixes, longest first.

    Clicks outside every example are sessions of one click. None where the examples are others, such as the last
    prefixes alone.
    """
    if not len(examples):
        return None
    inside = np.zeros(len(examples.clicks) + 1, dtype=np.int64)
    np.add.at(inside, examples.start + 1, 1)
    np.add.at(inside, examples.end + 1, -1)
    begins = np.cumsum(inside)[:-1] <= 0
    sessions = Sessions(examples.clicks, np.append(np.flatnonzero(begins), len(begins)))
    again = expand(sessions)
    same = np.array_equal(again.start, examples.start) and np.array_equal(again.end, examples.end)
    return sessions if same else None


def split_validation(sessions: Sessions, fraction: float = 0.2) -> tuple[Sessions, Sessions]:
    """Cut off the last ``fraction`` of the sessions, in their given (time) order, for validation.

    Whole sessions are cut, never prefixes: siblings of a validation prefix would leak into training.

    Raises
    ------
    DissectError
        If the fraction is not between 0 and 1, or there are fewer than two sessions.
    """
    if not 0 < fraction < 1:
        raise DissectError(f"validation fraction {fraction} is not valid: choose one between 0 and 1")
    if len(sessions) < 2:
        raise DissectError(f"a validation split needs at least 2 sessions, there are {len(sessions)}")
    cut = len(sessions) - min(max(round(len(sessions) * fraction), 1), len(sessions) - 1)
    return sessions.slice(0, cut), sessions.slice(cut, len(sessions))


def subset(sessions: Sessions, n: int, seed: int) -> Sessions:
    """Draw ``n`` sessions at random, their order kept; all of them where there are no more than ``n``.

    Raises
    ------
    DissectError
        If ``n`` is less than 1.
    """
    if n < 1:
        raise DissectError(f"a subset of {n} sessions is not valid: choose 1 to {len(sessions)}")
    if n >= len(sessions):
        return sessions
    chosen = np.random.default_rng(seed).choice(len(sessions), size=n, replace=False, shuffle=False)
    return sessions.take(np.sort(chosen))
