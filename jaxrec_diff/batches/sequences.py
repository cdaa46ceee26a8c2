"""A history and its next item."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.batches import cut as batches_cut
from jaxrec_diff.batches import feed
from jaxrec_diff.batches.feed import Feed, Kind
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


class Cut(NamedTuple):
    """Examples that are cut from histories, at any length."""

    train: Any  # arrays on the host
    spans: Ragged  # of every example, the history that it is cut from
    pick: Callable[[Any, Any], Any]
    """(train, rows) -> the same with these examples alone."""
    example: Callable[..., Any]
    """(train, index i32[B], row i32[B], key, length) -> example."""
    apart: tuple[str, ...]
    """Fields of an example that have a column a place."""


def cut_sequences(kind: Kind, dataset: Dataset, config: DataConfig) -> Cut:
    def example(train, index, row, key, length):
        del key
        return batches_cut.sequences(train, index, max_len=length, row=row)

    train = _of_kind(kind, dataset, config).train
    return Cut(train, train, ragged.pick, example, ("seq",))


def fed(cut: Cut, dataset: Dataset, config: DataConfig) -> Feed:
    """All examples at the longest length."""

    def query(rows, index):
        return batches_cut.queries(rows, index, max_len=config.max_len)

    example = partial(cut.example, length=config.max_len)
    return Feed(cut.train, len(cut.spans.start), example, feed.shown(dataset), query)


def _of_kind(kind: Kind, dataset: Dataset, config: DataConfig) -> Dataset:
    """The data with the training examples of a kind of sequences."""
    if kind == "sequences":
        return dataset
    train = dataset.train
    # Examples of one user start at the same item; the last has the longest history.
    _, user = np.unique(train.start, return_inverse=True)
    last = np.zeros(user.max() + 1, train.end.dtype)
    np.maximum.at(last, user, train.end)
    kept = np.flatnonzero((last[user] - train.end) % config.max_len == 0)
    kept_parts = {name: getattr(train, name)[kept] for name in ("start", "end", "stop")}
    return dataset._replace(train=train._replace(**kept_parts))
