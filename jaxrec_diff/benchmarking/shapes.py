"""Data of any size without a file: what a program costs depends on shapes, not on who clicked what.

>>> made = dataset(Shape(users=100, items=1_000_000, length=8))
>>> made.num_users, made.num_items, int((made.test.end - made.test.start).max())
(100, 1000000, 9)
"""

from typing import NamedTuple

import numpy as np

from jaxrec_diff.data import splits
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset, Sequences
from jaxrec_diff.ops import ragged


class Shape(NamedTuple):
    """Sizes of a data set."""

    users: int
    items: int
    length: int  # of the longest training sequence, and of what a model sees


def dataset(shape: Shape, config: DataConfig = DataConfig()) -> Dataset:  # noqa: B008, frozen
    """Users with evenly drawn lengths up to the longest, each with distinct items, drawn evenly.

    Validation and test have the last two items of every user. All have three training items at
    least, where the longest has as many, and the first user has the longest.

    Args:
      shape: sizes.
      config: `min_history` of a training example is read.

    Raises:
      ValueError: on sizes that leave nothing to train on, or fewer items than a user has.
    """
    users, items, length = shape
    most = length + 2
    for name, size, least in (("users", users, 2), ("items", items, most), ("len", length, 2)):
        if size < least:
            raise ValueError(f"--shape needs {name}:{least} at least, got {name}:{size}")
    rng = np.random.default_rng(0)
    sizes = rng.integers(min(5, most), most + 1, users)
    sizes[0] = most
    place, user = ragged.expand(0, sizes)
    # distinct: steps of a user's own stride, which together go around the catalogue once at most
    first, stride = rng.integers(0, items, users), rng.integers(1, items // most + 1, users)
    flat = ((first[user] + place * stride[user]) % items + 1).astype(np.int32)
    offsets = np.append(0, np.cumsum(sizes))
    sequences = Sequences(flat, user.astype(np.int32), np.arange(len(flat)), offsets)
    cuts = splits.leave_one_out(sequences, config)
    valid, valid_users = splits.queries(flat, cuts.start, cuts.train_end, cuts.valid_end)
    test, test_users = splits.queries(flat, cuts.start, cuts.valid_end, cuts.stop)
    train = ragged.make(flat, cuts.start, cuts.train_end, cuts.train_end)
    trained = place < np.repeat(sizes - 2, sizes)
    return Dataset(
        name="shape",
        num_users=users,
        num_items=items,
        train=splits.examples(flat, cuts, config.min_history),
        valid=valid,
        test=test,
        item_ids=np.arange(items),
        user_ids=np.arange(users),
        valid_users=valid_users,
        test_users=test_users,
        train_counts=np.bincount(flat[trained], minlength=items + 1)[1:],
        split="last item test, the one before validation",
        card={},
        synthetic_process=None,
        user_items=train,
    )
