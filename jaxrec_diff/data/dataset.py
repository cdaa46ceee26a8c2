"""What loading ends in."""

from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.ops.ragged import Ragged


class Dataset(NamedTuple):
    """Examples and queries over one flat array of items, on the host."""

    name: str
    num_users: int
    num_items: int
    train: Ragged  # a row an example
    valid: Ragged  # a row a user, or a given row
    test: Ragged
    item_ids: np.ndarray  # raw id of item j + 1
    user_ids: np.ndarray  # raw id of user j
    valid_users: np.ndarray  # i32, user of each row of valid
    test_users: np.ndarray
    train_counts: np.ndarray  # i64[I], occurrences of item j + 1 in training
    split: str  # how it was split, in words
    card: dict[str, Any]
    synthetic_process: Any  # synthetic.Process if the data was generated, else None
    user_items: Ragged | None = None  # row u is user u's training items; None without users
    user_rows: Ragged | None = None  # row u is all that user u did, in every split; as above
    whole_rows: bool = False  # a training row is all that is known of somebody
    cut_in_time: bool = False  # at one moment for all: whoever came later has no training row
    titles: np.ndarray | None = None  # text of item j + 1, "" where it has none
    item_vectors: Any = None  # item_features.ItemVectors, where vectors of items were given
    any_item: bool = False  # what training never met may be recommended: vectors tell of it
    shown: dict[str, Ragged] | None = None  # histories a model sees in place of valid's and test's

    def candidates(self) -> np.ndarray:
        """Which items a user is recommended, bool[I]: those that training met."""
        return np.full(self.num_items, self.any_item) | (self.train_counts > 0)

    def label(self, item: int) -> str:
        """What a person calls an item 1..I: its title, or its raw id."""
        title = "" if self.titles is None else self.titles[item - 1]
        return title or str(self.item_ids[item - 1])


class Sequences(NamedTuple):
    """Users' items in the order of time, one user after the other."""

    items: np.ndarray  # i32[nnz], 1..I
    users: np.ndarray  # i32[nnz]
    times: np.ndarray  # f64[nnz] or i64[nnz]
    offsets: np.ndarray  # i64[U + 1]
