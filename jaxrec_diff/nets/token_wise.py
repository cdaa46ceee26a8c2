"""A causal encoder of a history, and a causal denoiser of the next item of every place (ADRec)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.embeddings import StepEmbedding
from jaxrec_diff.nets.transformer import Memory, Norm, Places, Transformer, places
from jaxrec_diff.ops import filled

_EPS = 1e-12  # of every LayerNorm


class TokenWise(nn.Module):
    """x0_hat = denoiser(encoder(LN(E[history])) + lambda (x_t + tau(t))), at every place.

    Both parts are blocks `post` without positions: that no place sees later ones is all that tells
    it the order. Row 0 of `items` is padding.
    """

    num_items: int
    width: int
    encoder_blocks: int
    denoiser_blocks: int
    num_heads: int
    dropout_rate: float
    history_dropout_rate: float
    step_scale: float = 1.0
    """What steps are multiplied by before they are embedded."""

    def setup(self) -> None:
        normal = nn.initializers.normal(1.0)
        self.items = self.param("items", filled.drawn(normal), (self.num_items + 1, self.width))
        self.norm_in = Norm(_EPS)
        self.history_dropout = Dropout(self.history_dropout_rate)
        self.step = StepEmbedding(self.width, 4 * self.width, "silu", "cos_sin")
        self.encoder, self.denoiser = (
            Transformer(
                width=self.width,
                num_blocks=blocks,
                num_heads=self.num_heads,
                hidden=4 * self.width,
                block="post",
                causal=True,
                dropout_rate=self.dropout_rate,
                kernels="xavier_fan_in",
                epsilon=_EPS,
                last_norm=False,
            )
            for blocks in (self.encoder_blocks, self.denoiser_blocks)
        )

    def touch(self, seq: jax.Array) -> jax.Array:
        """Reads every parameter, for `init` only."""
        injected = self.steps(jnp.zeros(seq.shape, jnp.int32))
        return self.restore(self.items[seq], injected, places(seq > 0), jnp.ones(len(seq)))

    def steps(self, t: jax.Array) -> jax.Array:
        """i32[...] -> f32[..., D] the step's embedding."""
        return self.step(t * self.step_scale)

    def encode(self, rows: jax.Array, where: Places, deterministic: bool = True) -> jax.Array:
        """What the history says at every place, f32[B, P, D] of rows f32[B, P, D]."""
        x = self.norm_in(self.history_dropout(rows, deterministic=deterministic))
        return self.encoder(x, where, deterministic=deterministic)

    def restore(
        self,
        rows: jax.Array,
        injected: jax.Array,
        where: Places,
        kept: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """x0_hat of the next item of every place, f32[B, P, D].

        Args:
          rows: f32[B, P, D] of the history.
          injected: f32[B, P, D], lambda (x_t + tau(t)).
          where: how the places look at one another.
          kept: f32[B], 0 hides what the history says.
          deterministic: without dropout.
        """
        read = self.encode(rows, where, deterministic) * kept[:, None, None]
        return self.denoiser(read + injected, where, deterministic=deterministic)

    def remember(self, x: jax.Array, where: Places) -> tuple[Memory, ...]:
        """Keys and values of what the denoiser reads at all places but the last, f32[B, P, D]."""
        return self.denoiser.remember(x, where, deterministic=True)

    def follow(self, x: jax.Array, where: Places, memory: tuple[Memory, ...]) -> jax.Array:
        """x0_hat f32[B, D] of what it reads at the last place, f32[B, D]."""
        return self.denoiser.follow(x[:, None], where, memory, deterministic=True)[:, 0]
