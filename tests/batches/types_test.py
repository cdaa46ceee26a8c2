"""Encoders of batches in several lengths."""

import jax.numpy as jnp
import pytest

from jaxrec_diff.batches import types

PARTS = (jnp.array([[1, 2, 0], [3, 0, 0]]), jnp.array([[4, 5, 6, 7, 8]]))


def test_rows_are_encoded_with_what_belongs_to_them():
    ids, negative = jnp.array([10, 20, 30]), (jnp.array([[1], [2]]), jnp.array([[3]]))
    found = types.over_lengths(
        lambda seq, x, cut: {"sum": seq.sum(-1) + x, "cut": cut[:, 0]}, PARTS, ids, negative
    )
    assert found["sum"].tolist() == [13, 23, 60] and found["cut"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("part", PARTS)
def test_one_length_is_encoded_as_it_is(part):
    assert types.over_lengths(lambda seq: seq.sum(-1), part).tolist() == part.sum(-1).tolist()
