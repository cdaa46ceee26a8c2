"""EASE and EDLAE: the linear autoencoder of items in closed form."""

import chex
import numpy as np

from jaxrec_diff.classics import scores
from jaxrec_diff.ops.graph import Rows

MOST_ITEMS = 20_000
"""The largest catalogue whose [items, items] matrix is inverted."""

_MIRRORED = 256  # rows of a matrix whose triangles are made alike at once


def bytes_at_most(num_items: int) -> int:
    """The most memory that a fit takes: one float64 matrix [I, I], and chunks of work."""
    return 8 * num_items**2 + 12 * 8 * scores.CHUNK


def gram(sets: Rows, num_items: int) -> np.ndarray:
    """f64[I, I] X^T X: how many rows hold both items."""
    x = scores.matrix(sets, num_items)
    out, by_item = np.empty((num_items, num_items)), x.T.tocsr()
    step = max(scores.CHUNK // num_items, 1)
    for first in range(0, num_items, step):
        out[first : first + step] = (by_item[first : first + step] @ x).toarray()
    return out


def ease(
    gram: np.ndarray, regularisation: float, dropout: float = 0.0, *, overwrite: bool = False
) -> np.ndarray:
    """f64[I, I] w with a diagonal of zeros that restores X as X w best.

        P = (X^T X + lambda 1 + p / (1 - p) diag(X^T X))^-1,  w_ij = -P_ij / P_jj

    EASE (arXiv:1905.03375), Eq. 8, for p = 0; with p the closed form of dropping items of the
    input with that probability, EDLAE (Steck, NeurIPS 2020).

    Args:
      gram: f64[I, I] X^T X, how many rows hold both items, see `gram`.
      regularisation: lambda, above 0.
      dropout: p, at least 0 and below 1.
      overwrite: the result takes the place of `gram`, and no other matrix is made.

    Raises:
      ValueError: if `regularisation` is not positive: X^T X may have no inverse; on another p.

    >>> ease(np.array([[3.0, 2.0], [2.0, 3.0]]), 1.0).round(6).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    >>> ease(np.array([[3.0, 2.0], [2.0, 3.0]]), 1.0, dropout=0.5).round(6).tolist()
    [[0.0, 0.285714], [0.285714, 0.0]]
    """
    chex.assert_shape(gram, (len(gram), len(gram)))
    chex.assert_type(gram, float)
    if not regularisation > 0:
        raise ValueError(f"regularisation must be above 0 (say 1.0), got {regularisation}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1 (say 0.25), got {dropout}")
    weights = gram if overwrite else np.array(gram, np.float64)
    diagonal = np.diag_indices_from(weights)
    weights[diagonal] += regularisation + dropout / (1 - dropout) * weights[diagonal]
    _invert(weights)
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights


def fit(sets: Rows, num_items: int, regularisation: float, dropout: float = 0.0) -> scores.Score:
    """`ease` of training rows."""
    return scores.of_weights(ease(gram(sets, num_items), regularisation, dropout, overwrite=True))


def _invert(matrix: np.ndarray) -> None:
    """A symmetric positive definite f64[I, I] becomes its inverse, by Cholesky, in place."""
    from scipy.linalg import lapack

    for part in (lapack.dpotrf, lapack.dpotri):
        # LAPACK's order of a symmetric matrix is its transpose; its lower triangle is our upper
        _, wrong = part(matrix.T, 1, **{f"overwrite_{'a' if part is lapack.dpotrf else 'c'}": 1})
        if wrong:
            raise ValueError(f"the matrix is not positive definite (LAPACK says {wrong})")
    for first in range(0, len(matrix), _MIRRORED):
        rows = slice(first, first + _MIRRORED)
        block = np.triu(matrix[rows, rows])
        matrix[rows, rows] = block + np.triu(block, 1).T
        matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T
