"""Histories of raw ids or of known users as item numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxrec_diff.data import ids
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.inference.types import Histories, Recommender, Vocabulary
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged

_EXAMPLES = 5  # unknown ids that a report names


def known_users(dataset: Dataset) -> Ragged:
    """Row u is the whole history of user u: training, validation and test.

    Of a source of given histories, a user is a row of it.
    """
    if dataset.user_items is None:
        parts = [dataset.train, dataset.valid, dataset.test]
        start, stop = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("start", "stop")
        )
        return Ragged(dataset.train.items, start, stop, stop)
    if dataset.user_rows is not None:
        return ragged.chosen(dataset.user_rows)
    own = ragged.chosen(dataset.user_items)
    start, stop = own.start, own.end.copy()
    for part, users in (
        (dataset.valid, dataset.valid_users),
        (dataset.test, dataset.test_users),
    ):
        stop[users] = np.maximum(stop[users], part.stop)
    return Ragged(dataset.user_items.items, start, stop, stop)


def of_users(recommender: Recommender, users: np.ndarray, size: int = 8192) -> Iterator[Histories]:
    """The whole histories of users by number."""
    whole = known_users(recommender.dataset)
    for begin in range(0, len(users), size):
        part = users[begin : begin + size]
        yield of_rows(recommender, ragged.pick(whole, part), part)


def of_rows(recommender: Recommender, rows: Ragged, users: np.ndarray) -> Histories:
    """The histories of some rows, asked by known users: what each had done by then."""
    lengths = (rows.end - rows.start).astype(np.int64)
    offsets = np.append(0, np.cumsum(lengths))
    at, _ = ragged.expand(rows.start, lengths)
    return Histories(
        ids.to_arrow(recommender.dataset.user_ids[users]),
        rows.items[at].astype(np.int32),
        offsets,
        users.astype(np.int32),
        np.zeros(len(users), np.int32),
    )


def encode(
    recommender: Recommender, names: Any, raw: Any, offsets: np.ndarray
) -> tuple[Histories, list[str]]:
    """Histories of raw ids, and some of the ids that the catalogue lacks.

    Args:
      recommender: from `load`.
      names: arrow array [N].
      raw: arrow array of ids, one history after the other.
      offsets: i64[N + 1] where they begin.
    """
    items = recommender.vocabulary.encode(raw)
    good = items > 0
    kept = np.append(0, np.cumsum(good))[offsets]
    unknown = (np.diff(offsets) - np.diff(kept)).astype(np.int32)
    missing = [str(raw[int(at)]) for at in np.flatnonzero(~good)[:_EXAMPLES]]
    nobody = np.full(len(unknown), -1, np.int32)
    return Histories(names, items[good], kept, nobody, unknown), missing


def numbers(dataset: Dataset, users: Any | None) -> tuple[np.ndarray, list[str]]:
    """Numbers of users by raw id, all by default, and the ids that are nobody's."""
    import pyarrow as pa

    if users is None:
        whole = known_users(dataset)
        return np.flatnonzero(whole.end > whole.start), []
    raw = users if isinstance(users, pa.Array) else pa.array([str(user) for user in users])
    found = Vocabulary(ids.to_arrow(dataset.user_ids)).encode(raw)
    return found[found > 0] - 1, [str(raw[int(at)]) for at in np.flatnonzero(found == 0)]


def strangers(dataset: Dataset, users: list) -> list:
    """Those of some raw ids that are nobody's, as they were given."""
    import pyarrow as pa

    found = Vocabulary(ids.to_arrow(dataset.user_ids)).encode(
        pa.array([str(user) for user in users], pa.string())
    )
    return [user for user, number in zip(users, found, strict=True) if number == 0]
