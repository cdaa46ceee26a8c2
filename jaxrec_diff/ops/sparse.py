"""Rows of an interaction matrix held as ids and values, f32[B, P], and never as users x items.

A row fills its places from the left; id 0 ends it, items are 1..I. No item stands twice in a row.

>>> import jax.numpy as jnp
>>> items, value = jnp.array([[3, 1], [2, 0]]), jnp.array([[1.0, 0.5], [1.0, 0.0]])
>>> dense(items, value, 3).tolist()
[[0.5, 0.0, 1.0], [0.0, 1.0, 0.0]]
>>> project(items, value, jnp.array([[1.0], [10.0], [100.0]])).tolist()
[[100.5], [10.0]]
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

# Filled places gathered at once: rows of a table that fit a cache, and few turns of the loop.
_PLACES = 512


def dense(items: jax.Array, value: jax.Array, num_items: int) -> jax.Array:
    """The rows as float[B, I], column j for item j + 1; exists for one batch only."""
    _check(items, value)
    column = jnp.where(items > 0, items - 1, num_items)
    row = jnp.arange(items.shape[0])[:, None]
    return jnp.zeros((items.shape[0], num_items), value.dtype).at[row, column].set(
        value, mode="drop"
    )  # fmt: skip


@jax.custom_vjp
def project(items: jax.Array, value: jax.Array, table: jax.Array) -> jax.Array:
    """`dense(items, value, I) @ table` as a sum of gathered rows: f32[I, D] -> f32[B, D].

    Costs nnz D multiply-adds instead of B I D, where nnz counts the filled places of this batch and
    not the padding behind them.
    """
    items, value, table = (jnp.asarray(part) for part in (items, value, table))
    _check(items, value)
    chex.assert_rank(table, 2)
    chex.assert_type(table, float)
    start = jnp.zeros((items.shape[0], table.shape[1]), table.dtype)

    def add(total, row, place):
        return total.at[row].add(
            _weights(items, value, row, place) * table[_column(items, row, place)]
        )

    return _over_filled(items, add, start)


def _forward(items, value, table):
    return project(items, value, table), (items, value, table)


def _backward(saved, grad):
    items, value, table = (jnp.asarray(part) for part in saved)

    def add_rows(total, row, place):
        column = _column(items, row, place)
        return total.at[column].add(_weights(items, value, row, place) * grad[row])

    def set_values(total, row, place):
        real = items.at[row, place].get(mode="fill", fill_value=0) > 0
        each = jnp.sum(grad[row] * table[_column(items, row, place)], axis=-1)
        return total.at[row, place].add(jnp.where(real, each, 0.0), mode="drop")

    # Two walks: values are data, and their gradient, mostly unused, is then no work at all.
    return (
        None,
        _over_filled(items, set_values, jnp.zeros_like(value)),
        _over_filled(items, add_rows, jnp.zeros_like(table)),
    )


project.defvjp(_forward, _backward)


def _check(items: jax.Array, value: jax.Array) -> None:
    chex.assert_rank(items, 2)
    chex.assert_equal_shape([items, value])
    chex.assert_type([items, value], [int, float])


def _over_filled(items: jax.Array, visit, carry):
    """Folds `visit(carry, row i32[Q], place i32[Q])` over the filled places, Q at a time.

    Behind the last of them `place` is P, out of bounds.
    """
    size = jnp.sum(items > 0, axis=1)
    stop = jnp.cumsum(size)

    def turn(state):
        first, carry = state
        index = first + jnp.arange(_PLACES)
        row = _place_of(stop, index)
        inside = row < items.shape[0]
        row = jnp.where(inside, row, 0)
        place = jnp.where(inside, index - (stop[row] - size[row]), items.shape[1])
        return first + _PLACES, visit(carry, row, place)

    return jax.lax.while_loop(lambda state: state[0] < stop[-1], turn, (0, carry))[1]


def _place_of(stop: jax.Array, index: jax.Array) -> jax.Array:
    """i32[Q] how many of the rising `stop` i32[B] are at most each `index` i32[Q]."""
    rows: Any = stop.shape[0]
    if isinstance(rows, int):
        return jnp.searchsorted(stop, index, side="right")
    # an exported program is for any number of rows, and a search needs to know it
    return jnp.sum(stop <= index[:, None], axis=1, dtype=jnp.int32)


def _weights(items, value, row, place):
    """f32[Q, 1] values of places, 0 out of bounds."""
    return value.at[row, place].get(mode="fill", fill_value=0.0)[:, None]


def _column(items, row, place):
    """i32[Q] columns of places; one out of bounds, whose weight is 0, points at the first."""
    return jnp.maximum(items.at[row, place].get(mode="fill", fill_value=1) - 1, 0)
