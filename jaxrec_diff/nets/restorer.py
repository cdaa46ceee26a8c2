"""A small network that restores a vector behind an encoder, which a reverse path asks but once."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dense import Affine, Dense
from jaxrec_diff.nets.embeddings import StepEmbedding


class Restorer(nn.Module):
    """f(x_t, t, h) = W_2 silu(W_1 [x_t ; h ; e(t)] + b_1) + b_2 + h, hidden 4 D.

    x_t enters at full strength, and the code h of a history is what is restored of no x_t. e(t) are
    sinusoids of t, D -> 4 D -> D around SiLU, as DiffuRec embeds steps. 32 D^2 FLOP a row and step
    beyond what `of_history` and `of_time` work out once.
    """

    width: int

    def setup(self) -> None:
        self.inner = Affine(4 * self.width)
        self.outer = Dense(self.width)
        self.step = StepEmbedding(self.width, 4 * self.width, "silu", "cos_sin")

    def __call__(self, xt: jax.Array, time: jax.Array, code: jax.Array) -> jax.Array:
        """x_0: f32[N, D], times f32[N] as the sinusoids are told, h f32[N, D] -> f32[N, D]."""
        return self.restore(xt, self.of_time(time), self.of_history(code), code)

    def of_time(self, time: jax.Array) -> jax.Array:
        """f32[...] -> f32[..., 4 D]: its part of the first layer, with the bias."""
        _, _, kernel, bias = self._parts()
        return self.step(time) @ kernel + bias

    def of_history(self, code: jax.Array) -> jax.Array:
        """h f32[N, D] -> f32[N, 4 D]: its part of the first layer."""
        return code @ self._parts()[1]

    def restore(
        self, xt: jax.Array, of_time: jax.Array, of_history: jax.Array, code: jax.Array
    ) -> jax.Array:
        """The rest of `__call__`; one `of_time` f32[4 D] may serve all rows."""
        return self.outer(nn.silu(xt @ self._parts()[0] + of_history + of_time)) + code

    def _parts(self) -> tuple[jax.Array, ...]:
        """W_1 by what it multiplies, three of f32[D, 4 D], and b_1 f32[4 D]."""
        kernel, bias = self.inner(3 * self.width)
        return *jnp.split(kernel, 3), bias
