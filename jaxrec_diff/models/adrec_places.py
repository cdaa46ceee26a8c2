"""Where padding stands when ADRec reads a history, and what it is asked at every place."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff.nets.transformer import Places, places


class Asked(NamedTuple):
    """Histories as the network reads them, and what it is asked at every place."""

    seq: jax.Array  # i32[B, P], P of the mask's making
    target: jax.Array  # i32[B, P] the item that came next, 0 on padding
    where: Places
    weight: jax.Array  # f32[B, P], 0 where nothing is asked


def ask(
    seq: jax.Array,
    target: jax.Array,
    counts: jax.Array,
    *,
    mask: Literal["query", "key"],
    one: bool,
    max_len: int,
) -> Asked:
    """Histories and their next items as the network reads them.

    Where padding is looked at it stands on the left, where all real places see it: every place of
    it (P = L), or one that has the weight of all (P = L_k + 1).

    Args:
      seq: i32[B, L_k] right-padded.
      target: i32[B, L_k] the item after each of them.
      counts: bool[B, L_k], places that are asked.
      mask: whether padding is hidden ("key").
      one: let one place stand for all padding.
      max_len: L.
    """
    here = jnp.maximum((seq > 0).sum(axis=-1, keepdims=True), 1)  # nobody: a place of padding
    if mask == "key":
        where = places(seq > 0)
    elif one:
        seq, target, counts = (jnp.pad(x, ((0, 0), (1, 0))) for x in (seq, target, counts))
        place = jnp.arange(seq.shape[1])
        count = jnp.where(place == 0, max_len - here, place <= here)
        where = places(seq > 0, "query", count.astype(jnp.result_type(float)))
    else:
        place = jnp.arange(max_len) - max_len + here
        at = jnp.clip(place, 0, seq.shape[1] - 1)
        seq, target, counts = (
            jnp.where(place >= 0, jnp.take_along_axis(x, at, axis=1), 0)
            for x in (seq, target, counts)
        )
        where = places(seq > 0, "query")
    return Asked(seq, target, where, counts.astype(jnp.result_type(float)))


def looked_up(items: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows f32[B, P, D] of items i32[B, P]; to that of padding no gradient comes from here, as the
    released embedding has it. As a class of the softmax the row is trained."""
    rows = items[ids]
    return jnp.where(ids[..., None] > 0, rows, jax.lax.stop_gradient(rows))
