"""Recommenders that any model must beat: popularity, repetition, first-order transitions.

Each scores few items of a row beside their popularity, so its lists need no [users, items] array: a
short list of the items it prefers, then the popular ones. Items that a baseline cannot tell apart
score the same, and `metrics.ranks` counts them against each other as it does for a model; in the
list itself the lowest id stands first.
"""

from typing import NamedTuple

import chex
import numpy as np

from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.ops import id_rows
from jaxrec_diff.ops.ragged import Ragged

_ROWS = 2048


class _Preferred(NamedTuple):
    """What a baseline puts ahead of popularity, best first; 0 where a row has fewer."""

    items: np.ndarray  # i32[n, F], none twice in a row
    strength: np.ndarray  # i64[n, F], at least 1; equal ones go by popularity


def lists(
    train: Ragged,
    queries: Ragged,
    train_counts: np.ndarray,
    *,
    k: int,
    mask_seen: bool,
    allowed: np.ndarray | None = None,
    inputs: Ragged | None = None,
) -> dict[str, Top]:
    """The lists of every baseline for every row of a split, as numpy.

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
      Scores say the order only: minus the number of different scores above.
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
    inputs = queries if inputs is None else inputs

    preferred = {"popularity": _nothing}
    if not mask_seen:
        preferred["repeat_last"] = lambda rows: _recent(inputs, rows)
    preferred["transitions"] = lambda rows: _after_last(inputs, rows, followers)
    out = {}
    for name, prefer in preferred.items():
        parts = []
        for first in range(0, len(queries.start), _ROWS):
            rows = np.arange(first, min(first + _ROWS, len(queries.start)))
            seen = _histories(queries, rows) if mask_seen else _nothing(rows).items
            parts.append(_top(prefer(rows), popular, place, train_counts, seen, k))
        out[name] = Top(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return out


def _nothing(rows: np.ndarray) -> _Preferred:
    return _Preferred(np.zeros((len(rows), 0), np.int32), np.zeros((len(rows), 0), np.int64))


def _top(
    wanted: _Preferred,
    popular: np.ndarray,
    place: np.ndarray,
    train_counts: np.ndarray,
    seen: np.ndarray,
    k: int,
) -> Top:
    """First `k` distinct candidates of each row of [wanted | popular items]."""
    prefix = popular[: k + wanted.items.shape[1] + seen.shape[1]]
    free = np.ones((len(wanted.items), len(prefix)), bool)
    for taken in (wanted.items, seen):
        row, column = np.nonzero(place[taken] < len(prefix))
        free[row, place[taken[row, column]]] = False
    good = (
        (wanted.items > 0)
        & (place[wanted.items] < len(popular))
        & ~id_rows.member(wanted.items, seen)
    )
    good = np.concatenate([good, free], axis=1)
    joined = np.concatenate([wanted.items, np.broadcast_to(prefix, free.shape)], axis=1)
    strength = np.concatenate([wanted.strength, np.zeros(free.shape, np.int64)], axis=1)
    # candidates keep their order and move to the front
    rank = np.cumsum(good, axis=1)
    row, column = np.nonzero(good & (rank <= k))
    front = row, rank[row, column] - 1
    items, force = np.zeros((len(joined), k), np.int32), np.zeros((len(joined), k), np.int64)
    items[front], force[front] = joined[row, column], strength[row, column]
    count = train_counts[items - 1]
    falls = (force[:, 1:] != force[:, :-1]) | (count[:, 1:] != count[:, :-1])
    above = np.pad(np.cumsum(falls, axis=1), ((0, 0), (1, 0)))
    return Top(np.where(items > 0, -above, -np.inf).astype(np.float32), items)


def _histories(queries: Ragged, rows: np.ndarray) -> np.ndarray:
    """i32[n, S] whole histories, most recent first, padded with 0."""
    start, end = queries.start[rows], queries.end[rows]
    width = int((end - start).max(initial=0))
    at = end[:, None] - 1 - np.arange(width)
    inside = at >= start[:, None]
    return np.where(inside, queries.items[np.where(inside, at, 0)], 0).astype(np.int32)


def _recent(queries: Ragged, rows: np.ndarray) -> _Preferred:
    """Distinct items of the history, most recent first; no two are alike."""
    history = _histories(queries, rows)
    width = history.shape[1]
    recency = np.broadcast_to(np.arange(width, 0, -1, dtype=np.int64), history.shape)
    return _Preferred(np.where(id_rows.repeats(history), 0, history), recency)


class _Followers(NamedTuple):
    """Items that followed each item in training, most frequent first."""

    items: np.ndarray  # i32[n], those of item j at offsets[j]:offsets[j + 1]
    counts: np.ndarray  # i64[n]
    offsets: np.ndarray  # i64[I + 2]


def _followers(train: Ragged, place: np.ndarray) -> _Followers:
    real = train.end > train.start
    last, following = train.items[train.end[real] - 1], train.items[train.end[real]]
    span = len(place)
    pairs, counts = np.unique(last.astype(np.int64) * span + following, return_counts=True)
    last, following = pairs // span, pairs % span
    order = np.lexsort((place[following], -counts, last))
    offsets = np.searchsorted(last[order], np.arange(span + 1))
    return _Followers(following[order].astype(np.int32), counts[order], offsets)


def _after_last(queries: Ragged, rows: np.ndarray, followers: _Followers) -> _Preferred:
    """Followers of each row's last item, by how often they did."""
    items, counts, offsets = followers
    start, end = queries.start[rows], queries.end[rows]
    last = np.where(end > start, queries.items[np.maximum(end - 1, 0)], 0)
    first, stop = offsets[last], offsets[last + 1]
    width = int((stop - first).max(initial=0))
    at = first[:, None] + np.arange(width)
    inside = at < stop[:, None]
    if not len(items):
        return _nothing(rows)
    at = np.where(inside, at, 0)
    return _Preferred(np.where(inside, items[at], 0), counts[at])
