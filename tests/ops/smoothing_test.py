"""Filters on the graph of items against dense matrices and published figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import smoothing
from jaxrec_diff.ops.graph import Rows

X = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]], np.float64)
FIRST = [0.498267337497, 0.568661180286, 0.498267337497, 0.424362796204]
A = [[0.351498378744, 0.286997224446, 0.145595395628, 0.205902983116],
     [0.286997224446, 0.371600907907, 0.286997224446, 0.168119081717],
     [0.145595395628, 0.286997224446, 0.351498378744, 0.205902983116],
     [0.205902983116, 0.168119081717, 0.205902983116, 0.291190791256]]  # fmt: skip


def sets_of(x):
    return Rows(np.append(0, np.cumsum(x.sum(axis=1))).astype(int), np.nonzero(x)[1])


def dense(smoother, num_items, weight=0.0):
    """S as the filter applies it to every unit row, in float64."""
    with jax.enable_x64(True):
        held = jax.tree.map(jnp.asarray, smoother)
        return np.asarray(smoothing.smooth(held, jnp.eye(num_items), weight))


def test_the_filter_of_a_small_graph():
    values, vectors = smoothing.right_vectors(
        smoothing.normalized(sets_of(X), 4, user_power=0.25, item_power=0.5), 4
    )
    np.testing.assert_allclose(
        values**2, [1.71708726723, 0.353553390593, 0.274537310822], rtol=1e-11
    )
    np.testing.assert_allclose(np.abs(vectors[:, 0]), FIRST, rtol=1e-11)
    np.testing.assert_allclose(dense(smoothing.make(sets_of(X), 4), 4), A, rtol=1e-10)
    # GF-CF's exponents make another filter, whose largest eigenvalue is 1
    other = smoothing.normalized(sets_of(X), 4, user_power=0.5, item_power=0.5)
    np.testing.assert_allclose(
        smoothing.right_vectors(other, 4)[0] ** 2, [1, 0.25, 0.166666666667], rtol=1e-11
    )


def test_its_ideal_part():
    smoother = smoothing.make(sets_of(X), 4, num_vectors=2)
    smoothed = X[0] @ dense(smoother, 4, 0.2)
    want = [0.704015607968, 0.649951915328, 0.365763122038, 0.387145848887]
    np.testing.assert_allclose(smoothed, want, rtol=1e-11)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_it_is_symmetric_and_lowers_all_but_the_first_direction(weight):
    x = (np.random.default_rng(0).random((30, 12)) < 0.2).astype(float)
    x[4], x[:, 7] = 0, 0  # a user and an item of nobody
    s = dense(smoothing.make(sets_of(x), 12, num_vectors=3), 12, weight)
    np.testing.assert_allclose(s, s.T, atol=1e-15)
    values, vectors = np.linalg.eigh(s)
    assert values[0] > -1e-14 and abs(values[-1] - 1) < 1e-12
    assert (s[7] == 0).all() and (s[:, 7] == 0).all()
    # the largest eigenvalue by power iteration on the matrix itself
    d_user, d_item = (np.maximum(x.sum(axis=axis), 1) for axis in (1, 0))
    n = x / d_user[:, None] ** 0.25 / d_item**0.5
    v = np.ones(12)
    for _ in range(200):
        v = n.T @ (n @ v)
        top = np.linalg.norm(v)
        v /= top
    ideal = np.linalg.svd(n)[2][:3]
    want = (n.T @ n / top + weight * ideal.T @ ideal) / (1 + weight)
    np.testing.assert_allclose(s, want, atol=1e-12)


def test_rows_keep_their_type():
    held = jax.tree.map(jnp.asarray, smoothing.make(sets_of(X), 4, num_vectors=2))
    assert smoothing.smooth(held, jnp.ones((2, 4)), 0.2).dtype == jnp.float32
