"""Dropout at half the price in random bits."""

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


class Dropout(nn.Module):
    """Zeroes entries with probability `rate` and scales the rest by 1 / (1 - rate)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        if deterministic or self.rate == 0.0:
            return x
        keep = keep_mask(self.make_rng("dropout"), x.shape, self.rate)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0)
