"""Whole users for training, validation and test: a row a user, nobody in two splits.

A row is a user's last `max_len` + 1 items; the last of them is the answer, those before it are the
history. Users of one item give no row. Which user is where is drawn by `data.split_seed` in the
shares of `data.ratio` (rounded down for training and validation), or given by a folder.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Sequences
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


class HeldOut(NamedTuple):
    """Rows of whole users."""

    rows: dict[str, Ragged]  # by split
    users: np.ndarray  # i64, the user of each row: training's, then validation's, then test's
    words: str
    facts: dict[str, Any]


def drawn(sequences: Sequences, config: DataConfig) -> HeldOut:
    """Shares out users by a seed."""
    count = len(sequences.offsets) - 1
    order = np.random.default_rng(config.split_seed).permutation(count)
    first = int(np.floor(config.ratio[0] * count + 1e-9))
    second = first + int(np.floor(config.ratio[1] * count + 1e-9))
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    split = (place >= first).astype(np.int64) + (place >= second)
    shares = "/".join(f"{share:g}" for share in config.ratio)
    words = f"{shares} of users by seed {config.split_seed}, a row a user, last item to find"
    return of_parts(sequences, split, words, config)


def of_parts(sequences: Sequences, split: np.ndarray, words: str, config: DataConfig) -> HeldOut:
    """Rows of users whose split is known, 0 for training, 1 for validation and 2 for test."""
    stop = sequences.offsets[1:]
    start = np.maximum(sequences.offsets[:-1], stop - config.max_len - 1)
    whole = stop - start >= 1 + max(config.min_history, 1)
    rows, users, short = {}, [], {}
    for number, name in enumerate(("train", "valid", "test")):
        chosen = np.flatnonzero((split == number) & whole)
        short[name] = int(((split == number) & ~whole).sum())
        rows[name] = ragged.make(sequences.items, start[chosen], stop[chosen] - 1, stop[chosen])
        users.append(chosen)
    facts = {"without_history": short, "tied_times": None, "trained_later": None}
    return HeldOut(rows, np.concatenate(users), words, facts)
