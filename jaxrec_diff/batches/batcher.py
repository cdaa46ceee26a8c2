"""How a model's examples and queries are cut from a data set, batch by batch, on the device.

A training batch and a query are cut from flat arrays that stay on the device; no array of users by
items exists.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrec_diff.batches.types import Group, Shared
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


class Stream(NamedTuple):
    """Examples whose arrays are larger than a device: cut on the host, some at a time."""

    cut: Callable[[Any, np.ndarray, np.ndarray, jax.Array], Any]
    """(train, index i32[C, b], row_id i32[b], key[C] of what each batch draws) -> small arrays.

    They are cut on the host from `Batcher.train`, memory-mapped or not, for the rows `row_id` of C
    batches. Their shapes depend on C and b alone; the example at `index[c, n]` is their number
    c b + n.
    """
    example: Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
    """`Batcher.example` of these arrays, to the last bit once it is joined."""
    join: Callable[[Any], Any] = lambda example: example
    """What `example` gives of the rows of all devices, those of a device side by side in every
    array -> `Batcher.example`."""


class Batcher(NamedTuple):
    """One kind of input, cut from one data set."""

    train: Any  # arrays that `example` cuts from, on the host
    num_examples: int
    example: Callable[[Any, jax.Array, jax.Array, jax.Array], Any]
    """(train, index i32[B], row_id i32[B], key) -> example; index -1 makes a row of weight 0."""
    stream: Stream
    splits: dict[str, Any]  # "valid" and "test": arrays that `query` cuts from, on the host
    query: Callable[[Any, jax.Array], Any]
    """(arrays of a split, index i32[B]) -> query; index -1 makes an empty one."""
    order: Callable[[jax.Array], jax.Array] | None = None
    """key -> i32[steps, slots] of an epoch, where `example` wants its own; -1 is an empty slot."""
    groups: dict[str, tuple[Group, ...]] = {}
    """Rows of a split that are cut alike, where there is more than one way."""
    shared: Shared | None = None
    """One run of queries for both splits, where a user's are the same in both but for `row_id`."""
    alone: Callable[[Any, np.ndarray], Any] = ragged.alone
    """(arrays that `query` cuts from, rows int[n]) -> such arrays of these rows, on the host."""


def shown(dataset: Dataset) -> dict[str, Ragged]:
    """The histories that queries of validation and test are cut from."""
    return dataset.shown or {"valid": dataset.valid, "test": dataset.test}
