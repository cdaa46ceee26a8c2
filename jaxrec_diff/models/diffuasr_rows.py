"""The item rows that DiffuASR's diffusion works on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.models.contract import DataSpec

_OFFICIAL_SCALE = 0.01  # sqrt(1 - abar_0), which the released code takes at every step


def in_parts(run: Callable[[Any], jax.Array], rows: Any, size: int) -> jax.Array:
    """`run` on equal parts of at most `size` rows, one after the other, the last one filled up."""
    count = jax.tree.leaves(rows)[0].shape[0]
    parts = -(-count // size)
    if parts <= 1:
        return run(rows)
    each = -(-count // parts)

    def split(leaf):
        fill = [(0, parts * each - count)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, fill, mode="edge").reshape(parts, each, *leaf.shape[1:])

    out = jax.lax.map(run, jax.tree.map(split, rows))
    return out.reshape(parts * each, *out.shape[2:])[:count]


def released_correction(
    log_prob: Callable[[jax.Array], jax.Array], xt: jax.Array, weight: float
) -> jax.Array:
    """What the released code adds to eps, shaped like x_t: 0.01 w grad log p, a constant.

    The paper adds -w sqrt(1 - abar_t) grad log p: the released loss is -log p, and its gradient is
    subtracted.
    """
    gradient = jax.grad(lambda x: log_prob(x).sum())(xt)
    return jax.lax.stop_gradient(_OFFICIAL_SCALE * weight * gradient)


def one(seq: jax.Array, last: bool) -> jax.Array:
    """The first or the last item of a history, i32[B, 1]."""
    place = jnp.maximum((seq > 0).sum(axis=-1, keepdims=True) - 1, 0) if last else 0
    return jnp.take_along_axis(seq, jnp.broadcast_to(place, (len(seq), 1)), axis=1)


class Affine(NamedTuple):
    """The way from standardised rows back to the recommender's: shift + scale row."""

    shift: Any  # f32[D], or 0
    scale: Any  # f32

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.shift + self.scale * x


class _Table(NamedTuple):
    """Rows of unit variance, f32[I + 1, D], and the way back."""

    rows: np.ndarray
    back: Affine


def standardised(spec: DataSpec) -> _Table:
    """The recommender's rows minus their mean, over one deviation; row 0 is padding."""
    items = np.asarray(spec.exports["items"], np.float64)
    # Rows that were never trained are where they were drawn and say nothing about the rest.
    known = items if spec.item_counts is None else items[spec.item_counts > 0]
    mean = known.mean(axis=0)
    scale = np.sqrt(np.mean(known.var(axis=0)))
    rows = np.concatenate([np.zeros((1, items.shape[1])), (items - mean) / scale])
    return _Table(rows.astype(np.float32), Affine(mean.astype(np.float32), np.float32(scale)))
