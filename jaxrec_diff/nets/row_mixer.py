"""The autoencoder that GiffCF restores rows of interactions with."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.embeddings import sinusoidal
from jaxrec_diff.ops import filled


class Mixer(nn.Module):
    """A curve of n numbers, the same at every place: n -> 2, swish -> 1.

    Written out by its numbers: a product with a kernel this small would hold n arrays as one.
    """

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Arrays f32[B, N] or f32[B, 1] -> f32[B, N]"""
        glorot, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros
        inner = self.param("inner_kernel", glorot, (len(inputs), 2))
        inner_bias = self.param("inner_bias", zeros, (2,))
        outer = self.param("outer_kernel", glorot, (2, 1))
        total = self.param("outer_bias", zeros, (1,))
        for unit in range(2):
            terms = (weight * each for weight, each in zip(inner[:, unit], inputs, strict=True))
            total = total + outer[unit] * nn.silu(sum(terms, inner_bias[unit]))
        return total


class StepNumber(nn.Module):
    """A number for every step: its sinusoids, sines first, and 20 -> 20, swish -> 1."""

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        """i32[B] or i32[] -> f32[B, 1] or f32[1]"""
        glorot, width = nn.initializers.glorot_uniform(), 20
        code = jnp.roll(sinusoidal(t + 1, width, variant="cos_sin"), width // 2, axis=-1)
        hidden = nn.silu(nn.Dense(width, kernel_init=glorot, name="inner")(code))
        return nn.Dense(1, kernel_init=glorot, name="outer")(hidden)


class RowMixer(nn.Module):
    """GiffCF's denoiser of rows (arXiv:2311.08744): a mixer of embeddings, then one of items.

        h_k = mixer(state_k, code_k, number(t)),    x_i = mixer(h . E_i, c_i, (c S)_i, number'(t))

    The table E has a row an item, filled up to R.
    """

    num_items: int
    width: int
    init_scale: float

    def setup(self) -> None:
        glorot = nn.initializers.glorot_uniform()

        def scaled(key, shape):
            return self.init_scale * glorot(key, shape)

        self.items = self.param("items", filled.drawn(scaled), (self.num_items, self.width))
        self.code_step, self.item_step = StepNumber(), StepNumber()
        self.code_mixer, self.item_mixer = Mixer(), Mixer()

    def __call__(
        self, state: jax.Array, code: jax.Array, rows: jax.Array, smoothed: jax.Array, t: jax.Array
    ) -> jax.Array:
        """Embeddings of the state and the history f32[B, d], the history and what S makes of it
        f32[B, R] and steps i32[B] or i32[] -> restored rows f32[B, R], anything behind the items.
        """
        mixed = self.code_mixer(state, code, self.code_step(t))
        return self.item_mixer(mixed @ self.items.T, rows, smoothed, self.item_step(t))
