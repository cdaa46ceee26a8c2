"""Dropout at half the price in random bits."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """bool[shape], False with probability `rate` to within 2**-17.

    Each 32-bit word decides two places: on a CPU the random words are what dropout costs.

    Raises:
      ValueError: if `rate` is not in [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        near = 0.0 if rate < 0.0 else 0.999
        raise ValueError(f"rate must lie in [0, 1), got {rate}; the nearest is {near}")
    size = 1
    for axis in shape:
        size *= axis
    words = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size]
    return (halves >= jnp.uint16(round(rate * 2**16))).reshape(shape)


def drop_rows(keys: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Dropout of every row under a key of its own: key[B], float[B, ...] -> float[B, ...].

    >>> from jaxrec_diff.ops import rng
    >>> keys, x = rng.row_keys(jax.random.key(0), jnp.arange(6)), jnp.ones((6, 8))
    >>> some = drop_rows(keys[2:4], x[2:4], 0.5)
    >>> bool((drop_rows(keys, x, 0.5)[2:4] == some).all()), sorted(set(some.ravel().tolist()))
    (True, [0.0, 2.0])
    """
    chex.assert_rank(keys, 1)
    chex.assert_equal_shape_prefix([keys, x], 1)
    chex.assert_type(x, float)
    if rate == 0.0:
        return x
    keep = jax.vmap(lambda key: keep_mask(key, x.shape[1:], rate))(keys)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


class Dropout(nn.Module):
    """Zeroes entries with probability `rate` and scales the rest by 1 / (1 - rate)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        if deterministic or self.rate == 0.0:
            return x
        keep = _held_mask(self.make_rng("dropout"), x.shape, self.rate)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0)


def _held_mask(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """`keep_mask`, drawn once for all kernels of the passes forward and back that read it.

    On a CPU XLA else draws it anew inside each of them. A barrier is gone before kernels are fused,
    but a branch behind one stays a branch.
    """

    def draw(key: jax.Array) -> jax.Array:
        return keep_mask(key, shape, rate)

    def held(key: jax.Array) -> jax.Array:
        always = jax.lax.optimization_barrier(True)
        return jax.lax.cond(always, draw, lambda _: jnp.zeros(shape, bool), key)

    return jax.lax.platform_dependent(key, cpu=held, default=draw)
