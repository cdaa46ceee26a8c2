"""A user's whole training row, as ids and values.

A query is the training row again, as the authors of these systems have it. Behind a cut in time,
where whoever came later has no such row, it is the history of the row that asks, read as one.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import cut as batches_cut
from jaxrec_diff.batches.batcher import Batcher, Stream, shown
from jaxrec_diff.batches.input import Input, own_history
from jaxrec_diff.batches.types import InteractionQuery, Interactions, Shared
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.user_items import distinct, time_weights
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


class Rows(NamedTuple):
    """Training rows of users."""

    user_items: Ragged  # distinct items of each row's user
    value: Any  # f32[M], aligned with their items
    user: Any  # i32[N]


class Whole(NamedTuple):
    """Rows of users side by side, some at a time."""

    items: Any  # i32[n, P], anything behind a user's items
    value: Any  # f32[n, P]
    size: Any  # i32[n] items a user has
    user: Any  # i32[n]


def _batcher(dataset: Dataset, config: DataConfig) -> Batcher:
    every = rows(table_of(dataset), config)
    train, width = filled(every), row_width(every.user_items)

    def example(train, index, row_id, key):
        del key
        items, value, user, weight = _row(train, index, width)
        return Interactions(items, value, user, weight, row_id)

    def cut(train, index, row_id, keys):
        del row_id, keys
        at = np.maximum(index, 0).reshape(-1)
        values = train.user_items._replace(items=train.value)
        found = (ragged.cut(each, at, width, 0) for each in (train.user_items, values))
        items, values = (each.items.reshape(-1, width) for each in found)
        size = train.user_items.end[at] - train.user_items.start[at]
        return Whole(items, values, size, train.user[at])

    asked = partial(Batcher, train, len(train.user), example, Stream(cut, _streamed))
    if dataset.cut_in_time:
        histories = shown(dataset)
        longest = max(row_width(rows) for rows in histories.values())
        return asked(histories, partial(_history_query, width=longest, config=config))
    return asked(
        split_rows(dataset, every),
        lambda rows, index: row_query(rows, index, width),
        shared=shared(dataset, every),
        alone=alone,
    )


def _history_query(
    rows: Ragged, index: jax.Array, width: int, config: DataConfig
) -> InteractionQuery:
    """The histories at `index` i32[B], read as training rows."""
    history = batches_cut.queries(rows, index, max_len=width).seq
    nobody = jnp.zeros_like(index)  # no model of whole rows asks whose a row is
    return from_history(history, index, nobody, config)


def table_of(dataset: Dataset) -> Ragged:
    """The training items of every user, for a model of the table.

    Raises:
      ValueError: if the data has no users, or generated items ahead of its sequences.
    """
    user_items = views.user_items_of(dataset, "this model needs")
    if dataset.shown is not None:
        raise ValueError(
            f"{dataset.name} has generated items ahead of its sequences, which mean nothing to a "
            "model of a table; train it on the interactions without them"
        )
    return user_items


def training_rows(dataset: Dataset, split: str) -> Ragged:
    """Of every row of a split, the training items of its user."""
    users = {"valid": dataset.valid_users, "test": dataset.test_users}[split]
    user_items = table_of(dataset)
    start, end = user_items.start[users], user_items.end[users]
    return Ragged(user_items.items, start, end, end)


def _shown(dataset: Dataset, split: str) -> Ragged:
    """Of every row of a split, what a model of rows is shown (`Input.reads`)."""
    return (own_history if dataset.cut_in_time else training_rows)(dataset, split)


def from_history(
    history: jax.Array, row_id: jax.Array, user: jax.Array, config: DataConfig
) -> InteractionQuery:
    """`Input.from_history`: the items of a history as a training row.

    An item stands once, at its last place, and weighs by its place among them, as in
    `data.user_items`; the row fills its places from the left.
    """
    width = history.shape[1]
    by_item = jnp.argsort(history, axis=1, stable=True)
    ordered = jnp.take_along_axis(history, by_item, axis=1)
    last = jnp.pad(ordered[:, 1:] != ordered[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    place = jnp.sort(jnp.where(last & (ordered > 0), by_item, width), axis=1)
    inside = place < width
    items = jnp.take_along_axis(history, jnp.where(inside, place, 0), axis=1)
    along = jnp.arange(width) / jnp.maximum(inside.sum(axis=1, keepdims=True) - 1, 1)
    low, high = config.time_weight_min, config.time_weight_max
    value = jnp.where(inside, low + along * (high - low), 0.0).astype(jnp.float32)
    return InteractionQuery(jnp.where(inside, items, 0), value, user, row_id)


def rows(user_items: Ragged, config: DataConfig) -> Rows:
    """The training rows of all users, row u of user u."""
    sets = distinct(user_items)
    value = time_weights(sets, config.time_weight_min, config.time_weight_max)
    return Rows(sets, value, np.arange(len(sets.start), dtype=np.int32))


def filled(rows: Rows) -> Rows:
    """Those that hold an item."""
    return of_users(rows, np.flatnonzero(rows.user_items.end > rows.user_items.start))


def of_users(rows: Rows, user: np.ndarray) -> Rows:
    """The rows of some users, of the rows of all."""
    return Rows(ragged.pick(rows.user_items, user), rows.value, rows.user[user])


def alone(rows: Rows, index: np.ndarray) -> Rows:
    """`Batcher.alone`."""
    values = rows.user_items._replace(items=rows.value)
    found = [ragged.alone(each, index) for each in (rows.user_items, values)]
    return Rows(found[0], found[1].items, rows.user[index])


def row_width(user_items: Ragged) -> int:
    return int(np.max(user_items.end - user_items.start))


def split_rows(dataset: Dataset, rows: Rows) -> dict[str, Rows]:
    of_split = {"valid": dataset.valid_users, "test": dataset.test_users}
    return {split: of_users(rows, users) for split, users in of_split.items()}


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
    return Shared(of_users(rows, users), place)


def _row(rows: Rows, index: jax.Array, width: int):
    """Items i32[B, P], values f32[B, P], users i32[B] and weights f32[B] at `index`."""
    real, safe = index >= 0, jnp.maximum(index, 0)
    user = jnp.where(real, jnp.asarray(rows.user)[safe], 0)
    start, end = (jnp.asarray(part)[safe] for part in rows.user_items[1:3])
    place = start[:, None] + jnp.arange(width)
    inside = (place < end[:, None]) & real[:, None]
    place = jnp.where(inside, place, 0)
    items, value = (jnp.asarray(part)[place] for part in (rows.user_items.items, rows.value))
    items = jnp.where(inside, items, 0).astype(jnp.int32)
    return items, jnp.where(inside, value, 0.0), user, real.astype(jnp.float32)


def _streamed(rows: Whole, index: jax.Array, row_id: jax.Array, key: jax.Array) -> Interactions:
    del key
    items, value, size, user = (jnp.asarray(part)[jnp.maximum(index, 0)] for part in rows)
    real = index >= 0
    inside = (jnp.arange(items.shape[1]) < size[:, None]) & real[:, None]
    return Interactions(
        jnp.where(inside, items, 0).astype(jnp.int32),
        jnp.where(inside, value, 0.0),
        jnp.where(real, user, 0),
        real.astype(jnp.float32),
        row_id,
    )


def row_query(rows: Rows, index: jax.Array, width: int) -> InteractionQuery:
    items, value, user, _ = _row(rows, index, width)
    return InteractionQuery(items, value, user, index)


def answered(query: InteractionQuery, items: jax.Array) -> InteractionQuery:
    """The rows with answers i32[B, R] (0 for none) behind their own items, f32[B, P + R] values.

    An answer weighs as much as the heaviest item of its row, and stands once.

    >>> row = InteractionQuery(jnp.array([[7, 8, 0]]), jnp.array([[0.5, 1.0, 0.0]]), None, None)
    >>> found = answered(row, jnp.array([[8, 9, 9]]))
    >>> found.items.tolist(), found.value.tolist()
    ([[7, 8, 9, 0, 0, 0]], [[0.5, 1.0, 1.0, 0.0, 0.0, 0.0]])
    """
    owned = (items[:, :, None] == query.items[:, None, :]).any(axis=-1)
    place = jnp.arange(items.shape[1])
    before = (items[:, :, None] == items[:, None, :]) & (place < place[:, None])
    new = jnp.where(owned | before.any(axis=-1), 0, items)
    heaviest = jnp.max(query.value, axis=1, keepdims=True)
    value = jnp.where(new > 0, jnp.where(heaviest > 0, heaviest, 1.0), 0.0)
    whole = jnp.concatenate([query.items, new], axis=1)
    from_left = jnp.argsort(whole == 0, axis=1, stable=True)  # a row fills its places so
    both = whole, jnp.concatenate([query.value, value], axis=1)
    return query._replace(
        **{
            name: jnp.take_along_axis(each, from_left, axis=1)
            for name, each in zip(("items", "value"), both, strict=True)
        }
    )


INTERACTIONS = Input("interactions", _batcher, from_history, reads=_shown, weighs_by_time=True)
