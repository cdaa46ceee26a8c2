"""Rows over a flat array against plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import ragged
from tests.ops.rows import last, random_rows


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_window_is_the_end_of_a_row(length):
    data = random_rows(length)
    found = ragged.window(jnp.asarray(data.items), data.start, data.end, length)
    expected = [last(data.items, s, e, length) for s, e in zip(*data[1:3], strict=True)]
    assert found.dtype == jnp.int32
    assert found.tolist() == expected


def test_window_reaches_both_ends_of_the_flat_array():
    items = jnp.array([4, 5, 6])
    start, end = jnp.array([0, 0, 3, 2, 0]), jnp.array([3, 1, 3, 3, 0])
    found = ragged.window(items, start, end, 3).tolist()
    assert found == [[4, 5, 6], [4, 0, 0], [0, 0, 0], [6, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_expand_lists_the_places_of_ranges(kind):
    rng = np.random.default_rng(0)
    start, sizes = rng.integers(0, 90, 40).astype(kind), rng.integers(0, 4, 40).astype(kind)
    place, row = ragged.expand(start, sizes)
    pairs = [(start[r] + k, r) for r in range(40) for k in range(sizes[r])]
    assert list(zip(place.tolist(), row.tolist(), strict=True)) == pairs
    assert place.dtype == row.dtype == np.int64
    from_five, _ = ragged.expand(5, sizes)
    assert from_five.tolist() == [5 + k for size in sizes for k in range(size)]
    nothing = ragged.expand(np.zeros(0, kind), np.zeros(0, kind))
    assert [part.tolist() for part in nothing] == [[], []]


def test_make_keeps_items_and_narrows_bounds():
    flat = np.arange(1, 6, dtype=np.int32)
    rows = ragged.make(flat, *np.array([[0, 2], [1, 4], [2, 5]], np.int64))
    assert rows.items is flat
    assert all(bound.dtype == np.int32 for bound in rows[1:4])
    second = ragged.pick(rows, np.array([1]))
    assert [part.tolist() for part in second[1:4]] == [[2], [4], [5]]
