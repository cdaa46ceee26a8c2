"""Item ids outside a set, drawn without rejection."""

import chex
import jax
import jax.numpy as jnp

from jaxrec_diff.ops import rng


def below(key: jax.Array, row_id: jax.Array, count: jax.Array) -> jax.Array:
    """i32[B], each row's own draw from [0, count): of `row_id` i32[B] and `count` i32[B]."""
    chex.assert_equal_shape([row_id, count])
    chex.assert_type([row_id, count], int)
    draw = jax.vmap(lambda key, count: jax.random.randint(key, (), 0, count, jnp.int32))
    return draw(rng.row_keys(key, row_id), count)


def unowned(
    key: jax.Array,
    row_id: jax.Array,
    owned: jax.Array,
    start: jax.Array,
    stop: jax.Array,
    num_items: int,
) -> jax.Array:
    """An item that is not the user's, of users whose items lie in one flat array: i32[B].

    Args:
      key: of the draw.
      row_id: i32[B] place in the global batch, folded into the key.
      owned: i32[M] distinct items, rising within a user.
      start: i32[B] where the user's items begin in `owned`.
      stop: i32[B] where they end.
      num_items: I.

    Returns:
      i32[B] in [1, I], or I + 1 for a user who has every item.
    """
    chex.assert_rank(owned, 1)
    chex.assert_equal_shape([row_id, start, stop])
    chex.assert_type([row_id, owned, start, stop], int)
    r = below(key, row_id, jnp.maximum(num_items - (stop - start), 1))

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


def strangers(key: jax.Array, row_id: jax.Array, seq: jax.Array, num_items: int) -> jax.Array:
    """For every place of a history an item that is not in it: i32[B, L].

    Args:
      key: of the draws.
      row_id: i32[B] place in the global batch, folded into the key.
      seq: i32[B, L] histories in any order, repeats allowed; 0 is no item.
      num_items: I.

    Returns:
      items in [1, I], or I + 1 where the history has every item.
    """
    chex.assert_rank(seq, 2)
    chex.assert_shape(row_id, seq.shape[:1])
    chex.assert_type([row_id, seq], int)
    return jax.vmap(lambda key, seq: _outside(key, seq, seq.shape[0], num_items))(
        rng.row_keys(key, row_id), seq
    )


def absent(key: jax.Array, seq: jax.Array, target: jax.Array, num_items: int) -> jax.Array:
    """For every place of one window an item outside it and its target: i32[L], i32[] -> i32[L].

    A window that holds every item gets item I.
    """
    chex.assert_rank([seq, target], [1, 0])
    chex.assert_type([seq, target], int)
    drawn = _outside(key, jnp.append(seq, target), seq.shape[0], num_items)
    return jnp.minimum(drawn, num_items)


def _outside(key: jax.Array, held: jax.Array, count: int, num_items: int) -> jax.Array:
    """`count` draws outside `held` i32[H], i32[count]; I + 1 where it holds everything."""
    beyond = num_items + 1  # sorts last and counts for no r
    ordered = jnp.sort(jnp.where(held > 0, held, beyond))
    again = jnp.append(False, ordered[1:] == ordered[:-1])
    ordered = jnp.sort(jnp.where(again, beyond, ordered))
    real = ordered < beyond
    skipped = jnp.where(real, ordered - 1 - jnp.arange(held.shape[0]), beyond)  # s_i - i
    free = jnp.maximum(num_items - real.sum(), 1)
    r = jax.random.randint(key, (count,), 0, free, jnp.int32)
    return r + 1 + jnp.searchsorted(skipped, r, side="right").astype(jnp.int32)
