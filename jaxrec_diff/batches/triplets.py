"""A user, one of the user's items and an item that is not the user's (BPR's triplets)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import interactions
from jaxrec_diff.batches.batcher import Batcher, Stream
from jaxrec_diff.batches.input import Input
from jaxrec_diff.batches.types import Triplets
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import graph, negatives, ragged, rng
from jaxrec_diff.ops.ragged import Ragged


class Preferences(NamedTuple):
    """Every training pair, and every user's distinct training items in rising order."""

    user: Any  # i32[N]
    item: Any  # i32[N]
    owned: Any  # i32[M], one user after the other
    offsets: Any  # i32[U + 1]


def _batcher(dataset: Dataset, config: DataConfig) -> Batcher:
    user_items = interactions.table_of(dataset)
    rows = interactions.rows(user_items, config)
    width = interactions.row_width(rows.user_items)
    place, user = ragged.expand(user_items.start, user_items.end - user_items.start)
    item = user_items.items[place]
    owned, offsets = owned_items(user_items, dataset.num_items)
    train = Preferences(user.astype(np.int32), item.astype(np.int32), owned, offsets)

    most, num_items = int(np.max(np.diff(offsets))), dataset.num_items

    def example(train, index, row_id, key):
        safe = jnp.maximum(index, 0)
        user, item = jnp.asarray(train.user)[safe], jnp.asarray(train.item)[safe]
        start, stop = (jnp.asarray(train.offsets)[user + n] for n in (0, 1))
        return _with_negative(train.owned, start, stop, user, item, index, row_id, key, num_items)

    def cut(train, index, row_id, keys):
        del row_id, keys
        rows = np.maximum(index, 0).reshape(-1)
        user = train.user[rows]
        own, offsets = packed(train.owned, train.offsets, user, most)
        return Preferences(user, train.item[rows], own, offsets)

    def streamed(train, index, row_id, key):
        at = jnp.maximum(index, 0)
        user, item = jnp.asarray(train.user)[at], jnp.asarray(train.item)[at]
        start, stop = (jnp.asarray(train.offsets)[at + n] for n in (0, 1))
        return _with_negative(train.owned, start, stop, user, item, index, row_id, key, num_items)

    return Batcher(
        train,
        len(item),
        example,
        Stream(cut, streamed),
        interactions.split_rows(dataset, rows),
        lambda rows, index: interactions.row_query(rows, index, width),
        shared=interactions.shared(dataset, rows),
        alone=interactions.alone,
    )


def _batcher_by_user(dataset: Dataset, config: DataConfig) -> Batcher:
    """DDRM's draw: a user, uniformly, then one of the user's items; as many as there are pairs."""
    base, num_items = _batcher(dataset, config), dataset.num_items
    offsets = base.train.offsets
    known, most = np.flatnonzero(np.diff(offsets)).astype(np.int32), int(np.max(np.diff(offsets)))

    def drawn(key, row_id):
        return rng.randint(jax.random.split(key, 3)[0], row_id, 0, len(known))

    def of_user(owned, start, stop, user, index, row_id, key):
        _, k_item, k_other = jax.random.split(key, 3)
        item = jnp.asarray(owned)[start + negatives.below(k_item, row_id, stop - start)]
        return _with_negative(owned, start, stop, user, item, index, row_id, k_other, num_items)

    def example(train, index, row_id, key):
        preferences, known = train
        user = jnp.asarray(known)[drawn(key, row_id)]
        start, stop = (jnp.asarray(preferences.offsets)[user + n] for n in (0, 1))
        return of_user(preferences.owned, start, stop, user, index, row_id, key)

    @jax.jit
    def all_drawn(keys, row_id):
        return jax.vmap(drawn, in_axes=(0, None))(keys, row_id)

    def cut(train, index, row_id, keys):
        del index
        preferences, known = train
        user = known[np.asarray(all_drawn(keys, row_id)).reshape(-1)]
        own, offsets = packed(preferences.owned, preferences.offsets, user, most)
        return Preferences(user, np.zeros_like(user), own, offsets)

    def streamed(train, index, row_id, key):
        at = jnp.maximum(index, 0)
        user = jnp.asarray(train.user)[at]
        start, stop = (jnp.asarray(train.offsets)[at + n] for n in (0, 1))
        return of_user(train.owned, start, stop, user, index, row_id, key)

    return base._replace(train=(base.train, known), example=example, stream=Stream(cut, streamed))


def _with_negative(owned, start, stop, user, item, index, row_id, key, num_items: int) -> Triplets:
    negative = negatives.unowned(key, row_id, owned, start, stop, num_items)
    # a user who has everything prefers nothing
    weight = ((index >= 0) & (negative <= num_items)).astype(jnp.float32)
    return Triplets(user, item, jnp.minimum(negative, num_items), weight, row_id)


def packed(
    owned: np.ndarray, offsets: np.ndarray, user: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """The items of some users, each list of at most `most`, one after the other, on the host.

    Returns:
      i32[n most], zeros behind the last list, and i32[n + 1] where each begins.
    """
    size = offsets[user + 1] - offsets[user]
    place, _ = ragged.expand(offsets[user], size)
    found = np.zeros(len(user) * most, np.int32)
    found[: len(place)] = owned[place]
    return found, np.append(0, np.cumsum(size)).astype(np.int32)


def owned_items(user_items: Ragged, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Every user's distinct items in rising order, flat i32[M], and where each user's begin."""
    sets = graph.item_sets(user_items, num_items)
    return sets.members + 1, sets.start


TRIPLETS = Input(
    "triplets",
    _batcher,
    interactions.from_history,
    reads=interactions.training_rows,
    knows_users=True,
)

TRIPLETS_BY_USER = TRIPLETS._replace(name="triplets_by_user", batcher=_batcher_by_user)
"""The same, drawn by user: an active one is seen no oftener than any other."""
