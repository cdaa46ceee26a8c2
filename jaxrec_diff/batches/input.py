"""What is known of a kind of input, in one object a kind.

Everything that asks what a model reads asks its `Input`, so a new kind is a new file of this folder
and a model that names it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxrec_diff.batches.batcher import Batcher
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops.ragged import Ragged


def own_history(dataset: Dataset, split: str) -> Ragged:
    """The rows of a split as they are: a history, then its answer."""
    return {"valid": dataset.valid, "test": dataset.test}[split]


def as_it_is(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set itself."""
    del config
    return dataset


class Input(NamedTuple):
    """One kind of input: how it is cut, what of a user it shows, how a stranger is asked."""

    name: str
    batcher: Callable[[Dataset, DataConfig], Batcher]
    """Batches of what `view` makes of a data set; ValueError where the data cannot give them."""
    from_history: Callable[[jax.Array, jax.Array, jax.Array, DataConfig], Any]
    """(history i32[B, S], row_id i32[B], user i32[B], settings) -> query.

    A pure function for `jit`. A history is oldest first and right-padded with 0; an empty one is
    all 0. `row_id` keys the noise, `user` is a known user's number and read by kinds that
    `knows_users` alone. The query is what `Batcher.query` cuts from a split with these histories.
    """
    by_length: Callable[[Dataset, DataConfig, int, int], Batcher] | None = None
    """(dataset, settings, batch size, devices) -> batches padded to a few lengths; None where
    examples have one size."""
    view: Callable[[Dataset, DataConfig], Dataset] = as_it_is
    """The data set as models of this kind are trained and judged on it."""
    reads: Callable[[Dataset, str], Ragged] = own_history
    """(dataset, split) -> of every row of the split, the items that a model sees of it."""
    knows_users: bool = False
    """Queries name a known user; a new history needs one that stands in."""
    weighs_by_time: bool = False
    """`data.time-weight-min` and `-max` change what a query holds."""
