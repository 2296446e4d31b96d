"""SR: what came after this item in training sessions, and how soon."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from dissect.models.counting.model import Array, CountingModel


class SequentialRules(CountingModel):
    """SR: sequential rules from the last item (Ludewig and Jannach, UMUAI 2018, arXiv 1803.09587).

    Wherever item i stands before item j in a training session, x clicks apart, the rule i -> j gains ``1 / x``; a
    session scores items by the rules of its last item. No popularity: items without a rule score 0 and are tied.

    The published code (``rn5l/session-rec``, ``baselines/sr.py``) keeps only the 20 strongest rules of an item, which
    of equal ones by their order in a dictionary. Here all are kept: ranks differ beyond the 20th, and where it is tied.

    Parameters
    ----------
    reach : int
        Largest x that counts; `steps` in the published code.
    """

    def __init__(self, reach: int = 10) -> None:
        if reach < 1:
            raise ValueError(f"reach is {reach}; a rule reaches 1 click or more")
        self.reach = reach

    def fit(self, clicks: Array, offsets: Array, items: int) -> None:
        """Add up the rules."""
        self.background = np.zeros(items, np.int64)
        session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        longest = int(np.diff(offsets).max())
        pairs = []
        for x in range(1, min(self.reach, max(longest - 1, 1)) + 1):
            first = np.flatnonzero(session[:-x] == session[x:])
            pairs.append((clicks[first], clicks[first + x], np.full(len(first), 1 / x)))
        row, column, weight = (np.concatenate(part) for part in zip(*pairs, strict=True))
        self.rules = csr_array((weight, (row, column)), shape=(items, items))

    def scores(self, clicks: Array, start: Array, end: Array) -> csr_array:
        """The rules of each session's last item."""
        return self.rules[clicks[end - 1].astype(np.int64)]
