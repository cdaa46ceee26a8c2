"""From histories to conditions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dense import Dense
from jaxrec_diff.nets.dropout import Dropout

# The score of a place that may not be looked at: finite, so that a row without any allowed place
# becomes uniform instead of NaN. It is the released codes' constant.
MASKED = -(2.0**32) + 1.0


def _layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


class HistoryBlock(nn.Module):
    """One causal attention block and the state of the last real item, as DreamRec released it.

    It differs from the textbook block in five places: keys and values come from the input before
    its LayerNorm, the residual is the normalised input, there is no output projection, scores are
    divided by sqrt(width) whatever the number of heads, and the feed-forward part is normalised
    after its residual and once more at the end. An empty history gives the bias of that last norm.
    """

    width: int
    num_heads: int = 1
    dropout_rate: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """x f32[B, L, D] item plus position embeddings, mask bool[B, L] -> f32[B, D]."""
        drop = Dropout(self.dropout_rate)
        x = drop(x, deterministic=deterministic) * mask[..., None]
        normed = _layer_norm("norm_in")(x)
        query = Dense(self.width, name="query")(normed)
        key, value = Dense(self.width, name="key")(x), Dense(self.width, name="value")(x)
        length = mask.shape[-1]
        causal = jnp.arange(length)[:, None] >= jnp.arange(length)[None, :]
        allowed = causal & mask[:, None, None, :]
        query, key, value = (self._heads(part) for part in (query, key, value))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(float(self.width))
        weights = jax.nn.softmax(jnp.where(allowed, scores, MASKED), axis=-1)
        weights = drop(weights * mask[:, None, :, None], deterministic=deterministic)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape) + normed
        inner = _layer_norm("norm_attention")(attended)
        hidden = nn.relu(Dense(self.width, name="feed_in")(inner))
        hidden = drop(Dense(self.width, name="feed_out")(hidden), deterministic=deterministic)
        out = _layer_norm("norm_feed")(hidden + inner) * mask[..., None]
        last = jnp.maximum(mask.sum(axis=-1) - 1, 0)
        # Only the last real place is read, so only that one is normalised.
        picked = jnp.take_along_axis(out, last[:, None, None], axis=1)[:, 0]
        return _layer_norm("norm_out")(picked)

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.num_heads, self.width // self.num_heads)


class SelfAttentiveInterests(nn.Module):
    """ComiRec-SA: K weighted means of a history (DimeRec's guidance, arXiv:2408.12153).

    A = softmax over places (W2 tanh(W1 (H + P) + b1) + b2),  g = A^T H
    """

    num_interests: int
    value_has_position: bool = False

    @nn.compact
    def __call__(
        self, history: jax.Array, position: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """history f32[B, L, D], position f32[L, D], mask bool[B, L] -> g [B, K, D], A [B, L, K]."""
        history = history * mask[..., None]
        placed = history + position
        hidden = jnp.tanh(Dense(4 * history.shape[-1], name="inner")(placed))
        logits = Dense(self.num_interests, name="outer")(hidden)
        weights = jax.nn.softmax(jnp.where(mask[..., None], logits, MASKED), axis=1)
        value = placed * mask[..., None] if self.value_has_position else history
        return jnp.einsum("blk,bld->bkd", weights, value), weights


def last_items(history: jax.Array, mask: jax.Array, num_interests: int) -> jax.Array:
    """The last K real places of right-padded histories, zeros on the left if there are fewer.

    DimeRec's rule-based guidance: f32[B, L, D] -> f32[B, K, D].
    """
    place = mask.sum(axis=-1)[:, None] - num_interests + jnp.arange(num_interests)
    picked = jnp.take_along_axis(history, jnp.maximum(place, 0)[..., None], axis=1)
    return picked * (place >= 0)[..., None]
