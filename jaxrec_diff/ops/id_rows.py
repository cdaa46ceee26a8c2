"""Questions about rows of ids, all rows at once: what repeats, and what stands in another row."""

import chex
import numpy as np


def repeats(values: np.ndarray) -> np.ndarray:
    """bool[N, M]: whether the same value stands further left in its row of ids i32[N, M].

    >>> repeats(np.array([[3, 5, 3, 5], [7, 7, 7, 1]])).astype(int).tolist()
    [[0, 0, 1, 1], [0, 1, 1, 0]]
    """
    chex.assert_rank(values, 2)
    by_value = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, by_value, axis=1)
    again = np.zeros(values.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    out = np.empty_like(again)
    np.put_along_axis(out, by_value, again, axis=1)
    return out


def member(values: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """bool[N, M]: whether each id of i32[N, M] is in the same row of `pool`, i32[N, K].

    >>> member(np.array([[3, 5], [3, 5]]), np.array([[5, 0], [3, 9]])).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    chex.assert_rank([values, pool], 2)
    chex.assert_equal_shape_prefix([values, pool], 1)
    span = int(max(values.max(initial=0), pool.max(initial=0))) + 1
    offset = np.arange(len(values))[:, None] * span
    return np.isin(values + offset, pool + offset)
