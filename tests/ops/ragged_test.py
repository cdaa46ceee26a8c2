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


@pytest.mark.parametrize("seed", range(3))
def test_rows_alone_hold_what_they_held_and_share_what_they_shared(seed):
    rng = np.random.default_rng(seed)
    # rows that lie within each other, apart, side by side, and empty ones
    start, stop = np.sort(rng.integers(0, 60, (2, 12)), axis=0)
    stop[0] = start[0]
    end = start + (stop - start) // 2
    flat, made = rng.integers(1, 99, 60).astype(np.int32), rng.random(60) < 0.5
    rows = ragged.make(flat, start, end, stop)._replace(generated=made)
    index = rng.permutation(12)[:7]
    found = ragged.alone(rows, index)
    for n, row in enumerate(index):
        for mine, whole in ((found.items, flat), (found.generated, made)):
            np.testing.assert_array_equal(
                mine[found.start[n] : found.end[n]], whole[start[row] : end[row]]
            )
            np.testing.assert_array_equal(
                mine[found.end[n] : found.stop[n]], whole[end[row] : stop[row]]
            )
    used = {place for row in index for place in range(start[row], stop[row])}
    assert len(found.items) == len(used)
    assert len(ragged.alone(rows, index[:0]).items) == 0
