"""Item ids outside a set, drawn without rejection."""

import jax
import jax.numpy as jnp

from jaxrec_diff.ops import rng


def below(key: jax.Array, row: jax.Array, count: jax.Array) -> jax.Array:
    """i32[B], each row's own draw from [0, count)."""
    draw = jax.vmap(lambda key, count: jax.random.randint(key, (), 0, count, jnp.int32))
    return draw(rng.row_keys(key, row), count)


def unowned(
    key: jax.Array,
    row: jax.Array,
    owned: jax.Array,
    start: jax.Array,
    stop: jax.Array,
    num_items: int,
) -> jax.Array:
    """An item that is not the user's, uniformly, without rejection: i32[B].

    With the user's n items s_1 < s_2 < ... and r uniform in [0, I - n), the r-th item that is not
    among them is r + 1 + #{i : s_i - i <= r}, found by binary search because s_i - i never falls.

    Args:
      key: of the draw.
      row: i32[B] global row, folded into the key.
      owned: i32[M] distinct items, rising within a user.
      start: i32[B] where the user's items begin in `owned`.
      stop: i32[B] where they end.
      num_items: I.

    Returns:
      i32[B] in [1, I], or I + 1 for a user who has every item.
    """
    r = below(key, row, jnp.maximum(num_items - (stop - start), 1))

    def halve(_, bounds):
        low, high = bounds  # the first place with s_i - i > r lies in [low, high]
        middle = (low + high) // 2
        before = jnp.asarray(owned)[middle] - (middle - start + 1) <= r
        open_ = low < high
        return (
            jnp.where(open_ & before, middle + 1, low),
            jnp.where(open_ & ~before, middle, high),
        )

    turns = max(int(num_items).bit_length(), 1) + 1
    place, _ = jax.lax.fori_loop(0, turns, halve, (start, stop))
    return r + 1 + place - start


def strangers(key: jax.Array, row: jax.Array, seq: jax.Array, num_items: int) -> jax.Array:
    """For every place of a history an item that is not in it, uniformly: i32[B, L].

    With the n distinct items s_1 < s_2 < ... of the history and r uniform in [0, I - n), the r-th
    item that is not among them is r + 1 + #{i : s_i - i <= r}.

    Args:
      key: of the draws.
      row: i32[B], folded into the key, so that a row's items do not depend on the batch.
      seq: i32[B, L] histories; 0 is no item.
      num_items: I.

    Returns:
      items in [1, I]; beyond I where the history has every item.
    """
    length = seq.shape[1]
    beyond = num_items + 1  # sorts last and counts for no r
    ordered = jnp.sort(jnp.where(seq > 0, seq, beyond), axis=1)
    again = jnp.pad(ordered[:, 1:] == ordered[:, :-1], ((0, 0), (1, 0)))
    ordered = jnp.sort(jnp.where(again, beyond, ordered), axis=1)
    skipped = jnp.where(ordered < beyond, ordered - 1 - jnp.arange(length), beyond)  # s_i - i
    free = num_items - (ordered < beyond).sum(axis=1)

    def draw(key, skipped, free):
        r = jax.random.randint(key, (length,), 0, jnp.maximum(free, 1), jnp.int32)
        return r + 1 + jnp.searchsorted(skipped, r, side="right").astype(jnp.int32)

    return jax.vmap(draw)(rng.row_keys(key, row), skipped, free)


def absent(key: jax.Array, seq: jax.Array, target: jax.Array, num_items: int) -> jax.Array:
    """An item for every place, uniform outside the window and its target: i32[L] -> i32[L].

    Without rejection: with the n distinct items s_1 < s_2 < .. and r uniform in [0, I - n), the
    r-th of the others is r + 1 + #{i : s_i - i <= r}. A window that holds every item gets item I.
    """
    ordered = jnp.sort(jnp.append(seq, target))
    before = jnp.append(0, ordered[:-1])
    distinct = (ordered > 0) & (ordered != before)
    ordered = jnp.sort(jnp.where(distinct, ordered, 2 * num_items + seq.shape[0]))
    free = jnp.maximum(num_items - jnp.sum(distinct), 1)
    r = jax.random.randint(key, seq.shape, 0, free, jnp.int32)
    gaps = ordered - jnp.arange(1, ordered.shape[0] + 1)
    passed = jnp.searchsorted(gaps, r, side="right").astype(jnp.int32)
    return jnp.minimum(r + 1 + passed, num_items)
