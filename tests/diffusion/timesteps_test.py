"""Draws of steps against values worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.diffusion import timesteps
from jaxrec_diff.ops import rng


def test_mirrored_draws():
    assert timesteps.mirrored(jnp.array([3, 0, 4]), 5, 5).tolist() == [3, 0, 4, 1, 4]
    drawn = timesteps.antithetic(jax.random.key(0), 6, 9)
    assert (drawn[4:] == 8 - drawn[:2]).all()


def test_every_row_has_a_stream_of_its_own():
    key, rows = jax.random.key(3), jnp.array([5, 2, 5])
    drawn = rng.normal(key, rows, (4,))
    for place, row in enumerate(rows.tolist()):
        want = jax.random.normal(jax.random.fold_in(key, row), (4,))
        np.testing.assert_array_equal(drawn[place], want)
    assert not np.allclose(drawn[0], drawn[1])
