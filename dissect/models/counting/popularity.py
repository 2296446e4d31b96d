"""S-POP: what was clicked most in this session."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from dissect.models.counting.model import Array, CountingModel, unroll


class SessionPopularity(CountingModel):
    """S-POP: clicks in this session, then clicks in training (Hidasi et al., ICLR'16, arXiv 1511.06939).

    The published score of item i in session s is ``n_is + n_i / (1 + n_i)`` with the clicks ``n_is`` in the session and
    ``n_i`` in training. As the second term is below 1, it orders items by `n_is` and those of equal `n_is` by `n_i`:
    so it is done here, in whole numbers. Items equal in both are tied. The released code gives a popularity to the 100
    most popular items alone; here every item keeps its own.
    """

    def fit(self, clicks: Array, offsets: Array, items: int) -> None:
        """Count the clicks of every item."""
        self.background = np.bincount(clicks, minlength=items)

    def scores(self, clicks: Array, start: Array, end: Array) -> csr_array:
        """Clicks of each item in the session."""
        row, _, item = unroll(clicks, start, end)
        shape = (len(start), len(self.background))
        return csr_array((np.ones(len(row)), (row, item)), shape=shape)  # entries of one place are added
