"""A plain denoiser of sequences, the peer of SU-Net."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dense import Dense
from jaxrec_diff.nets.embeddings import sinusoidal
from jaxrec_diff.nets.sunet import Embed


class PlainDenoiser(nn.Module):
    """Two hidden layers on [x ; embedded step ; embedded condition], for comparison."""

    hidden: int

    @nn.compact
    def __call__(
        self, x: jax.Array, t: jax.Array, cond: jax.Array, keys: jax.Array | None = None
    ) -> jax.Array:
        """f32[B, M, d], i32[B], f32[B, D] -> f32[B, M, d]; `keys` are for dropout, of which it has
        none."""
        del keys
        z = Embed(128, name="time")(sinusoidal(t, 32)) + Embed(128, name="guide")(cond)
        flat = jnp.concatenate([x.reshape(x.shape[0], -1), z], axis=-1)
        for name in ("first", "second"):
            flat = nn.silu(Dense(self.hidden, name=name)(flat))
        return Dense(x.shape[1] * x.shape[2], name="out")(flat).reshape(x.shape)
