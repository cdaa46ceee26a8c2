"""How each kind of input is cut from a data set, batch by batch, on the device.

    sequences      a history and its next item
    windows        the same, of each user only as many as make every training item a target once,
                   for models that learn at every place of a history
    interactions   a user's whole training row, as ids and values
    pairs          a user, one of the user's items and an item that is not the user's
    user_pairs     the same, drawn by user: an active one is seen no oftener than any other
    walks          a user's whole training sequence, with an item that is not the user's a place
    prefixes       a history and the M items that came before it

A training batch and a query are cut from flat arrays that stay on the device; no array of users by
items exists.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxrec_diff.batches.types import Group, Shared
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops.ragged import Ragged

Kind = Literal["sequences", "windows", "interactions", "pairs", "user_pairs", "walks", "prefixes"]


# Kinds whose queries are the histories of a split, validation's items among them at the test.
OF_HISTORIES = ("sequences", "windows", "walks", "prefixes")


class Feed(NamedTuple):
    """One kind of input."""

    train: Any  # arrays that `example` cuts from, on the host
    num_examples: int
    example: Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
    """(train, index i32[B], row i32[B], key) -> example; index -1 makes a row of weight 0."""
    splits: dict[str, Any]  # "valid" and "test": arrays that `query` cuts from, on the host
    query: Callable[[Any, jax.Array], Any]
    """(arrays of a split, index i32[B]) -> query; index -1 makes an empty one."""
    order: Callable[[jax.Array], jax.Array] | None = None
    """key -> i32[steps, slots] of an epoch, where `example` wants its own; -1 is an empty slot."""
    groups: dict[str, tuple[Group, ...]] = {}
    """Rows of a split that are cut alike, where there is more than one way."""
    shared: Shared | None = None
    """One run of queries for both splits, where a user's are the same in both but for `row`."""


def shown(dataset: Dataset) -> dict[str, Ragged]:
    """The histories that queries of validation and test are cut from."""
    return dataset.shown or {"valid": dataset.valid, "test": dataset.test}


def chosen(profiles: Ragged) -> Ragged:
    """The rows without the generated items ahead of them."""
    if profiles.generated is None:
        return profiles
    before = np.append(0, np.cumsum(profiles.generated))
    ahead = before[profiles.end] - before[profiles.start]
    return Ragged(profiles.items, (profiles.start + ahead).astype(np.int32), *profiles[2:4])
