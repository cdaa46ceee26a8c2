"""A user, one of the user's items and an item that is not the user's (BPR's triplets)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import interactions
from jaxrec_diff.batches.batcher import Batcher
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

    def example(train, index, row_id, key):
        safe = jnp.maximum(index, 0)
        user, item = jnp.asarray(train.user)[safe], jnp.asarray(train.item)[safe]
        return _with_negative(train, user, item, index, row_id, key, dataset.num_items)

    return Batcher(
        train,
        len(item),
        example,
        interactions.split_rows(dataset, rows),
        lambda rows, index: interactions.row_query(rows, index, width),
        shared=interactions.shared(dataset, rows),
    )


def _batcher_by_user(dataset: Dataset, config: DataConfig) -> Batcher:
    """DDRM's draw: a user, uniformly, then one of the user's items; as many as there are pairs."""
    base = _batcher(dataset, config)
    known = np.flatnonzero(np.diff(base.train.offsets)).astype(np.int32)

    def example(train, index, row_id, key):
        preferences, known = train
        k_user, k_item, k_other = jax.random.split(key, 3)
        user = jnp.asarray(known)[rng.randint(k_user, row_id, 0, len(known))]
        offsets = jnp.asarray(preferences.offsets)
        place = negatives.below(k_item, row_id, offsets[user + 1] - offsets[user])
        item = jnp.asarray(preferences.owned)[offsets[user] + place]
        return _with_negative(preferences, user, item, index, row_id, k_other, dataset.num_items)

    return base._replace(train=(base.train, known), example=example)


def _with_negative(
    preferences: Preferences, user, item, index, row_id, key, num_items: int
) -> Triplets:
    offsets = jnp.asarray(preferences.offsets)
    negative = negatives.unowned(
        key, row_id, preferences.owned, offsets[user], offsets[user + 1], num_items
    )
    # a user who has everything prefers nothing
    weight = ((index >= 0) & (negative <= num_items)).astype(jnp.float32)
    return Triplets(user, item, jnp.minimum(negative, num_items), weight, row_id)


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
