"""Item ids to compare with: by a law over the catalogue, or outside a set, without rejection."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.ops import rng

_GRAIN = 2**30  # a law's probabilities are whole numbers of so many parts, or a few more


class Law(NamedTuple):
    """A distribution over items 1..I from which a sampled softmax draws its classes.

    Its logits are corrected by log Q (Bengio and Senecal 2008; Jean et al. 2015,
    arXiv:1412.2007, section 3.1), in which a number that all items share cancels.
    """

    draw: Callable[[jax.Array, int], jax.Array]  # key, n -> i32[n] items, drawn by themselves
    log_q: Callable[[jax.Array], jax.Array]
    """i32[...] items -> f32[...] log of their probability, up to a number that all share."""


def uniform(num_items: int) -> Law:
    """Every item alike; log Q is 0.

    >>> uniform(9).draw(jax.random.key(0), 3).shape
    (3,)
    """

    def draw(key, n):
        return jax.random.randint(key, (n,), 1, num_items + 1, jnp.int32)

    return Law(draw, lambda items: jnp.zeros(items.shape, jnp.float32))


def log_uniform(counts: np.ndarray) -> Law:
    """P(r) = log((r + 2) / (r + 1)) / log(I + 1) of the item of rank r by `counts` i64[I]."""
    chex.assert_rank(counts, 1)
    num_items = len(counts)
    by_count = np.argsort(-counts, kind="stable") + 1
    rank = np.arange(num_items)
    log_q = np.zeros(num_items + 1)
    log_q[by_count] = np.log(np.log((rank + 2.0) / (rank + 1.0)) / np.log(num_items + 1.0))
    ids, table = jnp.asarray(by_count, jnp.int32), jnp.asarray(log_q, jnp.float32)

    def draw(key, n):
        # Inverse of P(rank <= r) = log(r + 2) / log(I + 1).
        whole = np.float32(np.log(num_items + 1.0))
        drawn = jnp.exp(jax.random.uniform(key, (n,), jnp.float32) * whole)
        return ids[jnp.clip(drawn.astype(jnp.int32) - 1, 0, num_items - 1)]

    return Law(draw, lambda items: table[items])


def popularity(counts: np.ndarray, *, power: float = 1.0) -> Law:
    """P(j) proportional to counts[j - 1]^power, i64[I]; items that never occur are not drawn.

    Powers below 1 flatten it: 3/4 in Mikolov et al. 2013 (arXiv:1310.4546). Probabilities are
    rounded to parts of 2^-30, one at least, and log Q is of what they were rounded to.

    >>> law = popularity(np.array([0, 3, 1]))
    >>> set(law.draw(jax.random.key(0), 50).tolist())
    {2, 3}
    >>> [round(float(each), 4) for each in law.log_q(jnp.array([2, 3]))]
    [-0.2877, -1.3863]
    """
    chex.assert_rank(counts, 1)
    share = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** power, 0.0)
    parts = np.where(counts > 0, np.maximum(np.rint(share / share.sum() * _GRAIN), 1), 0)
    until = np.cumsum(parts).astype(np.int32)
    # an item that is never drawn is asked about nowhere; this only keeps its log finite
    log_q = np.append(0.0, np.log(np.maximum(parts, 1) / parts.sum()))
    bounds, table = jnp.asarray(until), jnp.asarray(log_q, jnp.float32)

    def draw(key, n):
        part = jax.random.randint(key, (n,), 0, until[-1], jnp.int32)
        return jnp.searchsorted(bounds, part, side="right").astype(jnp.int32) + 1

    return Law(draw, lambda items: table[items])


def uniform_rows(
    key: jax.Array, row_id: jax.Array, shape: tuple[int, ...], num_items: int
) -> jax.Array:
    """Every row's own items, uniformly and with repeats: i32[B, *shape]."""
    return rng.randint(key, row_id, 1, num_items + 1, shape)


def uniform_places(
    key: jax.Array, row_id: jax.Array, length: int, count: int, num_items: int
) -> jax.Array:
    """`count` items for each of `length` places of a row, whatever other places it has: i32[B, L,
    n]."""

    def of_row(key):
        keys = rng.row_keys(key, jnp.arange(length))
        return jax.vmap(lambda k: jax.random.randint(k, (count,), 1, num_items + 1, jnp.int32))(
            keys
        )

    return jax.vmap(of_row)(rng.row_keys(key, row_id))


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
