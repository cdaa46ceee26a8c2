"""Neighbourhoods of items: one kernel whose exponents make the methods of the field.

    c_ij = sum_u x_ui x_uj v_u^2 d_u^-q
    w_ij = c_ij / (d_i^p d_j^r + h)          or, of sets,  c_ij / (d_i + d_j - c_ij + h)

i is an item of the history, j a candidate; each candidate keeps the K items most like it. d_u and
d_i are how many items a user and how many users an item has, v_u a weight of the user.

    cosine                 p = r = 1/2, q = 0
    asymmetric cosine      p = a, r = 1 - a, q = 0               (Aiolli 2013)
    Jaccard, Tversky       of sets
    P3alpha                p = q = alpha, r = 0                  (Cooper et al. 2014)
    RP3beta                p = q = alpha, r = beta               (Paudel et al. 2017)
    GF-CF's linear filter  p = r = 1/2, q = 1, diagonal kept     (arXiv:2108.07567)

Items that cannot be told apart are all neighbours or none is, so that figures do not depend on how
items are numbered.

>>> from jaxrec_diff.ops.graph import Rows
>>> sets = Rows(np.array([0, 2, 4, 8]), np.array([0, 1, 1, 2, 0, 1, 2, 3]))
>>> weights(most_alike(sets, 4, Kernel(p=0.3, r=0.7), 4)).toarray()[0].round(6).tolist()
[0.0, 0.752898, 0.5, 0.812252]
"""

from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.classics import scores
from jaxrec_diff.ops.graph import Rows

MOST_PAIRS = 10**8
"""Neighbours that all items together hold at most, 8 bytes each."""
ALL = 0
"""As a number of neighbours: all of them."""


class Kernel(NamedTuple):
    """How alike two items are; see the module."""

    p: float = 0.5  # exponent of the history item's degree
    q: float = 0.0  # of the user's
    r: float = 0.5  # of the candidate's
    shrink: float = 0.0  # h
    of_sets: bool = False  # Jaccard's denominator
    user_power: float = 0.0  # s: users weigh v_u = d_u^-s
    diagonal: bool = False  # an item is its own neighbour


class Alike(NamedTuple):
    """For every candidate the items most like it, best first, ties to the lowest id. numpy."""

    start: np.ndarray  # i64[I + 1] candidate j's are at start[j]:start[j + 1]
    items: np.ndarray  # i32[n] ids less one
    values: np.ndarray  # f32[n] above 0


COSINE = Kernel()
GRAPH_FILTER = Kernel(q=1.0, diagonal=True)


def most_alike(sets: Rows, num_items: int, kernel: Kernel, most: int) -> Alike:
    """The `most` items most like every item (`ALL`: all), in blocks of candidates.

    Costs the sum of squared lengths of the rows, and `MOST_PAIRS` places at most.

    Raises:
      ValueError: if `most` or the kernel's shrink is negative.
    """
    if most < 0 or kernel.shrink < 0:
        raise ValueError(
            f"neighbours must be at least 1 (0: all) and shrink at least 0, "
            f"got {most}, {kernel.shrink}"
        )
    most = min(most or num_items, max(MOST_PAIRS // num_items, 1))
    x = scores.matrix(sets, num_items)
    length = np.diff(sets.start).astype(np.float64)
    weight = np.maximum(length, 1) ** (-2 * kernel.user_power)
    degree = x.T @ weight
    history, candidate = _power(degree, kernel.p), _power(degree, kernel.r)
    weighted = _scaled(x, weight * np.maximum(length, 1) ** -kernel.q)
    by_item = x.T.tocsr()
    parts, step = [], max(scores.CHUNK // num_items, 1)
    for first in range(0, num_items, step):
        together = (by_item[first : first + step] @ weighted).tocoo()
        row, item, both = together.row, together.col, together.data
        if kernel.of_sets:
            denominator = degree[item] + degree[first + row] - both + kernel.shrink
        else:
            denominator = history[item] * candidate[first + row] + kernel.shrink
        # rounded, so that what is equal but for the order of its factors stays equal
        value = (both / denominator).astype(np.float32)
        real = (value > 0) & (kernel.diagonal | (item != first + row))
        parts.append(_best(row[real], item[real], value[real], by_item[first : first + step], most))
    counts = np.concatenate([count for count, _, _ in parts])
    return Alike(
        np.append(0, np.cumsum(counts)),
        np.concatenate([items for _, items, _ in parts]),
        np.concatenate([values for _, _, values in parts]),
    )


def cut(alike: Alike, count: int) -> Alike:
    """The `count` neighbours of every candidate that are more alike than the next; `ALL`: all."""
    if count == ALL:
        return alike
    row = np.repeat(np.arange(len(alike.start) - 1), np.diff(alike.start))
    next_one = np.minimum(alike.start[:-1] + count, max(len(alike.values) - 1, 0))
    longer = np.diff(alike.start) > count
    bar = np.where(longer, alike.values[next_one] if len(row) else 0.0, 0.0)
    kept = (np.arange(len(row)) - alike.start[row] < count) & (alike.values > bar[row])
    counts = np.bincount(row[kept], minlength=len(longer))
    return Alike(np.append(0, np.cumsum(counts)), alike.items[kept], alike.values[kept])


def weights(alike: Alike) -> Any:
    """w as a scipy matrix, float64[I, I]: rows are items of the history."""
    from scipy import sparse

    size = len(alike.start) - 1
    of = sparse.csr_array((alike.values.astype(np.float64), alike.items, alike.start), (size, size))
    return of.T.tocsr()


def _power(degree: np.ndarray, exponent: float) -> np.ndarray:
    """degree^exponent, 1 for items of nobody, which are alike to none."""
    return np.where(degree > 0, degree, 1.0) ** exponent


def _scaled(x: Any, weight: np.ndarray) -> Any:
    """diag(weight) x."""
    out = x.copy()
    out.data *= np.repeat(weight, np.diff(x.indptr))
    return out


def _best(row, item, value, block, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of each row are kept, and their items and values, best first."""
    order = np.lexsort((item, -value, row))
    row, item, value = row[order], item[order], value[order]
    counts = np.bincount(row, minlength=block.shape[0])
    place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    kept = place < most
    return np.minimum(counts, most), item[kept].astype(np.int32), value[kept]
