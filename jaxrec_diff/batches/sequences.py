"""A history and its next item."""

import numpy as np

from jaxrec_diff.batches import cut, lengths
from jaxrec_diff.batches.lengths import Cut
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


def _every_target(dataset: Dataset, config: DataConfig) -> Cut:
    del config
    return _cut(dataset.train)


def _every_window(dataset: Dataset, config: DataConfig) -> Cut:
    """Of each user only as many rows as make every training item a target once."""
    train = dataset.train
    # Examples of one user start at the same item; the last has the longest history.
    _, user = np.unique(train.start, return_inverse=True)
    last = np.zeros(user.max() + 1, train.end.dtype)
    np.maximum.at(last, user, train.end)
    kept = np.flatnonzero((last[user] - train.end) % config.max_len == 0)
    return _cut(ragged.pick(train, kept))


def _last_window(dataset: Dataset, config: DataConfig) -> Cut:
    """Of each user the row with the longest history."""
    del config
    train = dataset.train
    _, user = np.unique(train.start, return_inverse=True)
    last = np.zeros(user.max() + 1, train.end.dtype)
    np.maximum.at(last, user, train.end)
    return _cut(ragged.pick(train, np.flatnonzero(last[user] == train.end)))


def _cut(train: Ragged) -> Cut:
    def example(train, index, row_id, key, length):
        del key
        return cut.sequences(train, index, max_len=length, row_id=row_id)

    def part(train, rows, length):
        return ragged.cut(train, rows, length, 1)

    return Cut(train, train, ragged.pick, example, ("seq",), part)


SEQUENCES = lengths.of_histories("sequences", _every_target)
"""A history and its next item, for every training item that has a history."""

WINDOWS = lengths.of_histories("windows", _every_window)
"""The same for models that learn at every place of a history."""

LAST_WINDOW = lengths.of_histories("last_window", _last_window)
"""The same of the last window of each user alone: what lies before it is never a target."""
