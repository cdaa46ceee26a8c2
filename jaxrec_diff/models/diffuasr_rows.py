"""The item rows that DiffuASR's diffusion works on."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxrec_diff import losses
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.ops import vectors

_ROUNDING_TEMPERATURE = 0.1


def in_parts(run: Callable[[Any], jax.Array], rows: Any, size: int) -> jax.Array:
    """`run` on equal parts of at most `size` rows, one after the other, the last one filled up.

    A program that is exported for any number of rows runs them at once: its caller cuts them.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    parts = 1 if export.is_symbolic_dim(count) else -(-count // size)
    if parts <= 1:
        return run(rows)
    each = -(-count // parts)

    def split(leaf):
        fill = [(0, parts * each - count)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, fill, mode="edge").reshape(parts, each, *leaf.shape[1:])

    out = jax.lax.map(run, jax.tree.map(split, rows))
    return out.reshape(parts * each, *out.shape[2:])[:count]


class Affine(NamedTuple):
    """The way from standardised rows back to the recommender's: shift + scale row."""

    shift: Any  # f32[D], or 0
    scale: Any  # f32

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.shift + self.scale * x


class Table(NamedTuple):
    """Rows of unit variance, f32[I + 1, D], and the way back."""

    rows: np.ndarray
    back: Affine


def standardised(spec: DataSpec) -> Table:
    """The recommender's rows minus their mean, over one deviation; row 0 is padding."""
    items = np.asarray(spec.exports["items"], np.float64)
    # Rows that were never trained are where they were drawn and say nothing about the rest.
    known = items if spec.item_counts is None else items[spec.item_counts > 0]
    mean = known.mean(axis=0)
    scale = np.sqrt(np.mean(known.var(axis=0)))
    rows = np.concatenate([np.zeros((1, items.shape[1])), (items - mean) / scale])
    return Table(rows.astype(np.float32), Affine(mean.astype(np.float32), np.float32(scale)))


def pooled(how: Literal["mean", "sum"], vectors: jax.Array, seq: jax.Array) -> jax.Array:
    """One vector a history: f32[B, L, D] at the places of i32[B, L], 0 for padding -> f32[B, D].

    >>> pooled("mean", jnp.array([[[1.0], [3.0], [9.0]]]), jnp.array([[5, 7, 0]])).tolist()
    [[2.0]]
    """
    real = (seq > 0)[..., None]
    total = jnp.sum(jnp.where(real, vectors, 0.0), axis=1)
    return total if how == "sum" else total / jnp.maximum(real.sum(axis=1), 1)


def spread(rows: jax.Array, num_items: int) -> jax.Array:
    """Root mean variance of a coordinate over items, f32[] of f32[R, D] whose row j is item j."""
    return jnp.sqrt(jnp.mean(jnp.var(rows, axis=0, where=_items(rows, num_items))))


def rounding(x0_hat: jax.Array, rows: jax.Array, items: jax.Array, num_items: int) -> jax.Array:
    """How hard estimates are to round to their items, a mean over M: f32[B].

    Cross entropy of each estimate's cosines / 0.1 over all items.

    Args:
      x0_hat: f32[B, M, D].
      rows: f32[R, D]; row j is item j.
      items: i32[B, M] item ids.
      num_items: I.
    """
    flat = vectors.unit(x0_hat).reshape(-1, x0_hat.shape[-1]) / _ROUNDING_TEMPERATURE
    # rows that fill the table up are zeros, where a length has no gradient
    unit = vectors.unit(jnp.where(_items(rows, num_items), rows, 1.0))
    each = losses.full_softmax(flat, unit, items.reshape(-1), classes=(1, num_items + 1))
    return each.reshape(items.shape).mean(axis=-1)


def _items(rows: jax.Array, num_items: int) -> jax.Array:
    """bool[R, 1], which rows are items."""
    row = jnp.arange(rows.shape[0])[:, None]
    return (row >= 1) & (row <= num_items)
