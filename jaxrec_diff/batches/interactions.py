"""A user's whole training row, as ids and values."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches.feed import Feed
from jaxrec_diff.batches.types import InteractionQuery, Interactions, Shared
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.profiles import distinct, time_weights
from jaxrec_diff.ops.ragged import Ragged


class Rows(NamedTuple):
    """Users by number, over their training rows."""

    profiles: Ragged  # distinct items of each user
    value: Any  # f32[M], aligned with their items
    user: Any  # i32[N]


def of_rows(dataset: Dataset, profiles: Ragged, config: DataConfig) -> Feed:
    train = rows(profiles, config)
    width = row_width(train.profiles)

    def example(train, index, row, key):
        del key
        items, value, user, weight = _profile(train, index, width)
        return Interactions(items, value, user, weight, row)

    return Feed(
        train,
        len(train.user),
        example,
        split_rows(dataset, train),
        lambda rows, index: row_query(rows, index, width),
        shared=shared(dataset, train),
    )


def rows(profiles: Ragged, config: DataConfig) -> Rows:
    """The training rows of users who have any."""
    sets = distinct(profiles)
    value = time_weights(sets, config.time_weight_min, config.time_weight_max)
    return Rows(sets, value, np.flatnonzero(sets.end > sets.start).astype(np.int32))


def row_width(profiles: Ragged) -> int:
    return int(np.max(profiles.end - profiles.start))


def split_rows(dataset: Dataset, rows: Rows) -> dict[str, Rows]:
    return {
        "valid": rows._replace(user=dataset.valid_users),
        "test": rows._replace(user=dataset.test_users),
    }


def shared(dataset: Dataset, rows: Rows) -> Shared | None:
    """Users of either split, once: the training row is the query of both. None where a user asks
    twice in a split."""
    of_split = {"valid": dataset.valid_users, "test": dataset.test_users}
    if any(len(np.unique(own)) < len(own) for own in of_split.values()):
        return None
    users = np.unique(np.concatenate(list(of_split.values())))
    place = {name: np.full(len(users), -1, np.int32) for name in of_split}
    for name, own in of_split.items():
        place[name][np.searchsorted(users, own)] = np.arange(len(own))
    return Shared(rows._replace(user=users), place)


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


def row_query(rows: Rows, index: jax.Array, width: int) -> InteractionQuery:
    items, value, user, _ = _profile(rows, index, width)
    return InteractionQuery(items, value, user, index)
