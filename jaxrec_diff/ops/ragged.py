"""Rows of several lengths over one flat array."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np


class Ragged(NamedTuple):
    """Rows over one flat array: history `items[start:end]`, answer `items[end:stop]`.

    A training example has `stop = end + 1`. numpy on the host, jax arrays on devices.
    """

    items: Any  # i32[nnz]
    start: Any  # i32[N]
    end: Any  # i32[N]
    stop: Any  # i32[N]
    generated: Any = None  # bool[nnz], items that nobody chose, ahead of a user's; None: all real


def make(items: np.ndarray, start: np.ndarray, end: np.ndarray, stop: np.ndarray) -> Ragged:
    """Rows with bounds of int32, from bounds of any integer type."""
    return Ragged(items, *(part.astype(np.int32) for part in (start, end, stop)))


def pick(rows: Ragged, index: Any) -> Ragged:
    """Some of the rows, by index or as a range."""
    return rows._replace(start=rows.start[index], end=rows.end[index], stop=rows.stop[index])


def window(items: jax.Array, start: jax.Array, end: jax.Array, length: int) -> jax.Array:
    """The last `length` items of `items[start:end]`, right-padded with 0: i32[B, length].

    >>> import jax.numpy as jnp
    >>> window(jnp.array([5, 6, 7, 8]), jnp.array([0, 1]), jnp.array([4, 2]), 3).tolist()
    [[6, 7, 8], [6, 0, 0]]
    """
    chex.assert_rank([items, start], 1)
    chex.assert_equal_shape([start, end])
    place = jnp.maximum(start, end - length)[:, None] + jnp.arange(length)
    inside = place < end[:, None]
    return jnp.where(inside, items[jnp.where(inside, place, 0)], 0).astype(jnp.int32)


def generated(rows: Ragged, start: jax.Array, end: jax.Array, length: int) -> jax.Array | None:
    """How many of the items that `window` shows are generated, i32[B]; None where all are real."""
    if rows.generated is None:
        return None
    return window(jnp.asarray(rows.generated), start, end, length).sum(axis=-1, dtype=jnp.int32)


def cut(rows: Ragged, index: np.ndarray, before: int, after: int) -> Ragged:
    """Some rows with nothing around them, on the host, in arrays of a size that shapes alone fix.

    Args:
      rows: numpy, memory-mapped or not; only what is cut is read.
      index: int[n] the rows, in any order.
      before: items of a history that are kept, the newest.
      after: items behind it.

    Returns:
      n rows, each with `before + after` places of the flat array.

    >>> rows = make(np.arange(10, 20), *(np.array([part]) for part in (1, 6, 7)))
    >>> found = cut(rows, np.array([0]), 3, 1)
    >>> found.items.tolist(), found.start.tolist(), found.end.tolist(), found.stop.tolist()
    ([13, 14, 15, 16], [0], [3], [4])
    """
    chex.assert_rank([rows.start, index], 1)
    end = rows.end[index].astype(np.int64)
    start = np.maximum(rows.start[index], end - before)
    place = start[:, None] + np.arange(before + after)
    place = np.minimum(place, len(rows.items) - 1)
    first = np.arange(len(index), dtype=np.int64) * (before + after)
    place = place.reshape(-1)
    found = make(rows.items[place], first, first + end - start, first + end - start + after)
    return found._replace(generated=None if rows.generated is None else rows.generated[place])


def alone(rows: Ragged, index: np.ndarray) -> Ragged:
    """Some rows, whole, over a flat array of their own; what two of them share stands there once.

    Args:
      rows: numpy, memory-mapped or not; only what is kept is read.
      index: int[n] the rows, in any order.

    >>> rows = make(np.arange(10, 20), *(np.array(part) for part in ([1, 5], [3, 8], [4, 9])))
    >>> found = alone(rows, np.array([1]))
    >>> found.items.tolist(), found.start.tolist(), found.end.tolist(), found.stop.tolist()
    ([15, 16, 17, 18], [0], [3], [4])
    """
    chex.assert_rank([rows.items, rows.start, index], 1)
    picked = pick(rows, index)
    by_start = np.argsort(picked.start, kind="stable")
    start, stop = picked.start[by_start], picked.stop[by_start]
    reached = np.maximum.accumulate(np.append(0, stop))[:-1]  # by the rows before
    first = np.maximum(start, reached)
    kept, _ = expand(first, np.maximum(stop - first, 0))  # rising
    found = make(rows.items[kept], *(np.searchsorted(kept, part) for part in picked[1:4]))
    return found._replace(generated=None if rows.generated is None else rows.generated[kept])


def prefixes(rows: Ragged) -> Ragged:
    """Every item of a row but its first as the answer to those before it, as numpy.

    >>> bounds = (np.array(part) for part in ([0, 4], [2, 6], [3, 7]))
    >>> found = prefixes(make(np.arange(1, 8), *bounds))
    >>> found.start.tolist(), found.end.tolist()
    ([0, 0, 4, 4], [1, 2, 5, 6])
    """
    chex.assert_rank([rows.items, rows.start], 1)
    end, row = expand(rows.start + 1, rows.end - rows.start)
    return make(rows.items, rows.start[row], end, end + 1)._replace(generated=rows.generated)


def chosen(rows: Ragged) -> Ragged:
    """The rows without the generated items ahead of them, as numpy.

    >>> start, end = np.array([0, 2]), np.array([2, 5])
    >>> made = np.array([True, False, True, True, False])
    >>> chosen(Ragged(np.arange(1, 6), start, end, end, made)).start.tolist()
    [1, 4]
    """
    chex.assert_rank([rows.items, rows.start], 1)
    chex.assert_equal_shape([rows.start, rows.end])
    if rows.generated is None:
        return rows
    before = np.append(0, np.cumsum(rows.generated))
    ahead = before[rows.end] - before[rows.start]
    return Ragged(rows.items, (rows.start + ahead).astype(np.int32), rows.end, rows.stop)


def expand(start: np.ndarray | int, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of many ranges, one range after the other, on the host.

    Args:
      start: int[N] where ranges begin, in any order, or one number for all.
      sizes: int[N] their lengths, 0 or more.

    Returns:
      i64[M] places, and i64[M] which range each belongs to.

    >>> place, row = expand(np.array([5, 0, 9]), np.array([2, 0, 3]))
    >>> place.tolist(), row.tolist()
    ([5, 6, 9, 10, 11], [0, 0, 2, 2, 2])
    >>> expand(0, np.array([2, 0, 3]))[0].tolist()
    [0, 1, 0, 1, 2]
    """
    sizes = np.asarray(sizes, np.int64)
    chex.assert_rank(sizes, 1)
    chex.assert_shape(start, {0: (), 1: sizes.shape}[np.ndim(start)])
    row = np.repeat(np.arange(len(sizes)), sizes)
    return np.arange(len(row)) + (start - (np.cumsum(sizes) - sizes))[row], row
