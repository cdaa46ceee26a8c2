"""The items of a batch as a catalogue of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches import catalogue
from jaxrec_diff.batches.types import Negatives, Sequences, Triplets

SEQ = jnp.array([[7, 9, 0], [900, 0, 0]], jnp.int32)
NEGATIVES = Negatives(jnp.array([9, 31, 0], jnp.int32), jnp.ones(3), jnp.ones(2))
EXAMPLE = Sequences(
    SEQ, jnp.array([31, 8], jnp.int32), jnp.ones(2), jnp.arange(2), negatives=NEGATIVES
)


@pytest.mark.parametrize(
    ("example", "items"),
    [
        (EXAMPLE, [7, 8, 9, 31, 900]),
        (EXAMPLE._replace(negatives=None), [7, 8, 9, 31, 900]),
        (EXAMPLE._replace(seq=(SEQ[:1], SEQ[1:, :1]), negatives=(2 * SEQ[:1], SEQ[1:])),
         [7, 8, 9, 14, 18, 31, 900]),
    ],
)  # fmt: skip
def test_every_item_has_one_place_and_padding_the_first(example, items):
    held = jax.jit(catalogue.held, static_argnames=("rows", "multiple"))(
        example, rows=1001, multiple=8
    )
    assert held.shape == (16,) or held.shape == (24,)
    count = len(items) + 1
    assert held[:count].tolist() == [0, *items]
    # what is no row is named once too
    assert held[count:].tolist() == list(range(1001 + count, 1001 + len(held)))
    small = catalogue.renumbered(example, held)
    named = jax.tree.leaves(catalogue.renamed(lambda ids: held[ids], small))
    for back, ids in zip(named, jax.tree.leaves(example), strict=True):
        np.testing.assert_array_equal(back, ids)
    assert small.target.tolist() == [items.index(31) + 1, items.index(8) + 1]
    assert small.row_id is example.row_id and small.weight is example.weight


def test_rows_without_padding_are_named_from_the_first():
    example = Triplets(*jnp.array([[4, 0], [7, 1], [9, 7]]), jnp.ones(2), jnp.arange(2))
    items, users = (
        catalogue.held(example, 12, of=of, padded=False, multiple=4) for of in ("items", "users")
    )
    assert items.tolist() == [0, 6, 8, 15] and users.tolist() == [0, 4, 14, 15]
    small = catalogue.renumbered(example, items, padded=False)
    small = catalogue.renumbered(small, users, of="users", padded=False)
    assert [part.tolist() for part in small[:3]] == [[1, 0], [2, 1], [3, 2]]


def test_no_more_places_than_rows():
    assert len(catalogue.held(EXAMPLE._replace(seq=SEQ % 5), rows=7, multiple=4)) == 8
