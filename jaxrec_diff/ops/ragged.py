"""Rows of several lengths over one flat array."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Slices(NamedTuple):
    """Rows over one flat array: history `items[start:end]`, answer `items[end:stop]`.

    A training example has `stop = end + 1`. numpy on the host, jax arrays on devices.
    """

    items: Any  # i32[nnz]
    start: Any  # i32[N]
    end: Any  # i32[N]
    stop: Any  # i32[N]
    generated: Any = None  # bool[nnz], items that nobody chose, ahead of a user's; None: all real


def pick(slices: Slices, rows: Any) -> Slices:
    """Some of the rows, by index or as a range."""
    return slices._replace(start=slices.start[rows], end=slices.end[rows], stop=slices.stop[rows])


def window(items: jax.Array, start: jax.Array, end: jax.Array, length: int) -> jax.Array:
    """The last `length` items of `items[start:end]`, right-padded with 0: i32[B, length].

    >>> import jax.numpy as jnp
    >>> window(jnp.array([5, 6, 7, 8]), jnp.array([0, 1]), jnp.array([4, 2]), 3).tolist()
    [[6, 7, 8], [6, 0, 0]]
    """
    place = jnp.maximum(start, end - length)[:, None] + jnp.arange(length)
    inside = place < end[:, None]
    return jnp.where(inside, items[jnp.where(inside, place, 0)], 0).astype(jnp.int32)


def generated(slices: Slices, start: jax.Array, end: jax.Array, length: int) -> jax.Array | None:
    """How many of the items that `window` shows are generated, i32[B]; None where all are real."""
    if slices.generated is None:
        return None
    return window(jnp.asarray(slices.generated), start, end, length).sum(axis=-1)
