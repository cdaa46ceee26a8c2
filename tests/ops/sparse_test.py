"""Ragged rows against plain loops over users and items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import sparse


def ragged(rows, most, num_items, seed=0):
    rng = np.random.default_rng(seed)
    items, value = np.zeros((rows, most), np.int32), np.zeros((rows, most), np.float32)
    for b in range(rows):
        size = rng.integers(0, most + 1)
        items[b, :size] = rng.permutation(num_items)[:size] + 1
        value[b, :size] = rng.uniform(0.1, 1.0, size)
    return items, value


def looped(items, value, num_items):
    out = np.zeros((len(items), num_items))
    for b, row in enumerate(items):
        for p, item in enumerate(row):
            if item > 0:
                out[b, item - 1] = value[b, p]
    return out


# 40 rows of up to 60 places fill several turns of the walk, 3 rows a part of one.
@pytest.mark.parametrize("rows", [3, 40])
def test_dense_and_project_equal_loops(rows):
    items, value = ragged(rows, 60, 80)
    table = np.random.default_rng(1).normal(size=(80, 7)).astype(np.float32)
    want = looped(items, value, 80)
    np.testing.assert_array_equal(sparse.dense(items, value, 80), want.astype(np.float32))
    got = jax.jit(sparse.project)(items, value, table)
    np.testing.assert_allclose(got, want @ table.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_the_dense_product():
    items, value = ragged(30, 50, 64)
    rng = np.random.default_rng(2)
    table, out = rng.normal(size=(64, 5)), rng.normal(size=(30, 5))
    got = jax.grad(lambda v, w: jnp.sum(out * sparse.project(items, v, w)), (0, 1))(value, table)
    row_gradient = out @ table.T  # of the dense row, read at the filled places
    filled = np.take_along_axis(row_gradient, np.maximum(items - 1, 0), axis=1) * (items > 0)
    np.testing.assert_allclose(got[0], filled, rtol=1e-4, atol=1e-5)
    want = looped(items, value, 64).T @ out
    np.testing.assert_allclose(got[1], want, rtol=1e-4, atol=1e-5)


def test_rows_without_items_are_zero():
    items, value = jnp.zeros((4, 3), jnp.int32), jnp.zeros((4, 3))
    table = jnp.ones((5, 2))
    assert not sparse.project(items, value, table).any()
    assert not sparse.dense(items, value, 5).any()
