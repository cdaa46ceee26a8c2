"""A Transformer that restores the noised last place of a sequence behind a clean history."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.embeddings import sinusoidal
from jaxrec_diff.nets.transformer import MaskMode, Memory, Places, Projection, Transformer, places
from jaxrec_diff.ops import filled


class LastPlace(nn.Module):
    """All parameters of DiffRec2 (arXiv:2304.04541): the estimate of h0 in the noised last place.

    Row j of `items` is item j, row 0 padding and row I + 1 [unk].
    """

    num_items: int
    max_len: int  # L, places of the history
    width: int
    num_blocks: int
    num_heads: int
    dropout_rate: float = 0.0
    embedding_dropout_rate: float = 0.0  # of the history
    position_scale: float = 1.0  # deviation of the initial positions
    mask_mode: MaskMode = "key"
    step_scale: float = 1.0  # of n, before it is embedded
    out_norm: bool = True  # a LayerNorm at the end; False: a linear layer
    tie_head: bool = False
    history_blind: bool = False  # the history sees neither the noised place nor the step

    def setup(self) -> None:
        width = self.width
        scale = 1.0 if self.out_norm else 0.02
        normal = nn.initializers.normal
        self.items = self.param("items", filled.drawn(normal(scale)), (self.num_items + 2, width))
        self.positions = self.param(
            "positions", normal(self.position_scale), (self.max_len + 1, width)
        )
        self.transformer = Transformer(
            width=width,
            num_blocks=self.num_blocks,
            num_heads=self.num_heads,
            hidden=4 * width,
            dropout_rate=self.dropout_rate,
            kernels="xavier",
            last_norm=self.out_norm,
        )
        self.out = None if self.out_norm else Projection(width, "xavier", "zero")
        xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
        rows = (self.num_items, width)
        self.table = None if self.tie_head else self.param("head", filled.drawn(xavier), rows)
        zeros = filled.drawn(nn.initializers.zeros)
        self.bias = self.param("bias", zeros, (self.num_items,))
        self.dropout = Dropout(self.embedding_dropout_rate)

    def __call__(self, seq: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        history = self.embed(seq)
        return self.denoise(history, seq > 0, history[:, 0], jnp.int32(0))

    def head(self) -> tuple[jax.Array, jax.Array, int]:
        """W f32[R, D], b f32[R], and the row of item 1."""
        if self.table is not None:
            return self.table, self.bias, 0
        behind = len(self.items) - self.num_items - 1
        return self.items, jnp.pad(self.bias[: self.num_items], (1, behind)), 1

    def embed(self, seq: jax.Array, deterministic: bool = True) -> jax.Array:
        """i32[B, L] -> f32[B, L, D]"""
        return self.dropout(self.items[seq], deterministic=deterministic)

    def denoise(
        self,
        history: jax.Array,
        mask: jax.Array,
        xt: jax.Array,
        t: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """The estimate of h0, f32[B, D], read in the noised place.

        Args:
          history: f32[B, L, D] embeddings, right-padded.
          mask: bool[B, L], real places.
          xt: f32[B, D] the noised embedding.
          t: i32[] or i32[B] steps, n - 1.
        """
        if self.history_blind:
            memory = self.remember(history, mask, deterministic)
            return self.follow(memory, mask, xt[:, None], t, deterministic)[:, 0]
        step = self.step(t)
        if step.ndim == 2:
            step = step[:, None]
        last = (xt + self.positions[-1])[:, None]
        x = jnp.concatenate([history + self._placed(mask), last], axis=1) + step
        everywhere = jnp.pad(mask, ((0, 0), (0, 1)), constant_values=True)
        read = jnp.full(xt.shape[:1], mask.shape[1], jnp.int32)
        where = places(everywhere, self.mask_mode)
        out = self.transformer(x, where, read=read, deterministic=deterministic)
        return out if self.out is None else self.out(out)

    def remember(
        self, history: jax.Array, mask: jax.Array, deterministic: bool = True
    ) -> tuple[Memory, ...]:
        """history_blind: what the noised place needs of its history, whatever the step."""
        x = history + self._placed(mask)
        return self.transformer.remember(x, self._places(mask), deterministic=deterministic)

    def follow(
        self,
        memory: tuple[Memory, ...],
        mask: jax.Array,
        xt: jax.Array,
        t: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """history_blind: estimates for S noised places a user, f32[B, S, D] -> f32[B, S, D]."""
        step = self.step(t)
        if step.ndim == 2:
            step = step[:, None]
        out = self.transformer.follow(
            xt + self.positions[-1] + step,
            self._places(mask),
            memory,
            deterministic=deterministic,
        )
        return out if self.out is None else self.out(out)

    def step(self, t: jax.Array) -> jax.Array:
        """z_n of Eq. 3 for n = t + 1: f32[..., D], sines and cosines interleaved."""
        return sinusoidal(jnp.asarray((t + 1) * self.step_scale), self.width, variant="interleaved")

    def _places(self, mask: jax.Array) -> Places:
        return places(mask, self.mask_mode)

    def _placed(self, mask: jax.Array) -> jax.Array:
        """Positions f32[B, L, D]: the latest item has the last one but one, whatever the length,
        and padding the first ones, as if it stood on the left."""
        place = jnp.arange(mask.shape[1]) - mask.sum(axis=1)[:, None]
        return self.positions[jnp.mod(place, self.max_len)]
