"""Threefry with its rounds written out: the published words, and those of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import rng, threefry

KEY = jax.random.key(7)
ROWS = jnp.array([0, 5, 2**31 - 1])


def test_threefry_gives_the_published_words():
    # Random123's known answers for threefry2x32, 20 rounds: counter, key, words
    known = [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ]
    for counter, key, words in known:
        counter, key = (tuple(jnp.uint32(word) for word in pair) for pair in (counter, key))
        assert tuple(int(word) for word in threefry.block(key, counter)) == words


DRAWS = {
    "bits": lambda key: jax.random.bits(key, (3, 5)),
    "bits of 8": lambda key: jax.random.bits(key, (7,), jnp.uint8),
    "bits of 16": lambda key: jax.random.bits(key, (7,), jnp.uint16),
    "one": jax.random.bits,
    "none": lambda key: jax.random.bits(key, (0, 2)),
    "normal": lambda key: jax.random.normal(key, (2, 3, 4)),
    "gumbel": lambda key: jax.random.gumbel(key, (6,)),
    "randint": lambda key: jax.random.randint(key, (9,), 0, 1000),
    "permutation": lambda key: jax.random.permutation(key, 11),
    "split": lambda key: jax.random.bits(jax.random.split(key, (2, 3))[1, 2], (4,)),
    "fold_in": lambda key: jax.random.bits(jax.random.fold_in(key, 2**32 - 1), (4,)),
    "clone": lambda key: jax.random.key_data(jax.random.clone(key)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("partitionable", [True, False])
def test_a_key_draws_as_jax_does(draw, partitionable):
    with jax.threefry_partitionable(partitionable):
        wanted, found = draw(KEY), jax.jit(lambda: draw(threefry.written_out(KEY)))()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_rows_draw_as_their_folded_keys_do():
    for key in (KEY, jax.random.PRNGKey(7)):
        wanted = [jax.random.uniform(jax.random.fold_in(key, row), (4,)) for row in ROWS]
        np.testing.assert_array_equal(rng.uniform(key, ROWS, (4,)), jnp.stack(wanted))


def test_a_shorter_row_is_the_beginning_of_a_longer_one():
    """Models that fill tables up draw behind what they read."""
    np.testing.assert_array_equal(rng.normal(KEY, ROWS, (5,)), rng.normal(KEY, ROWS, (9,))[:, :5])


def test_other_generators_stay_what_they_are():
    key = jax.random.key(3, impl="rbg")
    assert threefry.written_out(key) is key and not threefry.is_threefry(key)


def test_more_blocks_than_a_counter_has_are_refused():
    with pytest.raises(ValueError, match=r"2\*\*32"):
        jax.eval_shape(lambda: threefry.counted(threefry.words(KEY), (2**16, 2**16)))
