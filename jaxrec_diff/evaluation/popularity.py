"""Recommenders that any model must beat: popularity, repetition, first-order transitions.

Each is a strict order of all items, so its lists need no [users, items] array: a short list of the
items it prefers for a row, then popularity. Ties go to the more popular and then to the lowest id.
"""

import chex
import numpy as np

from jaxrec_diff.evaluation.ranking import Top
from jaxrec_diff.ops.ragged import Ragged

_ROWS = 2048


def controls(
    train: Ragged,
    queries: Ragged,
    train_counts: np.ndarray,
    *,
    k: int,
    mask_seen: bool,
    allowed: np.ndarray | None = None,
    inputs: Ragged | None = None,
) -> dict[str, Top]:
    """The lists of every control for every row of a split, as numpy.

    Args:
      train: training examples.
      queries: rows to recommend for; only their histories are looked at, and they are what
        `mask_seen` masks.
      train_counts: i64[I] occurrences of item j + 1 in training.
      k: length of the lists.
      mask_seen: items of the history are no candidates.
      allowed: bool[I] candidates; all by default.
      inputs: the histories that rows are scored by, where a model sees less than what is masked;
        those of `queries` by default.

    Returns:
      "popularity": by training count;
      "repeat_last": items of the history, most recent first, then popularity (without `mask_seen`;
        with it there is nothing to repeat and it is left out);
      "transitions": by how often an item followed the last one in training, then popularity.
    """
    chex.assert_rank(train_counts, 1)
    if k < 1:
        raise ValueError(f"lists must have at least 1 item, got k={k}")
    order = np.argsort(-train_counts, kind="stable")
    if allowed is not None:
        chex.assert_equal_shape([allowed, train_counts])
        order = order[allowed[order]]
    popular = (order + 1).astype(np.int32)
    place = np.full(len(train_counts) + 1, len(train_counts), np.int64)  # of an item, by popularity
    place[popular] = np.arange(len(popular))
    followers = _followers(train, place)
    none = np.zeros((0, 0), np.int32)
    inputs = queries if inputs is None else inputs

    preferred = {"popularity": lambda rows: none}
    if not mask_seen:
        preferred["repeat_last"] = lambda rows: _recent(inputs, rows)
    preferred["transitions"] = lambda rows: _after_last(inputs, rows, followers)
    out = {}
    for name, prefer in preferred.items():
        parts = []
        for first in range(0, len(queries.start), _ROWS):
            rows = np.arange(first, min(first + _ROWS, len(queries.start)))
            wanted = prefer(rows)
            if wanted.size == 0:
                wanted = np.zeros((len(rows), 0), np.int32)
            seen = _histories(queries, rows) if mask_seen else np.zeros((len(rows), 0), np.int32)
            parts.append(_lists(wanted, popular, place, seen, k))
        items = np.concatenate(parts)
        scores = np.where(items > 0, -np.arange(k, dtype=np.float32), -np.inf).astype(np.float32)
        out[name] = Top(scores, items)
    return out


def _lists(
    wanted: np.ndarray, popular: np.ndarray, place: np.ndarray, seen: np.ndarray, k: int
) -> np.ndarray:
    """First `k` distinct candidates of each row of [wanted | popular items], i32[n, k]."""
    prefix = popular[: k + wanted.shape[1] + seen.shape[1]]
    rows = len(wanted)
    joined = np.concatenate([wanted, np.broadcast_to(prefix, (rows, len(prefix)))], axis=1)
    good = (joined > 0) & (place[joined] < len(popular))
    good &= ~_repeats(joined)
    if seen.shape[1]:
        good &= ~_member(joined, seen)
    # stable: candidates keep their order and move to the front
    front = np.argsort(~good, axis=1, kind="stable")[:, :k]
    items = np.where(
        np.take_along_axis(good, front, axis=1), np.take_along_axis(joined, front, axis=1), 0
    )
    return np.pad(items, ((0, 0), (0, k - items.shape[1]))).astype(np.int32)


def _repeats(values: np.ndarray) -> np.ndarray:
    """bool[n, m]: whether the same value stands further left in its row."""
    by_value = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, by_value, axis=1)
    again = np.zeros(values.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    out = np.empty_like(again)
    np.put_along_axis(out, by_value, again, axis=1)
    return out


def _member(values: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """bool[n, m]: whether each value is in the same row of `pool`."""
    span = int(max(values.max(initial=0), pool.max(initial=0))) + 1
    offset = np.arange(len(values))[:, None] * span
    return np.isin(values + offset, pool + offset)


def _histories(queries: Ragged, rows: np.ndarray) -> np.ndarray:
    """i32[n, S] whole histories, most recent first, padded with 0."""
    start, end = queries.start[rows], queries.end[rows]
    width = int((end - start).max(initial=0))
    at = end[:, None] - 1 - np.arange(width)
    inside = at >= start[:, None]
    return np.where(inside, queries.items[np.where(inside, at, 0)], 0).astype(np.int32)


def _recent(queries: Ragged, rows: np.ndarray) -> np.ndarray:
    """Distinct items of the history, most recent first; 0 elsewhere."""
    history = _histories(queries, rows)
    return np.where(_repeats(history), 0, history)


def _followers(train: Ragged, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items that followed each item in training, most frequent first, as flat array and offsets."""
    real = train.end > train.start
    last, following = train.items[train.end[real] - 1], train.items[train.end[real]]
    span = len(place)
    pairs, counts = np.unique(last.astype(np.int64) * span + following, return_counts=True)
    last, following = pairs // span, pairs % span
    order = np.lexsort((place[following], -counts, last))
    offsets = np.searchsorted(last[order], np.arange(span + 1))
    return following[order].astype(np.int32), offsets


def _after_last(
    queries: Ragged, rows: np.ndarray, followers: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """i32[n, F] followers of each row's last item, padded with 0."""
    items, offsets = followers
    start, end = queries.start[rows], queries.end[rows]
    last = np.where(end > start, queries.items[np.maximum(end - 1, 0)], 0)
    first, stop = offsets[last], offsets[last + 1]
    width = int((stop - first).max(initial=0))
    at = first[:, None] + np.arange(width)
    inside = at < stop[:, None]
    if not len(items):
        return np.zeros((len(rows), 0), np.int32)
    return np.where(inside, items[np.where(inside, at, 0)], 0)
