"""Low-pass filters on the graph of items, held by the interactions that make it.

    R = D_U^-p X D_I^-q,    A = R^T R / lambda_1,    S = (A + w V V^T) / (1 + w)

X is the binary matrix of training interactions, D_U and D_I are its row and column sums, lambda_1
is the largest eigenvalue of R^T R and V holds the eigenvectors of A's k largest. S is symmetric and
its eigenvalues lie in [0, 1]. No array of items by items is made: a row costs two sums over the
interactions. A user or an item without any has a row of zeros.

GF-CF (arXiv:2108.07567) has p = q = 1/2, where lambda_1 is 1; GiffCF (arXiv:2311.08744) p = 1/4.
"""

from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from jaxrec_diff.ops import graph
from jaxrec_diff.ops.graph import Graph, Rows


class Smoother(NamedTuple):
    """S; numpy on the host, jax arrays on devices."""

    graph: Graph
    by_user: Any  # float[U, 1] d_u^-2p
    by_item: Any  # float[I, 1] d_i^-q / sqrt(lambda_1)
    vectors: Any = None  # float[I, k] V; None where there is no ideal part


def make(
    sets: Rows,
    num_items: int,
    *,
    user_power: float = 0.25,
    item_power: float = 0.5,
    num_vectors: int = 0,
) -> Smoother:
    """The filter of a training set, as numpy in float64.

    Args:
      sets: the distinct items of every user, ids less one, from `graph.item_sets`.
      num_items: I.
      user_power: p.
      item_power: q.
      num_vectors: k of the ideal part; 0 for none.
    """
    r = normalized(sets, num_items, user_power=user_power, item_power=item_power)
    values, vectors = right_vectors(r, max(num_vectors, 1))
    user, item = _degrees(sets, num_items)
    return Smoother(
        graph.make(sets, num_items),
        _power(user, 2 * user_power)[:, None],
        (_power(item, item_power) / values[0])[:, None],
        vectors if num_vectors else None,
    )


def smooth(smoother: Smoother, rows: jax.Array, ideal_weight: float = 0.0) -> jax.Array:
    """x S of every row x: float[B, I] -> float[B, I].

    Args:
      smoother: device arrays.
      rows: of items, item j + 1 in column j.
      ideal_weight: w; 0 leaves A alone.

    >>> import jax.numpy as jnp
    >>> sets = Rows(np.array([0, 2, 4]), np.array([0, 1, 1, 2]))
    >>> made = jax.tree.map(jnp.asarray, make(sets, 3))
    >>> [round(float(each), 4) for each in smooth(made, jnp.array([[1.0, 0.0, 0.0]]))[0]]
    [0.5, 0.3536, 0.0]
    """
    chex.assert_shape(rows, (None, smoother.by_item.shape[0]))
    chex.assert_type(rows, float)
    by_user, by_item = (part.astype(rows.dtype) for part in (smoother.by_user, smoother.by_item))
    users = by_user * graph.row_sums(smoother.graph.by_user, by_item * rows.T)
    moved = (by_item * graph.row_sums(smoother.graph.by_item, users)).T
    if not ideal_weight:
        return moved
    vectors = smoother.vectors.astype(rows.dtype)
    return (moved + ideal_weight * (rows @ vectors) @ vectors.T) / (1.0 + ideal_weight)


def normalized(sets: Rows, num_items: int, *, user_power: float, item_power: float) -> Any:
    """R as a scipy matrix, float64[U, I]."""
    from scipy import sparse

    user, item = (
        _power(degree, power)
        for degree, power in zip(_degrees(sets, num_items), (user_power, item_power), strict=True)
    )
    held = np.repeat(user, np.diff(sets.start)) * item[sets.members]
    return sparse.csr_array((held, sets.members, sets.start), shape=(len(user), num_items))


def right_vectors(matrix: Any, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest singular values f64[k] of a scipy matrix [U, I], falling, and their right vectors
    f64[I, k]; k is `most`, or what there are. The search has a start that is always the same."""
    from scipy.sparse import linalg

    few = min(matrix.shape)
    if most >= few:
        _, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
        return values[:most], right[:most].T
    start = np.random.default_rng(0).normal(size=few)
    _, values, right = linalg.svds(matrix, most, v0=start)
    order = np.argsort(-values)
    return values[order], right[order].T


def _degrees(sets: Rows, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    return np.diff(sets.start), np.bincount(sets.members, minlength=num_items)


def _power(degree: np.ndarray, power: float) -> np.ndarray:
    """degree^-power, 1 for those of nobody, which no interaction ever reaches."""
    return np.maximum(degree, 1.0) ** -power
