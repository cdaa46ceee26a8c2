"""Other readings of a data set: what came before histories, longer histories, reversed time.

Each is again a `Dataset` over flat arrays, so that the driver, its loop and its evaluation take it
as it is.
"""

import numpy as np

from jaxrec_diff.data import splits
from jaxrec_diff.data.card import digest
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged

_HELD_OUT = 0.05  # share of users, each of validation and test

_AHEAD = "items can only be put ahead of"  # in words of `user_items_of`


def before(dataset: Dataset, config: DataConfig) -> Dataset:
    """What came before histories: the answer is the M items *ahead of* a history.

    A row is a training sequence v_1 .. v_n of at least M + `prefix_rest` items; its history is
    v_{M+1} .. v_n, its answer v_1 .. v_M. With `prefix_stride` s > 0 the same is cut from
    v_{1+ks} .. v_n, k = 1, 2, ..., of training users. One user in twenty is held out for
    validation and another for test, drawn by a fixed seed. Items kept from the model by the usual
    split (validation and test items) occur nowhere.

    Raises:
      ValueError: if the data has no users, too few are long enough, or none is short enough.
    """
    user_items = user_items_of(dataset, _AHEAD)
    length, least = config.prefix_len, config.prefix_len + config.prefix_rest
    sizes = user_items.end - user_items.start
    users = np.flatnonzero(sizes >= least)
    if len(users) < 3:
        raise ValueError(
            f"{dataset.name} has {len(users)} users with at least {least} training items; lower "
            "data.prefix-len"
        )
    shortest, most = sizes[sizes > 0].min(), config.prefix_max_items
    if 0 < most < shortest:
        raise ValueError(
            f"data.prefix-max-items={most} leaves nobody to put items ahead of: no user of "
            f"{dataset.name} has fewer than {shortest} training items; {shortest} is the least"
        )
    users = np.random.default_rng(0).permutation(users)
    held = max(1, int(_HELD_OUT * len(users)))
    parts = {"valid": users[:held], "test": users[held : 2 * held], "train": users[2 * held :]}
    rows = {}
    for split, chosen in parts.items():
        first = user_items.start[chosen].astype(np.int64)
        stop = user_items.end[chosen].astype(np.int64)
        if split == "train" and config.prefix_stride:
            windows = 1 + (stop - first - least) // config.prefix_stride
            shift, row = ragged.expand(0, windows)
            first, stop = first[row] + config.prefix_stride * shift, stop[row]
        rows[split] = _rotated(user_items.items, first, stop, length)
    return dataset._replace(
        train=rows["train"],
        valid=rows["valid"],
        test=rows["test"],
        valid_users=parts["valid"].astype(np.int32),
        test_users=parts["test"].astype(np.int32),
        split=f"the first {length} items of long training sequences from the rest",
        cut_in_time=False,
        synthetic_process=None,
    )


def known_before(rows: Ragged, length: int) -> tuple[Ragged, np.ndarray]:
    """Histories of rows of `before`, and the `length` items that came before each, i32[N, M]."""
    histories = Ragged(rows.items, rows.start, rows.end, rows.end)
    return histories, rows.items[rows.end[:, None] + np.arange(length)]


def longer(dataset: Dataset, prefix: np.ndarray) -> Dataset:
    """The data set with generated items ahead of every user's sequence.

    Training examples, queries and answers are those of `dataset`, row by row: generated items are
    context, never a target, never masked as seen and never counted. Only what a model is shown
    becomes longer. A prefix of no items gives the same arrays.

    Args:
      dataset: with users.
      prefix: i32[U, M] item ids, 0 where a user gets fewer.
    """
    user_items = user_items_of(dataset, _AHEAD)
    given = (prefix > 0).sum(axis=1).astype(np.int64)
    # Users' sequences lie one after the other; each moves by what came before it, itself included.
    by_place = np.argsort(user_items.start, kind="stable")
    shift = np.empty(len(given), np.int64)
    shift[by_place] = np.cumsum(given[by_place])
    starts = user_items.start[by_place]
    owner = by_place[np.searchsorted(starts, np.arange(len(user_items.items)), side="right") - 1]
    items = np.zeros(len(user_items.items) + given.sum(), user_items.items.dtype)
    items[np.arange(len(user_items.items)) + shift[owner]] = user_items.items
    user, place = np.nonzero(prefix > 0)
    rank, _ = ragged.expand(0, given)
    ahead = user_items.start[user] + shift[user] - given[user] + rank
    items[ahead] = prefix[user, place]
    generated = np.zeros(len(items), bool)
    generated[ahead] = True

    def moved(part: Ragged) -> Ragged:
        of = owner[part.start]
        return ragged.make(
            items, part.start + shift[of] - given[of], part.end + shift[of], part.stop + shift[of]
        )._replace(generated=generated if len(user) else None)

    # Beside the hash of the split, which two runs on it share whatever is put ahead.
    ahead_of = {"generated_hash": digest([prefix])} if len(user) else {}
    return dataset._replace(
        train=moved(dataset.train),
        user_items=moved(user_items),
        user_rows=None if dataset.user_rows is None else moved(dataset.user_rows),
        card=dataset.card | ahead_of,
        shown={"valid": moved(dataset.valid), "test": moved(dataset.test)},
    )


def backwards(dataset: Dataset, config: DataConfig) -> Dataset:
    """Training sequences in reversed time, split leave-one-out: the last item to find is v_1."""
    user_items = user_items_of(dataset, _AHEAD)
    sizes = (user_items.end - user_items.start).astype(np.int64)
    offsets = np.append(0, np.cumsum(sizes))
    place, user = ragged.expand(0, sizes)
    items = user_items.items[user_items.end[user] - 1 - place]
    enough = sizes >= 3
    start, stop = offsets[:-1], offsets[1:]
    cuts = splits.Cuts(start, stop - 2 * enough, stop - enough, stop)
    valid, valid_users = splits.queries(items, start, cuts.train_end, cuts.valid_end)
    test, test_users = splits.queries(items, start, cuts.valid_end, stop)
    if not len(test_users):
        raise ValueError(f"{dataset.name} has no user with three training items to reverse")
    return dataset._replace(
        train=splits.examples(items, cuts, config.min_history),
        valid=valid,
        test=test,
        valid_users=valid_users,
        test_users=test_users,
        user_items=ragged.make(items, start, cuts.train_end, cuts.train_end),
        user_rows=None,
        split="training sequences in reversed time, leave-one-out",
        cut_in_time=False,
        synthetic_process=None,
    )


def user_items_of(dataset: Dataset, need: str) -> Ragged:
    """Training items by user.

    Raises:
      ValueError: saying `need` .. "a table of users and items", if the data has no users.
    """
    if dataset.user_items is None:
        raise ValueError(
            f"{dataset.name} holds histories without users; {need} a table of users and items"
        )
    return dataset.user_items


def _rotated(items: np.ndarray, first: np.ndarray, stop: np.ndarray, length: int) -> Ragged:
    """Rows [v_{M+1} .. v_n | v_1 .. v_M], so that the answer follows the history."""
    sizes = stop - first
    offsets = np.append(0, np.cumsum(sizes))
    place, row = ragged.expand(0, sizes)
    source = first[row] + (place + length) % sizes[row]
    ends = offsets[1:]
    return ragged.make(items[source], offsets[:-1], ends - length, ends)
