"""From histories to conditions."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dense import Affine, Dense, Initial
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

    Only the last real place n is read, so only its query exists, and both projections of the other
    places move out of the sum over places j:

        q . (W_k x_j + b_k) = (W_k' q) . x_j + const
        sum_j a_j (W_v x_j + b_v) = W_v (sum_j a_j x_j) + b_v sum_j a_j

    The softmax does not see the constant. A row costs 10 D^2 + 4 L D multiply-adds a head, not
    10 L D^2.

    PreferDiff's block (arXiv:2410.13117) differs in two of these places: its input is added around
    attention as well (`residual`), and what comes out of both is added around the feed-forward
    part; its three projections start Xavier-uniform with biases of 0 (`projections`).
    """

    width: int
    num_heads: int = 1
    dropout_rate: float = 0.1
    residual: bool = False
    projections: Initial = "fan_in"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """x f32[B, L, D] item plus position embeddings, mask bool[B, L] -> f32[B, D]."""
        drop, heads = Dropout(self.dropout_rate), self.num_heads
        x = drop(x, deterministic=deterministic) * mask[..., None]
        last = jnp.maximum(mask.sum(axis=-1) - 1, 0)
        real = mask.any(axis=-1, keepdims=True)
        shown = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        normed = _layer_norm("norm_in")(shown)
        query = Dense(self.width, self.projections, name="query")(normed)
        query = query.reshape(-1, heads, self.width // heads)
        # Of the key's parameters b_k is kept for its place in the released count; it moves nothing.
        into_key, _ = Affine(self.width, self.projections, name="key")(self.width)
        into_value, value_bias = Affine(self.width, self.projections, name="value")(self.width)
        # [D, H, D / H]: what each head projects to.
        into_key, into_value = (w.reshape(self.width, heads, -1) for w in (into_key, into_value))
        folded = jnp.einsum("bhe,dhe->bhd", query, into_key)
        scores = jnp.einsum("bhd,bld->bhl", folded, x) / jnp.sqrt(float(self.width))
        weights = jax.nn.softmax(jnp.where(mask[:, None, :], scores, MASKED), axis=-1)
        weights = drop(weights * real[..., None], deterministic=deterministic)
        mixed = jnp.einsum("bhl,bld->bhd", weights, x)
        attended = jnp.einsum("bhd,dhe->bhe", mixed, into_value)
        attended = attended + weights.sum(axis=-1)[..., None] * value_bias.reshape(heads, -1)
        outer = attended.reshape(normed.shape) + normed
        if self.residual:
            outer = outer + shown
        inner = _layer_norm("norm_attention")(outer)
        hidden = nn.relu(Dense(self.width, name="feed_in")(inner))
        hidden = drop(Dense(self.width, name="feed_out")(hidden), deterministic=deterministic)
        fed = _layer_norm("norm_feed")(hidden + inner) * real
        return _layer_norm("norm_out")(fed + outer if self.residual else fed)


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
        """history f32[B, L, D], position f32[L, D] or f32[B, L, D], mask bool[B, L] -> g [B, K, D],
        A [B, L, K]."""
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
    chex.assert_rank([history, mask], [3, 2])
    chex.assert_equal_shape_prefix([history, mask], 2)
    chex.assert_type([history, mask], [float, bool])
    place = mask.sum(axis=-1)[:, None] - num_interests + jnp.arange(num_interests)
    picked = jnp.take_along_axis(history, jnp.maximum(place, 0)[..., None], axis=1)
    return picked * (place >= 0)[..., None]
