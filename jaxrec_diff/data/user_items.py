"""Training rows of users: which items, and how much each counts."""

import numpy as np

from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


def distinct(user_items: Ragged) -> Ragged:
    """The rows with every item once, at its last place; `items` then holds nothing else."""
    sizes = (user_items.end - user_items.start).astype(np.int64)
    place, user = ragged.expand(user_items.start, sizes)
    items = user_items.items[place]
    pair = user * (int(items.max(initial=0)) + 1) + items
    _, from_behind = np.unique(pair[::-1], return_index=True)
    kept = np.sort(len(pair) - 1 - from_behind)
    bounds = np.searchsorted(user[kept], np.arange(len(sizes) + 1)).astype(np.int32)
    return Ragged(items[kept], bounds[:-1], bounds[1:], bounds[1:])


def time_weights(user_items: Ragged, low: float, high: float) -> np.ndarray:
    """Weights that rise with time along every row, f32, aligned with the items of `distinct` rows.

        w_m = low + (m - 1) / (M - 1) (high - low),  m = 1 .. M;  low if M = 1

    T-DiffRec (arXiv:2304.04971), Eq. 17: the oldest item of a user weighs `low`, the newest `high`.

    >>> rows = Ragged(np.array([4, 2, 9, 7]), np.array([0, 3]), np.array([3, 4]), np.array([3, 4]))
    >>> time_weights(rows, 0.5, 1.0).tolist()
    [0.5, 0.75, 1.0, 0.5]
    """
    sizes = (user_items.end - user_items.start).astype(np.int64)
    place, row = ragged.expand(0, sizes)
    along = place / np.maximum(sizes - 1, 1)[row]
    return (low + along * (high - low)).astype(np.float32)
