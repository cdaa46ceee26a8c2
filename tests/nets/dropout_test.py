"""Dropout: its mask is that of `keep_mask`, drawn once for the passes forward and back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.nets.dropout import Dropout, keep_mask
from jaxrec_diff.ops import rng, threefry

RATE = 0.4
X = jnp.linspace(1.0, 2.0, 35).reshape(5, 7)
KEYS = {
    "of jax": jax.random.key(3),
    "raw": jax.random.PRNGKey(3),
    "rounds written out": threefry.written_out(jax.random.key(3)),
    "another generator": jax.random.key(3, impl="rbg"),
}


class Key(nn.Module):
    """The key that a module of this place draws by."""

    @nn.compact
    def __call__(self):
        return self.make_rng("dropout")


def dropped(key, x):
    return Dropout(RATE).apply({}, x, deterministic=False, rngs={"dropout": key})


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_entries_that_keep_mask_keeps_are_scaled(key, jitted):
    keep = keep_mask(Key().apply({}, rngs={"dropout": key}), X.shape, RATE)
    found = (jax.jit(dropped) if jitted else dropped)(key, X)
    np.testing.assert_allclose(found, np.where(keep, X / (1 - RATE), 0.0), rtol=1e-6)


def test_rows_draw_by_keys_of_their_own():
    keys = rng.row_keys(jax.random.key(4), jnp.arange(6))
    found = jax.jit(jax.vmap(dropped, in_axes=(0, None)))(keys, X)
    alone = jnp.stack([dropped(key, X) for key in keys])
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    assert len({row.tobytes() for row in np.asarray(found)}) == 6


def test_the_gradient_reads_the_same_mask():
    key = jax.random.key(5)
    gradient = jax.jit(jax.grad(lambda x: dropped(key, x).sum()))(X)
    np.testing.assert_allclose(gradient, dropped(key, X) / X, rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is a matter of XLA's CPU backend")
def test_a_mask_is_drawn_once_for_both_passes():
    def loss(x, w):
        keys = rng.row_keys(jax.random.key(0), jnp.arange(64))
        y = jax.vmap(dropped)(keys, x)
        y = y - y.mean(1, keepdims=True)
        return (jnp.tanh(y @ w) + jnp.exp(y).sum(1, keepdims=True)).sum()

    given = jnp.ones((64, 32)), jnp.ones((32, 16))
    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*given).compile().as_text()
    # a block of Threefry has 20, and there are three: a row's key, the module's and the mask
    assert text.count("shift-right-logical(") < 80
