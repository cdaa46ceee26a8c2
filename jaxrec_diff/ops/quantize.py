"""Codes of histories and the codebook they come from (semantic vector quantisation, DiQDiff).

A history is a block f32[L, D]. It picks one of K codes by a noisy argmax, and a code is the mean
of the histories that picked it. Everything is a product with one-hot rows: no loop over codes and
no shape that depends on the data.

>>> import jax.numpy as jnp
>>> x = jnp.array([[[1.0, 2.0]], [[3.0, 5.0]], [[5.0, 10.0]]])
>>> book = code_means(x, jnp.array([0, 1, 0]), jnp.ones(3), 3)
>>> book.means[:, 0].tolist(), book.counts.tolist()
([[3.0, 6.0], [3.0, 5.0], [0.0, 0.0]], [2.0, 1.0, 0.0])
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Codes(NamedTuple):
    """Means of the histories of every code."""

    means: jax.Array  # f32[K, L, D], 0 where nobody picked the code
    counts: jax.Array  # f32[K]


def assign(logits: jax.Array, gumbel: jax.Array | None = None) -> jax.Array:
    """argmax_k (o_k + g_k), i32[B]; a draw from softmax(o) where `gumbel` is standard Gumbel.

    No temperature: it scales both summands of an argmax.
    """
    chex.assert_rank(logits, 2)
    chex.assert_type(logits, float)
    if gumbel is not None:
        chex.assert_equal_shape([logits, gumbel])
    return jnp.argmax(logits if gumbel is None else logits + gumbel, axis=-1).astype(jnp.int32)


def straight_through(
    logits: jax.Array, gumbel: jax.Array | None = None, *, temperature: float = 0.1
) -> jax.Array:
    """One-hot rows of `assign` with the gradient of softmax((o + g) / temperature), f32[B, K].

    hard + soft - stop_gradient(soft); Jang et al. 2017 (arXiv:1611.01144).
    """
    code = assign(logits, gumbel)
    noisy = logits if gumbel is None else logits + gumbel
    soft = jax.nn.softmax(noisy / temperature, axis=-1)
    hard = jax.nn.one_hot(code, logits.shape[-1], dtype=soft.dtype)
    return hard + soft - jax.lax.stop_gradient(soft)


def code_means(
    history: jax.Array,
    codes: jax.Array,
    weight: jax.Array,
    num_codes: int,
    axis_name: str | None = None,
) -> Codes:
    """C_k = mean of the histories with code k; DiQDiff (arXiv:2501.17670), Eq. 10.

    Args:
      history: f32[B, L, D].
      codes: i32[B] in [0, K).
      weight: f32[B]; rows of weight 0 are padding and enter no mean.
      num_codes: K.
      axis_name: device axis of `pmap`: the means are over the global batch.
    """
    chex.assert_rank([history, codes, weight], [3, 1, 1])
    chex.assert_equal_shape_prefix([history, codes, weight], 1)
    chex.assert_type([history, codes, weight], [float, int, float])
    members = jax.nn.one_hot(codes, num_codes, dtype=history.dtype) * (weight > 0)[:, None]
    sums, counts = jnp.einsum("bk,bld->kld", members, history), members.sum(axis=0)
    if axis_name is not None:
        sums, counts = jax.lax.psum((sums, counts), axis_name)
    return Codes(sums / jnp.maximum(counts, 1.0)[:, None, None], counts)


def pick(codebook: jax.Array, codes: jax.Array) -> jax.Array:
    """C[codes], f32[B, L, D], as a product: its gradient is one too, not a scatter of blocks."""
    chex.assert_rank([codebook, codes], [3, 1])
    chex.assert_type([codebook, codes], [float, int])
    members = jax.nn.one_hot(codes, codebook.shape[0], dtype=codebook.dtype)
    precision = jax.lax.Precision.HIGHEST  # picks rows bit by bit on any device
    return jnp.einsum("bk,kld->bld", members, codebook, precision=precision)


def update(codebook: jax.Array, found: Codes, *, decay: float = 0.0) -> jax.Array:
    """The codebook after a batch, f32[K, L, D]: codes that nobody picked stay.

    C <- decay C + (1 - decay) mean; no gradient flows. The paper replaces (decay 0).
    """
    chex.assert_rank(codebook, 3)
    chex.assert_equal_shape([codebook, found.means])
    chex.assert_shape(found.counts, codebook.shape[:1])
    moved = decay * codebook + (1.0 - decay) * found.means
    return jax.lax.stop_gradient(jnp.where(found.counts[:, None, None] > 0, moved, codebook))
