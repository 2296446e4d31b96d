"""What a counting model is: fitted on sessions once, it scores some items for each session, the others stay at 0."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[Any]


class CountingModel(ABC):
    """Scores items by counts over training sessions; nothing is learnt, nothing is drawn at random.

    Attributes
    ----------
    background : array, (items,)
        Orders the items that score alike in a session; all equal where nothing does. Set by `fit`.
    """

    background: Array

    @abstractmethod
    def fit(self, clicks: Array, offsets: Array, items: int) -> None:
        """Count.

        Parameters
        ----------
        clicks : array, (N,)
            Items, 0 to ``items - 1``, of all training sessions one after the other, in the order of time.
        offsets : array, (S + 1,)
            Session s is ``clicks[offsets[s]:offsets[s + 1]]``.
        items : int
        """

    @abstractmethod
    def scores(self, clicks: Array, start: Array, end: Array) -> csr_array:
        """Scores of the items that may follow ``clicks[start:end]``, (B, items); what is not stored is 0.

        Parameters
        ----------
        clicks : array, (N,)
        start, end : array, (B,)
            Bounds of each session in `clicks`; none is empty.
        """


def unroll(clicks: Array, start: Array, end: Array) -> tuple[Array, Array, Array]:
    """The windows ``clicks[start:end]``, one after the other.

    Returns
    -------
    row, place, item : array, (T,) int64
        Of each click: which window it is in, its place there from 0, and the item.
    """
    size = end - start
    row = np.repeat(np.arange(len(size)), size)
    place = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
    return row, place, clicks[start[row] + place].astype(np.int64)
