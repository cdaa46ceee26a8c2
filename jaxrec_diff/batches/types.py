"""What a model sees, cut on the fly from ragged rows of items.

Item id 0 is padding, items are 1..I; histories are right-padded, oldest item first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Negatives(NamedTuple):
    """Items that all rows of a training batch are compared with, and how likely they were drawn."""

    ids: jax.Array  # i32[n], 0 where there is none
    log_q: jax.Array  # f32[n] log of their probability, up to a number that all items share
    target_log_q: Any  # f32, the same of every target that is asked about, shaped as they are


class Sequences(NamedTuple):
    """A training batch: histories and their next items."""

    seq: Any  # i32[B, L], or a tuple of i32[B_k, L_k] whose rows together are the B
    target: jax.Array  # i32[B]
    weight: jax.Array  # f32[B], 0 on padding rows
    row_id: jax.Array  # i32[B], place in the global batch; keys the noise
    first: Any = None  # i32[B], place of the first item that somebody chose; None: all are
    negatives: Any = None
    """`Negatives`, or an item a place shaped as `seq`; None until `Model.draw` puts them there."""


class SequenceQuery(NamedTuple):
    """What `sample` sees: histories without answers."""

    seq: jax.Array  # i32[B, L]
    row_id: jax.Array  # i32[B], row of the split; keys the noise


class Interactions(NamedTuple):
    """A training batch of rows of the interaction matrix, as ids and their values."""

    items: jax.Array  # i32[B, P] items of a user's training row, 0 where there are fewer
    value: jax.Array  # f32[B, P] their entries, 0 on padding; 1, or a weight by time
    user: jax.Array  # i32[B]
    weight: jax.Array  # f32[B], 0 on padding rows
    row_id: jax.Array  # i32[B], place in the global batch; keys the noise


class InteractionQuery(NamedTuple):
    """What `sample` sees of a user: the training row, or after a cut in time the history."""

    items: jax.Array  # i32[B, P]
    value: jax.Array  # f32[B, P]
    user: jax.Array  # i32[B]
    row_id: jax.Array  # i32[B], row of the split; keys the noise


class Triplets(NamedTuple):
    """A training batch of pairwise preferences: a user's item, and one that is not the user's."""

    user: jax.Array  # i32[B]
    positive: jax.Array  # i32[B], item ids
    negative: jax.Array  # i32[B]
    weight: jax.Array  # f32[B], 0 on padding rows
    row_id: jax.Array  # i32[B], place in the global batch; keys the noise
    log_q: Any = None  # f32[B] log Q of the positive less the negative's; None: nothing to correct


class Group(NamedTuple):
    """Rows of a split whose queries are cut alike."""

    rows: Any  # i32[n] on the host
    query: Callable[[Any, jax.Array], Any]  # (arrays of the split, index i32[B]) -> query


class Shared(NamedTuple):
    """Queries that several splits have in common, each of which is cut once."""

    rows: Any  # what they are cut from
    place: dict[str, Any]  # of each split: the row that asks each query, i32[n]; -1 where none does


class Prefixes(NamedTuple):
    """A training batch of histories and the items that came before them."""

    prefix: jax.Array  # i32[B, M], oldest first
    seq: jax.Array  # i32[B, L], what followed
    weight: jax.Array  # f32[B], 0 on padding rows
    row_id: jax.Array  # i32[B], place in the global batch; keys the noise


class WholeSequences(NamedTuple):
    """A training batch of whole training sequences; in several lengths, as in `Sequences`."""

    seq: jax.Array | tuple[jax.Array, ...]  # i32[B, L]
    first: jax.Array  # i32[B], place of the first item that is not generated
    negative: jax.Array | tuple[jax.Array, ...]  # i32[B, L], an item that is not the user's
    weight: jax.Array  # f32[B], 0 on padding rows
    row_id: jax.Array  # i32[B], place in the global batch; keys the noise
    shown: Any = None  # i32[B, L], `seq` behind masks; None until `Model.draw` puts it there
    asked: Any = None  # bool[B, L], places to be found, drawn with it


class Answer(NamedTuple):
    """What only the ranker sees."""

    seen: jax.Array  # i32[B, S] items of the whole history, 0 where there are fewer
    relevant: jax.Array  # i32[B, R] items to find, 0 where there are fewer
    weight: jax.Array  # f32[B], 0 on padding rows


def over_lengths(encode: Callable[..., Any], seq: Any, *rest: Any) -> Any:
    """`encode(seq, *rest)` where histories come in several lengths.

    Args:
      encode: (i32[B_k, L_k], rows of `rest`...) -> arrays [B_k, ...].
      seq: i32[B, L], or a tuple of i32[B_k, L_k] (`Sequences.seq`).
      rest: arrays [B, ...] that are cut alike, or tuples that are cut already.

    Returns:
      What `encode` returns, its rows in the order of the batch.

    >>> import jax.numpy as jnp
    >>> parts = (jnp.ones((2, 3), int), jnp.ones((1, 5), int))
    >>> over_lengths(lambda seq, x: seq.sum(-1) + x, parts, jnp.array([10, 20, 30])).tolist()
    [13, 23, 35]
    """
    out = at_lengths(encode, seq, *rest)
    if not isinstance(seq, tuple):
        return out
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *out)


def at_lengths(encode: Callable[..., Any], seq: Any, *rest: Any) -> Any:
    """`over_lengths`, but what `encode` returns stays apart: a tuple where `seq` is one."""
    if not isinstance(seq, tuple):
        return encode(seq, *rest)
    out, first = [], 0
    for k, part in enumerate(seq):
        rows = slice(first, first + part.shape[0])
        out.append(encode(part, *(r[k] if isinstance(r, tuple) else r[rows] for r in rest)))
        first = rows.stop
    return tuple(out)


def first_length(seq: Any) -> jax.Array:
    """Histories i32[B_1, L_1] to shape a network by: those of the first length, where there are
    several."""
    return seq[0] if isinstance(seq, tuple) else seq


def latest_last(seq: jax.Array, max_len: int) -> jax.Array:
    """Right-padded histories i32[B, L_k] with their latest item in place L - 1: i32[B, L].

    >>> import jax.numpy as jnp
    >>> latest_last(jnp.array([[7, 8, 0], [9, 0, 0]]), 4).tolist()
    [[0, 0, 7, 8], [0, 0, 0, 9]]
    """
    place = jnp.arange(max_len) - max_len + (seq > 0).sum(axis=1, keepdims=True)
    found = jnp.take_along_axis(seq, jnp.clip(place, 0, seq.shape[1] - 1), axis=1)
    return jnp.where(place >= 0, found, 0)
