"""How each kind of input is cut from a data set, batch by batch, on the device.

    sequences      a history and its next item
    interactions   a user's whole training row, as ids and values
    pairs          a user, one of the user's items and an item that is not the user's
    user_pairs     the same, drawn by user: an active one is seen no oftener than any other

A training batch and a query are cut from flat arrays that stay on the device; no array of users by
items exists.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import batches, noise
from jaxrec_diff.batches import InteractionQuery, Interactions, Pairs, Slices
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.profiles import distinct, time_weights

Kind = Literal["sequences", "interactions", "pairs", "user_pairs"]


class Feed(NamedTuple):
    """One kind of input."""

    train: Any  # arrays that `example` cuts from, on the host
    num_examples: int
    example: Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
    """(train, index i32[B], row i32[B], key) -> example; index -1 makes a row of weight 0."""
    splits: dict[str, Any]  # "valid" and "test": arrays that `query` cuts from, on the host
    query: Callable[[Any, jax.Array], Any]
    """(arrays of a split, index i32[B]) -> query; index -1 makes an empty one."""


class Rows(NamedTuple):
    """Users by number, over their training rows."""

    profiles: Slices  # distinct items of each user
    value: Any  # f32[M], aligned with their items
    user: Any  # i32[N]


class Preferences(NamedTuple):
    """Every training pair, and every user's distinct training items in rising order."""

    user: Any  # i32[N]
    item: Any  # i32[N]
    owned: Any  # i32[M], one user after the other
    offsets: Any  # i32[U + 1]


def feed(kind: Kind, dataset: Dataset, config: DataConfig) -> Feed:
    """The feed of a kind.

    Raises:
      ValueError: if the data has no users and the kind needs them.
    """
    if kind == "sequences":
        return _sequences(dataset, config)
    if dataset.profiles is None:
        raise ValueError(
            f"{dataset.name} holds histories without users; this model needs a table of users and "
            "items"
        )
    cut = {"interactions": _interactions, "pairs": _pairs, "user_pairs": _user_pairs}[kind]
    return cut(dataset, dataset.profiles, config)


def _sequences(dataset: Dataset, config: DataConfig) -> Feed:
    def example(train, index, row, key):
        del key
        return batches.sequences(train, index, max_len=config.max_len, row=row)

    def query(rows, index):
        return batches.queries(rows, index, max_len=config.max_len)

    return Feed(
        dataset.train,
        len(dataset.train.start),
        example,
        {"valid": dataset.valid, "test": dataset.test},
        query,
    )


def _interactions(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    train = _rows(profiles, config)
    width = _width(train.profiles)

    def example(train, index, row, key):
        del key
        items, value, user, weight = _profile(train, index, width)
        return Interactions(items, value, user, weight, row)

    return Feed(
        train,
        len(train.user),
        example,
        _split_rows(dataset, train),
        lambda rows, index: _row_query(rows, index, width),
    )


def _pairs(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    rows = _rows(profiles, config)
    width = _width(rows.profiles)
    sizes = (profiles.end - profiles.start).astype(np.int64)
    user = np.repeat(np.arange(len(sizes)), sizes)
    shift = np.repeat(profiles.start - (np.cumsum(sizes) - sizes), sizes)
    item = profiles.items[np.arange(sizes.sum()) + shift]
    distinct = np.unique(user * (dataset.num_items + 1) + item)
    owner, owned = np.divmod(distinct, dataset.num_items + 1)
    offsets = np.searchsorted(owner, np.arange(len(sizes) + 1))
    train = Preferences(
        user.astype(np.int32), item.astype(np.int32), owned.astype(np.int32),
        offsets.astype(np.int32),
    )  # fmt: skip

    def example(train, index, row, key):
        safe = jnp.maximum(index, 0)
        user, item = jnp.asarray(train.user)[safe], jnp.asarray(train.item)[safe]
        return _with_negative(train, user, item, index, row, key, dataset.num_items)

    return Feed(
        train,
        len(item),
        example,
        _split_rows(dataset, rows),
        lambda rows, index: _row_query(rows, index, width),
    )


def _user_pairs(dataset: Dataset, profiles: Slices, config: DataConfig) -> Feed:
    """DDRM's draw: a user, uniformly, then one of the user's items; as many as there are pairs."""
    pairs = _pairs(dataset, profiles, config)
    known = np.flatnonzero(np.diff(pairs.train.offsets)).astype(np.int32)

    def example(train, index, row, key):
        pairs, known = train
        k_user, k_item, k_other = jax.random.split(key, 3)
        user = jnp.asarray(known)[noise.randint(k_user, row, 0, len(known))]
        offsets = jnp.asarray(pairs.offsets)
        place = _below(k_item, row, offsets[user + 1] - offsets[user])
        item = jnp.asarray(pairs.owned)[offsets[user] + place]
        return _with_negative(pairs, user, item, index, row, k_other, dataset.num_items)

    return pairs._replace(train=(pairs.train, known), example=example)


def _with_negative(pairs: Preferences, user, item, index, row, key, num_items: int) -> Pairs:
    offsets = jnp.asarray(pairs.offsets)
    negative = unowned(key, row, pairs.owned, offsets[user], offsets[user + 1], num_items)
    # a user who has everything prefers nothing
    weight = ((index >= 0) & (negative <= num_items)).astype(jnp.float32)
    return Pairs(user, item, jnp.minimum(negative, num_items), weight, row)


def _below(key: jax.Array, row: jax.Array, count: jax.Array) -> jax.Array:
    """i32[B], each row's own draw from [0, count)."""
    draw = jax.vmap(lambda key, count: jax.random.randint(key, (), 0, count, jnp.int32))
    return draw(noise.row_keys(key, row), count)


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
    r = _below(key, row, jnp.maximum(num_items - (stop - start), 1))

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


def _rows(profiles: Slices, config: DataConfig) -> Rows:
    """The training rows of users who have any."""
    sets = distinct(profiles)
    value = time_weights(sets, config.time_weight_min, config.time_weight_max)
    return Rows(sets, value, np.flatnonzero(sets.end > sets.start).astype(np.int32))


def _width(profiles: Slices) -> int:
    return int(np.max(profiles.end - profiles.start))


def _split_rows(dataset: Dataset, rows: Rows) -> dict[str, Rows]:
    return {
        "valid": rows._replace(user=dataset.valid_users),
        "test": rows._replace(user=dataset.test_users),
    }


def _profile(rows: Rows, index: jax.Array, width: int):
    """Items i32[B, P], values f32[B, P], users i32[B] and weights f32[B] at `index`."""
    real = index >= 0
    user = jnp.where(real, jnp.asarray(rows.user)[jnp.maximum(index, 0)], 0)
    start, end = (jnp.asarray(part)[user] for part in rows.profiles[1:3])
    place = start[:, None] + jnp.arange(width)
    inside = (place < end[:, None]) & real[:, None]
    place = jnp.where(inside, place, 0)
    items, value = (jnp.asarray(part)[place] for part in (rows.profiles.items, rows.value))
    items = jnp.where(inside, items, 0).astype(jnp.int32)
    return items, jnp.where(inside, value, 0.0), user, real.astype(jnp.float32)


def _row_query(rows: Rows, index: jax.Array, width: int) -> InteractionQuery:
    items, value, user, _ = _profile(rows, index, width)
    return InteractionQuery(items, value, user, index)
