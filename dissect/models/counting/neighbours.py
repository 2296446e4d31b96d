"""V-SKNN: what the most similar training sessions hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from dissect.models.counting.model import Array, CountingModel, unroll

#: Weight of the click at place i = 1..n of a session of n, as numerators and one denominator: most numerators are
#: whole, so that similarities that are equal are so in floating point too.
WEIGHTINGS: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]] = {
    "div": (lambda i, n: i, lambda n: n),
    "same": (lambda i, n: np.ones(len(i)), lambda n: np.ones(len(n))),
    "quadratic": (lambda i, n: i**2, lambda n: n**2),
    "log": (lambda i, n: 1 / np.log10(n - i + 1.7), lambda n: np.ones(len(n))),
}
#: Weight of a neighbour whose last shared item is the session's x-th from its end, x = 1, 2 ...
SCORE_WEIGHTINGS: dict[str, Callable[[Array], Array]] = {
    "div": lambda x: 1 / x,
    "same": lambda x: np.ones(len(x)),
    "linear": lambda x: np.where(x <= 100, 1 - 0.1 * x, 0),
    "quadratic": lambda x: 1 / x**2,
    "log": lambda x: 1 / np.log10(x + 1.7),
}


class NearestSessions(CountingModel):
    """V-SKNN: items of the nearest training sessions (Ludewig and Jannach, UMUAI 2018, arXiv 1803.09587).

    Of the training sessions that share an item with this one the `sample_size` most recent are compared with it, and
    the `k` most similar are its neighbours. The similarity is the sum of this session's position weights over the items
    shared (of an item clicked twice, the later position's), over the number of its distinct items; by the default
    weights a click at place i of n has ``i / n``. An item's score is the sum, over the neighbours that hold it, of
    similarity times ``1 / x``, where x is how far from this session's end, from 1, the last item shared stands. Items
    of this session are scored like others.

    Scores are those of the published code (``rn5l/session-rec``, ``knn/vsknn.py``) but for its division by the largest.
    Where sessions are equally recent or similar, that code takes them as they come out of a Python set; here the later
    in the training data are the more recent, and of equally similar sessions the more recent are taken.

    Parameters
    ----------
    k : int
        Neighbours.
    sample_size : int
        Most recent sessions that are compared; 0 for all that share an item.
    weighting : {"div", "same", "quadratic", "log"}
        Position weights of this session: ``i / n``, 1, ``(i / n)^2``, ``1 / log10(n - i + 1.7)``. The code's `linear`
        is left out: it gives the last click of a session of more than ten no weight.
    weighting_score : {"div", "same", "linear", "quadratic", "log"}
        ``1 / x``, 1, ``1 - x / 10`` (negative beyond 10, as in the code, and 0 beyond 100), ``1 / x^2``,
        ``1 / log10(x + 1.7)``.
    idf : float
        Factor of the inverse frequency: an item's score is multiplied by ``1 + idf log(S / n_i)`` with S sessions and
        ``n_i`` clicks of the item in training. `idf_weighting` in the code; 0 is off.
    """

    def __init__(
        self, k: int = 100, sample_size: int = 1000, weighting: str = "div", weighting_score: str = "div",
        idf: float = 0.0,
    ) -> None:  # fmt: skip
        for name, value, low in (("k", k, 1), ("sample_size", sample_size, 0), ("idf", idf, 0)):
            if not low <= value < np.inf:
                raise ValueError(f"{name} is {value}; it must be >= {low}")
        for name, value, table in (
            ("weighting", weighting, WEIGHTINGS), ("weighting_score", weighting_score, SCORE_WEIGHTINGS),
        ):  # fmt: skip
            if value not in table:
                raise ValueError(f"{name} is {value!r}; choose from: {', '.join(table)}")
        self.k, self.sample_size, self.idf = k, sample_size, idf
        self.weighting, self.weighting_score = weighting, weighting_score

    def fit(self, clicks: Array, offsets: Array, items: int) -> None:
        """Index sessions by item, and items by session."""
        self.background = np.zeros(items, np.int64)
        session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self._count = len(offsets) - 1
        held = csr_array((np.ones(len(clicks)), (session, clicks)), shape=(self._count, items))
        held.data[:] = 1  # an item counts once a session
        by_item = held.tocsc()
        self._first, self._sessions = by_item.indptr.astype(np.int64), by_item.indices  # of each item, oldest first
        if self.idf:
            often = np.maximum(np.bincount(clicks, minlength=items), 1)
            held.data += self.idf * np.log(self._count / often)[held.indices]
        self._held = held

    def scores(self, clicks: Array, start: Array, end: Array) -> csr_array:
        """Sum over the neighbours."""
        count, rows, length = self._count, len(start), end - start
        row, place, item = _distinct(*unroll(clicks, start, end))
        distinct = np.bincount(row, minlength=rows)
        pair, place = self._shared(row, place, item)
        if not len(pair):
            return csr_array((rows, len(self.background)))
        last = np.flatnonzero(np.diff(pair, append=-1))  # of each pair of sessions, the item shared last
        weight, scale = WEIGHTINGS[self.weighting]
        total = np.add.reduceat(weight(place, length[pair // count]).astype(np.float64), np.append(0, last[:-1] + 1))
        row, session = np.divmod(pair[last], count)
        similarity = total / (scale(length) * distinct)[row]
        near = self._nearest(row, similarity, rows)
        row, session = row[near], session[near]
        step = (length[row] - place[last[near]] + 1).astype(np.float64)
        value = similarity[near] * SCORE_WEIGHTINGS[self.weighting_score](step)
        return csr_array((value, (row, session)), shape=(rows, count)) @ self._held

    def _shared(self, row: Array, place: Array, item: Array) -> tuple[Array, Array]:
        """Items shared with training sessions: ``row * S + session`` and the item's place, sorted by both."""
        stop = self._first[item + 1]
        # A session among the most recent that share any item is among the most recent that hold this one.
        size = np.minimum(stop - self._first[item], self.sample_size or self._count)
        of, _, session = unroll(self._sessions, stop - size, stop)
        # Both in one number: sorting that is an order of magnitude faster than sorting by two keys.
        width = int(place.max(initial=0)) + 1
        pair, place = np.divmod(np.sort((row[of] * self._count + session) * width + place[of]), width)
        return pair, place

    def _nearest(self, row: Array, similarity: Array, rows: int) -> Array:
        """Which pairs, sorted by row and then oldest first, are neighbours: of the most recent the most similar."""
        size = np.bincount(row, minlength=rows)
        slot = np.cumsum(size)[row] - np.arange(len(row)) - 1  # 0 is the most recent
        longest = min(int(size.max()), self.sample_size or len(row))
        table = np.full((rows, longest), -1.0)
        recent = slot < longest
        table[row[recent], slot[recent]] = similarity[recent]
        taken = table >= 0
        if longest > self.k:
            least = np.partition(table, -self.k, axis=1)[:, -self.k, None]
            above, level = table > least, table == least
            taken &= above | (level & (level.cumsum(1) <= self.k - above.sum(1, keepdims=True)))
        return np.flatnonzero(recent)[taken[row[recent], slot[recent]]]


def _distinct(row: Array, place: Array, item: Array) -> tuple[Array, Array, Array]:
    """The distinct items of each row, each with its last place, counted from 1."""
    order = np.lexsort((place, item, row))
    row, place, item = row[order], place[order] + 1, item[order]
    last = (np.diff(row, append=-1) != 0) | (np.diff(item, append=-1) != 0)
    return row[last], place[last], item[last]
