"""Draws of steps against values worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.diffusion import timesteps
from jaxrec_diff.ops import rng


def test_rows_are_mirrored_in_pairs():
    drawn = timesteps.antithetic_rows(jax.random.key(0), jnp.arange(6), 9)
    assert (drawn[1::2] == 8 - drawn[::2]).all() and len(set(drawn.tolist())) > 2
    later = timesteps.antithetic_rows(jax.random.key(0), jnp.arange(2, 6), 9)
    np.testing.assert_array_equal(later, drawn[2:])


def test_every_row_has_a_stream_of_its_own():
    key, rows = jax.random.key(3), jnp.array([5, 2, 5])
    drawn = rng.normal(key, rows, (4,))
    for place, row in enumerate(rows.tolist()):
        want = jax.random.normal(jax.random.fold_in(key, row), (4,))
        np.testing.assert_array_equal(drawn[place], want)
    assert not np.allclose(drawn[0], drawn[1])
