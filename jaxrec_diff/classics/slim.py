"""SLIM: sparse weights between items, above zero, by an elastic net (Ning and Karypis, ICDM 2011).

    min_w  1/2 |x_j - X w|^2 + l2/2 |w|^2 + l1 |w|_1,   w >= 0,  w_j = 0,   for every item j

Coordinate descent on X^T X, many items at once, over the items most like each by cosine (fs-SLIM).
What shares at most l1 users with j has no weight: w >= 0 and X^T X >= 0, so leaving it out is
exact. In scikit-learn's terms l1 = U alpha rho and l2 = U alpha (1 - rho).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.classics import scores, similarity
from jaxrec_diff.classics.ease import gram
from jaxrec_diff.classics.similarity import Alike
from jaxrec_diff.ops.graph import Rows

CANDIDATES = 400
"""Items that may get a weight for one item."""
TOLERANCE = 1e-4
"""The sweeps end where no weight moves by as much."""
SWEEPS = 40
"""Walks over all candidates at most."""

_TOGETHER = 64  # items solved at once
_DENSE_ITEMS = 8192  # the largest catalogue whose X^T X is kept


class Shared(NamedTuple):
    """What every setting is fitted from."""

    alike: Alike  # candidates of every item
    degree: np.ndarray  # f64[I] users of every item
    pairs: Callable[[np.ndarray], np.ndarray]  # i64[n, M] ids less one -> f32[n, M, M] of X^T X


def shared(sets: Rows, num_items: int, candidates: int = CANDIDATES) -> Shared:
    """The candidates of every item and how often they occur together."""
    near = similarity.most_alike(sets, num_items, similarity.COSINE, candidates + 1)
    alike = similarity.cut(near, candidates)
    degree = np.bincount(sets.members, minlength=num_items).astype(np.float64)
    if num_items <= _DENSE_ITEMS:
        whole = gram(sets, num_items).astype(np.float32)
        return Shared(alike, degree, lambda ids: whole[ids[:, :, None], ids[:, None, :]])
    by_item = scores.matrix(sets, num_items).tocsc()

    def pairs(ids: np.ndarray) -> np.ndarray:
        columns = (by_item[:, row] for row in ids)
        return np.stack([(column.T @ column).toarray() for column in columns]).astype(np.float32)

    return Shared(alike, degree, pairs)


def weights(of: Shared, l1: float, l2: float, tolerance: float = TOLERANCE) -> Any:
    """w as a scipy matrix, float64[I, I]: rows are items of the history.

    Raises:
      ValueError: if a penalty is negative, or both are 0.
    """
    from scipy import sparse

    if not (l1 >= 0 and l2 >= 0 and l1 + l2 > 0):
        raise ValueError(f"l1 and l2 must be at least 0 and not both 0, got {l1}, {l2}")
    size = len(of.degree)
    parts = [_columns(of, first, l1, l2, tolerance) for first in range(0, size, _TOGETHER)]
    item, candidate, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sparse.csr_array((value, (item, candidate)), (size, size))


def fit(of: Shared, l1: float, l2: float) -> scores.Score:
    """`weights` as a score."""
    return scores.of_weights(weights(of, l1, l2))


def _columns(of: Shared, first: int, l1: float, l2: float, tolerance: float):
    """Rows, columns and values above 0 of the weights of `_TOGETHER` items."""
    stop = min(first + _TOGETHER, len(of.degree))
    start, counts = of.alike.start[first:stop], np.diff(of.alike.start[first : stop + 1])
    width = int(counts.max())
    real = np.arange(width) < counts[:, None]
    place = np.where(real, start[:, None] + np.arange(width), 0)
    ids = of.alike.items[place]
    # how many users each candidate shares with the item, from the cosine between them
    together = np.rint(
        of.alike.values[place] * np.sqrt(of.degree[ids] * of.degree[first:stop, None])
    )
    real &= together > l1
    order = np.argsort(~real, axis=1, kind="stable")
    real, ids, together = (np.take_along_axis(part, order, 1) for part in (real, ids, together))
    if not real.any():
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, np.zeros(0)
    # few widths, so that few programs are compiled
    width = -(-int(real.sum(axis=1).max(initial=0)) // _TOGETHER) * _TOGETHER
    grown = [(0, _TOGETHER - len(ids)), (0, max(width - ids.shape[1], 0))]
    real, ids, together = (np.pad(part[:, :width], grown) for part in (real, ids, together))
    together = np.where(real, together, 0.0).astype(np.float32)
    found = np.asarray(_descend(of.pairs(ids), together, real, l1, l2, tolerance), np.float64)
    row, column = np.nonzero(found > 0)
    return ids[row, column], first + row, found[row, column]


@jax.jit
def _descend(pairs, together, real, l1, l2, tolerance):
    """f32[n, M] weights of n elastic nets: pairs f[n, M, M], together f[n, M], real bool[n, M]."""
    by_candidate = jnp.swapaxes(pairs, 0, 1)
    own = jnp.diagonal(pairs, axis1=1, axis2=2).T

    def move(m, state):
        found, left, most = state
        wanted = jnp.maximum((left[:, m] + own[m] * found[m] - l1) / (own[m] + l2), 0.0)
        step = jnp.where(real[:, m], wanted, 0.0) - found[m]
        left = left - step[:, None] * by_candidate[m]
        return found.at[m].add(step), left, jnp.maximum(most, jnp.abs(step).max())

    def sweep(state):
        found, left, _, sweeps = state
        start = (found, left, jnp.zeros((), found.dtype))
        return *jax.lax.fori_loop(0, len(own), move, start), sweeps + 1

    def goes_on(state):
        return (state[2] >= tolerance) & (state[3] < SWEEPS)

    most = jnp.full((), jnp.inf, own.dtype)
    return jax.lax.while_loop(goes_on, sweep, (jnp.zeros_like(own), together, most, 0))[0].T
