"""Training rows of users: which items, and how much each counts."""

import numpy as np

from jaxrec_diff.ops.ragged import Slices


def distinct(profiles: Slices) -> Slices:
    """The rows with every item once, at its last place; `items` then holds nothing else."""
    sizes = (profiles.end - profiles.start).astype(np.int64)
    user = np.repeat(np.arange(len(sizes)), sizes)
    first = np.cumsum(sizes) - sizes
    items = profiles.items[np.arange(sizes.sum()) + np.repeat(profiles.start - first, sizes)]
    pair = user * (int(items.max(initial=0)) + 1) + items
    _, from_behind = np.unique(pair[::-1], return_index=True)
    kept = np.sort(len(pair) - 1 - from_behind)
    bounds = np.searchsorted(user[kept], np.arange(len(sizes) + 1)).astype(np.int32)
    return Slices(items[kept], bounds[:-1], bounds[1:], bounds[1:])


def time_weights(profiles: Slices, low: float, high: float) -> np.ndarray:
    """Weights that rise with time along every row, f32, aligned with the items of `distinct` rows.

        w_m = low + (m - 1) / (M - 1) (high - low),  m = 1 .. M;  low if M = 1

    T-DiffRec (arXiv:2304.04971), Eq. 17: the oldest item of a user weighs `low`, the newest `high`.

    >>> rows = Slices(np.array([4, 2, 9, 7]), np.array([0, 3]), np.array([3, 4]), np.array([3, 4]))
    >>> time_weights(rows, 0.5, 1.0).tolist()
    [0.5, 0.75, 1.0, 0.5]
    """
    sizes = (profiles.end - profiles.start).astype(np.int64)
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    along = place / np.repeat(np.maximum(sizes - 1, 1), sizes)
    return (low + along * (high - low)).astype(np.float32)
