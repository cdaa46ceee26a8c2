"""A user's whole training sequence, with an item that is not the user's at every place."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import lengths, triplets
from jaxrec_diff.batches.lengths import Cut
from jaxrec_diff.batches.types import WholeSequences
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import negatives, ragged
from jaxrec_diff.ops.ragged import Ragged


class Users(NamedTuple):
    """Users by number over their training rows, and every user's distinct training items."""

    user_items: Ragged
    user: Any  # i32[N], users with at least two real items
    owned: Any  # i32[M], one user after the other, rising
    offsets: Any  # i32[U + 1]


def _cut(dataset: Dataset, config: DataConfig) -> Cut:
    del config
    user_items = views.user_items_of(dataset, "this model needs")
    # A generated item may be drawn as a negative: the user's are those of the raw history.
    raw = ragged.chosen(user_items)
    owned, offsets = triplets.owned_items(raw, dataset.num_items)
    user = np.flatnonzero(raw.end - raw.start >= 2).astype(np.int32)
    train = Users(user_items, user, owned, offsets)

    def example(train, index, row_id, key, length):
        real = index >= 0
        user = jnp.asarray(train.user)[jnp.maximum(index, 0)]
        start, end = (jnp.asarray(part)[user] for part in train.user_items[1:3])
        seq = ragged.window(jnp.asarray(train.user_items.items), start, end, length)
        offsets = jnp.asarray(train.offsets)
        first = ragged.generated(train.user_items, start, end, length)
        first = jnp.zeros_like(user) if first is None else first
        negative = jax.vmap(
            lambda place: negatives.unowned(
                jax.random.fold_in(key, place), row_id, train.owned, offsets[user],
                offsets[user + 1], dataset.num_items,
            ),
            out_axes=1,
        )(jnp.arange(length))  # fmt: skip
        # a user who has everything prefers nothing
        weight = (real & (negative[:, 0] <= dataset.num_items)).astype(jnp.float32)
        negative = jnp.minimum(negative, dataset.num_items)
        return WholeSequences(seq, first, negative, weight, row_id)

    most = int(np.max(np.diff(offsets)))

    def part(train, rows, length):
        user = train.user[rows]
        own, bounds = triplets.packed(train.owned, train.offsets, user, most)
        numbered = np.arange(len(rows), dtype=np.int32)
        return Users(ragged.cut(train.user_items, user, length, 0), numbered, own, bounds)

    return Cut(
        train,
        ragged.pick(user_items, user),
        lambda train, rows: train._replace(user=train.user[rows]),
        example,
        ("seq", "negative"),
        part,
    )


WHOLE_SEQUENCES = lengths.of_histories("whole_sequences", _cut)
