"""Known users that stand in for new histories, where a model knows users by number."""

import numpy as np

from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.inference.types import Histories, Owners
from jaxrec_diff.ops import ragged

_DENSE_ROWS = 64  # histories compared with all users at once


def stand_ins(dataset: Dataset, owners: Owners, histories: Histories) -> np.ndarray:
    """i32[N] the known user of every history, or the one whose training items are most alike.

    Cosine of the sets: |h and p_u| / sqrt(|h| |p_u|), ties to the lowest number.
    """
    user = histories.user.copy()
    lengths = np.diff(histories.offsets)
    new = np.flatnonzero((user < 0) & (lengths > 0))
    row = np.repeat(np.arange(len(lengths)), lengths)
    for begin in range(0, len(new), _DENSE_ROWS):
        rows = new[begin : begin + _DENSE_ROWS]
        mine = np.isin(row, rows)
        pairs = np.unique(row[mine] * (dataset.num_items + 1) + histories.items[mine])
        asker, item = np.divmod(pairs, dataset.num_items + 1)
        first, count = owners.bounds[item], owners.bounds[item + 1] - owners.bounds[item]
        at, pair = ragged.expand(first, count)
        cell = np.searchsorted(rows, asker)[pair] * dataset.num_users + owners.user[at]
        shared = np.bincount(cell, minlength=len(rows) * dataset.num_users)
        alike = shared.reshape(len(rows), -1) / owners.norm
        user[rows] = np.argmax(alike, axis=1)
    return user


def owners(dataset: Dataset) -> Owners:
    user_items = dataset.user_items
    assert user_items is not None  # an input that knows users has them
    users = len(user_items.start)
    at, owner = ragged.expand(user_items.start, user_items.end - user_items.start)
    pairs = np.unique(user_items.items[at].astype(np.int64) * users + owner)
    item, user = np.divmod(pairs, users)
    norm = np.sqrt(np.maximum(np.bincount(user, minlength=users), 1))
    bounds = np.searchsorted(item, np.arange(dataset.num_items + 2))
    return Owners(user.astype(np.int32), bounds, norm)
