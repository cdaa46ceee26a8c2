"""Random data has the sizes that are asked for and nothing twice."""

import numpy as np
import pytest

from jaxrec_diff.benchmarking import asks, shapes
from jaxrec_diff.benchmarking.shapes import Shape


@pytest.mark.parametrize("shape", [Shape(50, 30, 8), Shape(2, 4, 2), Shape(300, 10, 8)])
def test_a_data_set_has_its_shape(shape):
    made = shapes.dataset(shape)
    assert (made.num_users, made.num_items) == shape[:2]
    sizes = made.user_items.end - made.user_items.start
    assert sizes.max() == shape.length and sizes.min() >= min(3, shape.length)
    assert made.user_items.items.min() >= 1 and made.user_items.items.max() <= shape.items
    for row in range(shape.users):
        history = made.test.items[made.test.start[row] : made.test.stop[row]]
        assert len(set(history.tolist())) == len(history)
    assert len(made.valid.start) == len(made.test.start) == shape.users
    assert len(made.train.start) == (sizes - 1).sum()
    trained = [
        made.train.items[a:b]
        for a, b in zip(made.user_items.start, made.user_items.end, strict=True)
    ]
    counts = np.bincount(np.concatenate(trained), minlength=shape.items + 1)[1:]
    np.testing.assert_array_equal(made.train_counts, counts)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Shape(1, 30, 8), "users:2 at least, got users:1"),
        (Shape(50, 9, 8), "items:10 at least, got items:9"),
        (Shape(50, 30, 1), "len:2 at least, got len:1"),
    ],
)
def test_sizes_that_leave_nothing_are_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        shapes.dataset(shape)


def test_shapes_in_words_are_every_combination():
    found = asks.shapes_from("users:10/20,len:5/6/7")
    assert found == tuple(Shape(u, 1000, n) for u in (10, 20) for n in (5, 6, 7))


@pytest.mark.parametrize("text", ["users:0", "users", "rows:5", "users:10,items:x", "", "users:5/"])
def test_other_words_are_no_shape(text):
    with pytest.raises(ValueError, match="--shape takes users:N"):
        asks.shapes_from(text)
