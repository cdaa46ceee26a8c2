"""What a fitted classic is: rows of items in, a score of every item out."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrec_diff.ops.graph import Rows

CHUNK = 2**22  # scores, or pairs of items, held at once

Score = Callable[[Rows], Any]
"""Rows of items, ids less one -> f[n, I]. Sums are taken in float64 and rounded once, so that
figures do not depend on how items are numbered."""


def matrix(sets: Rows, num_items: int) -> Any:
    """The rows as a scipy matrix of ones, float64[N, I]."""
    from scipy import sparse

    held = np.ones(len(sets.members))
    shape = (len(sets.start) - 1, num_items)
    return sparse.csr_array((held, sets.members, sets.start), shape=shape)


def of_weights(weights: Any) -> Score:
    """A row's score of item j is the sum of w[i, j] over its items i.

    Args:
      weights: f[I, I], a numpy array or a scipy matrix.
    """
    num_items = weights.shape[0]

    def score(sets: Rows) -> np.ndarray:
        scores = matrix(sets, num_items) @ weights
        return scores if isinstance(scores, np.ndarray) else scores.toarray()

    return score
