"""Histories, queries and answers as windows over flat arrays, for the batch at hand only."""

import jax
import jax.numpy as jnp

from jaxrec_diff.batches.types import Answer, SequenceQuery, Sequences
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


def sequences(
    rows: Ragged, index: jax.Array, *, max_len: int, row_id: jax.Array | None = None
) -> Sequences:
    """The training examples at `index` i32[B]; -1 makes a row of weight 0.

    `row_id` is their place in the global batch, by default in this one.
    """
    start, end, _, weight = _rows(rows, index)
    target = jnp.where(weight > 0, jnp.asarray(rows.items)[end], 1)
    row_id = jnp.arange(index.shape[0], dtype=jnp.int32) if row_id is None else row_id
    seq = ragged.window(jnp.asarray(rows.items), start, end, max_len)
    return Sequences(
        seq, target.astype(jnp.int32), weight, row_id, ragged.generated(rows, start, end, max_len)
    )


def queries(rows: Ragged, index: jax.Array, *, max_len: int) -> SequenceQuery:
    """The histories at `index` i32[B], without their answers; -1 makes an empty one."""
    start, end, _, _ = _rows(rows, index)
    return SequenceQuery(ragged.window(jnp.asarray(rows.items), start, end, max_len), index)


def from_history(
    history: jax.Array, row_id: jax.Array, user: jax.Array, config: DataConfig
) -> SequenceQuery:
    """`Input.from_history` of kinds that read a history: its newest L items."""
    del user
    count = (history > 0).sum(axis=1)[:, None]
    place = jnp.maximum(count - config.max_len, 0) + jnp.arange(config.max_len)
    inside = place < count
    seq = jnp.take_along_axis(history, jnp.where(inside, place, 0), axis=1)
    return SequenceQuery(jnp.where(inside, seq, 0), row_id)


def answers(rows: Ragged, index: jax.Array, *, max_seen: int, max_relevant: int) -> Answer:
    """The answers at `index` i32[B] and the items of the whole histories."""
    start, end, stop, weight = _rows(rows, index)
    items = jnp.asarray(rows.items)
    return Answer(
        ragged.window(items, start, end, max_seen),
        ragged.window(items, end, stop, max_relevant),
        weight,
    )


def _rows(rows: Ragged, index: jax.Array):
    real = index >= 0
    safe = jnp.where(real, index, 0)
    start, end, stop = (jnp.asarray(part)[safe] for part in rows[1:4])
    return (
        jnp.where(real, start, 0),
        jnp.where(real, end, 0),
        jnp.where(real, stop, 0),
        real.astype(jnp.float32),
    )
