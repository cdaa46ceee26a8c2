"""GF-CF: a linear and an ideal low-pass filter on the graph of items (arXiv:2108.07567).

    R = D_U^-1/2 X D_I^-1/2,  P = R^T R,  V the right singular vectors of R's k largest values
    s = x P + alpha (x D_I^-1/2) V V^T D_I^1/2

The two factors of the ideal part are not the same: a row is divided by sqrt(d_i) on its way in and
multiplied by sqrt(d_j) on its way out.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.classics import scores, similarity
from jaxrec_diff.ops import smoothing
from jaxrec_diff.ops.graph import Rows


class Spectrum(NamedTuple):
    """What every strength and every number of vectors is fitted from."""

    linear: Any  # P, a scipy matrix float64[I, I]
    vectors: np.ndarray  # f64[I, k] V, largest singular value first
    root: np.ndarray  # f64[I] sqrt(d_i)


def spectrum(sets: Rows, num_items: int, most: int) -> Spectrum:
    """P and at most `most` singular vectors, from a start that is always the same.

    P keeps `similarity.MOST_PAIRS` places at most.
    """
    linear = similarity.weights(
        similarity.most_alike(sets, num_items, similarity.GRAPH_FILTER, similarity.ALL)
    )
    r = smoothing.normalized(sets, num_items, user_power=0.5, item_power=0.5)
    root = np.sqrt(np.bincount(sets.members, minlength=num_items))
    return Spectrum(linear, smoothing.right_vectors(r, most)[1], root)


def fit(found: Spectrum, num_vectors: int, strength: float) -> scores.Score:
    """The filter with k = `num_vectors` and alpha = `strength`; 0 leaves the linear part alone."""
    linear = scores.of_weights(found.linear)
    if strength == 0 or num_vectors == 0:
        return linear
    vectors = found.vectors[:, :num_vectors]
    into = vectors / np.maximum(found.root, 1.0)[:, None]  # an item of nobody has no vector
    out = strength * (vectors * found.root[:, None]).T

    def score(sets: Rows) -> np.ndarray:
        return linear(sets) + (scores.matrix(sets, len(into)) @ into) @ out

    return score
