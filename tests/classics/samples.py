"""Rows of items that the tests of classics share."""

import numpy as np

from jaxrec_diff.ops import graph
from jaxrec_diff.ops.graph import Rows
from jaxrec_diff.ops.ragged import Ragged

USERS, ITEMS = 40, 15

SMALL = Rows(np.array([0, 2, 4, 8]), np.array([0, 1, 1, 2, 0, 1, 2, 3]))
"""[[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]]"""


def data(seed=0):
    """Rows with repeats; item 15 is in none. Each has two answers that it does not hold."""
    rng = np.random.default_rng(seed)
    rows = [(rng.zipf(1.4, rng.integers(2, 9)) % (ITEMS - 1) + 1).tolist() for _ in range(USERS)]
    rows[4] = []
    answers = [
        rng.choice(sorted(set(range(1, ITEMS)) - set(row)), 2, replace=False).tolist()
        for row in rows
    ]
    flat = np.array(sum((row + a for row, a in zip(rows, answers, strict=True)), []), np.int32)
    stop = np.cumsum([len(row) + 2 for row in rows])
    start = stop - [len(row) + 2 for row in rows]
    return rows, answers, Ragged(flat, start, stop - 2, stop)


def sets(seed=0):
    """The distinct items of `data`."""
    return graph.item_sets(data(seed)[2], ITEMS)


def matrix(seed=0):
    """The same as f64[USERS, ITEMS]."""
    out = np.zeros((USERS, ITEMS))
    for user, row in enumerate(data(seed)[0]):
        out[user, np.array(row, int) - 1] = 1.0
    return out


def rows_of(x):
    """A matrix as rows."""
    start = np.append(0, np.cumsum((x > 0).sum(axis=1)))
    return Rows(start, np.nonzero(x)[1].astype(np.int32))
