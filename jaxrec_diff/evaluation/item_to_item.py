"""Item-to-item controls: EASE and nearest neighbours, which many a deep model does not beat.

A row's score of item j is the sum of w[i, j] over the row's items i. EASE finds w in closed form,
neighbours by how often two items share a user. Rows are scored a chunk at a time: no [users, items]
array exists, and a [items, items] one only for EASE.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.evaluation.ranking import Top
from jaxrec_diff.ops import graph, ragged
from jaxrec_diff.ops.graph import Rows
from jaxrec_diff.ops.ragged import Ragged

MOST_ITEMS = 20_000
"""The largest catalogue whose [items, items] matrix EASE inverts (1.6 GB)."""
REGULARISATIONS = (30.0, 100.0, 300.0, 1000.0, 3000.0)
NEIGHBOURS = (20, 50, 100, 200, 500)
SHRINKS = (0.0, 30.0, 300.0)

_CHUNK = 2**24  # scores, or pairs of items, held at once

Score = Callable[[Rows], Any]
"""Rows of items, ids less one -> f32[n, I]."""


class Candidate(NamedTuple):
    """Weights under one setting."""

    setting: dict[str, float]
    score: Score


def check(name: str, num_items: int) -> None:
    """Refuses EASE for a catalogue whose matrix would not fit.

    Raises:
      ValueError: naming the size.
    """
    if name not in ("ease", "item_knn"):
        raise ValueError(f"a weighted control is ease or item_knn, got {name!r}")
    if name == "ease" and num_items > MOST_ITEMS:
        raise ValueError(
            f"eval.controls=ease inverts a matrix of {num_items} x {num_items} items and takes at "
            f"most {MOST_ITEMS}; take item_knn"
        )


def candidates(name: str, sets: Rows, num_items: int) -> Iterator[Candidate]:
    """A control under every setting of its grid, one at a time.

    Args:
      name: "ease" or "item_knn".
      sets: training rows, see `graph.item_sets`.
      num_items: I.
    """
    if name == "ease":
        gram = np.concatenate(list(_together(sets, num_items)))
        for regularisation in REGULARISATIONS:
            weights = jnp.asarray(ease(gram, regularisation))
            yield Candidate({"regularisation": regularisation}, _dense_score(weights))
        return
    for shrink in SHRINKS:
        ids, values = neighbours(sets, num_items, max(NEIGHBOURS), shrink)
        for count in NEIGHBOURS:
            if count <= ids.shape[1] or count == NEIGHBOURS[0]:
                setting = {"neighbours": count, "shrink": shrink}
                yield Candidate(setting, _sparse_score(ids[:, :count], values[:, :count]))


def ease(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """f32[I, I] w with a diagonal of zeros that restores X as X w best.

        P = (X^T X + lambda 1)^-1,  w_ij = -P_ij / P_jj

    Steck 2019 (arXiv:1905.03375), Eq. 8.

    Args:
      gram: float[I, I] X^T X, how many rows hold both items.
      regularisation: lambda, above 0.

    Raises:
      ValueError: if `regularisation` is not positive: X^T X may have no inverse.

    >>> ease(np.array([[3.0, 2.0], [2.0, 3.0]], np.float32), 1.0).round(6).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    chex.assert_shape(gram, (len(gram), len(gram)))
    chex.assert_type(gram, float)
    if not regularisation > 0:
        raise ValueError(f"regularisation must be above 0 (say 1.0), got {regularisation}")
    system = gram.copy()
    system[np.diag_indices_from(system)] += gram.dtype.type(regularisation)
    weights = np.linalg.inv(system)
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights


def neighbours(
    sets: Rows, num_items: int, count: int, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """The items most like every item, best first: ids less one i32[I, K], similarity f32[I, K].

        s_ij = |users of i and j| / (sqrt(|users of i| |users of j|) + shrink)

    Ties go to the lowest id; where there are fewer than `count` the similarity is 0.

    Args:
      sets: training rows.
      num_items: I.
      count: K, cut to I.
      shrink: damps pairs that few users have.
    """
    if count < 1 or shrink < 0:
        raise ValueError(f"count must be at least 1 and shrink at least 0, got {count}, {shrink}")
    size = np.sqrt(np.bincount(sets.members, minlength=num_items).astype(np.float32))
    ids, values, first = [], [], 0
    for block in _together(sets, num_items):
        rows = np.arange(first, first + len(block))
        likeness = block / np.maximum(size[rows, None] * size[None, :] + shrink, 1e-12)
        likeness[np.arange(len(rows)), rows] = 0.0
        top, place = jax.lax.top_k(jnp.asarray(likeness), min(count, num_items))
        ids.append(np.asarray(place))
        values.append(np.asarray(top))
        first += len(block)
    return np.concatenate(ids), np.concatenate(values)


def lists(
    score: Score,
    inputs: Ragged,
    queries: Ragged,
    *,
    num_items: int,
    k: int,
    mask_seen: bool,
    allowed: np.ndarray | None = None,
) -> Top:
    """The best items of every row, as numpy; ties to the lowest id.

    Args:
      score: weights.
      inputs: row n scores by its items `items[start:end]`.
      queries: rows whose histories are no candidates under `mask_seen`.
      num_items: I.
      k: length of the lists.
      mask_seen: items of the history are no candidates.
      allowed: bool[I] candidates; all by default.
    """
    if k < 1:
        raise ValueError(f"lists must have at least 1 item, got k={k}")
    if allowed is not None:
        chex.assert_shape(allowed, (num_items,))
    step, parts = max(_CHUNK // num_items, 1), []
    for first in range(0, len(queries.start), step):
        rows = slice(first, first + step)
        scores = np.array(score(_sets(inputs, rows, num_items)), np.float32)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if mask_seen:
            seen = _sets(queries, rows, num_items)
            scores[np.repeat(np.arange(len(scores)), np.diff(seen.start)), seen.members] = -np.inf
        best = jax.lax.top_k(jnp.asarray(scores), min(k, num_items))
        values, place = (np.pad(part, ((0, 0), (0, max(k - num_items, 0)))) for part in best)
        values[:, num_items:] = -np.inf
        parts.append((values, np.where(values > -np.inf, place + 1, 0).astype(np.int32)))
    return Top(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _sets(slices: Ragged, rows: slice, num_items: int) -> Rows:
    start, end, stop = (part[rows] for part in slices[1:4])
    return graph.item_sets(Ragged(slices.items, start, end, stop), num_items)


def _together(sets: Rows, num_items: int) -> Iterator[np.ndarray]:
    """f32[n, I] blocks of X^T X, its rows in order."""
    by_item, _ = graph.transpose(sets, num_items)
    lengths = np.diff(sets.start).astype(np.int64)
    # pairs that items up to each one open up, and the scores their rows take
    cost = np.append(0, np.cumsum(lengths[by_item.members]))[by_item.start]
    cost = np.maximum(cost, num_items * np.arange(num_items + 1))
    for first, stop in _blocks(cost):
        users = by_item.members[by_item.start[first] : by_item.start[stop]]
        owner = np.repeat(np.arange(stop - first), np.diff(by_item.start[first : stop + 1]))
        place, entry = ragged.expand(sets.start[users], lengths[users])
        pair = owner[entry] * num_items + sets.members[place]
        counts = np.bincount(pair, minlength=(stop - first) * num_items)
        yield counts.reshape(stop - first, num_items).astype(np.float32)


def _dense_score(weights: jax.Array) -> Score:
    # A product of dense arrays: a sparse one of a full row of weights a member holds them all.
    def score(sets: Rows) -> jax.Array:
        held = np.zeros((len(sets.start) - 1, len(weights)), np.float32)
        held[np.repeat(np.arange(len(held)), np.diff(sets.start)), sets.members] = 1.0
        return jnp.asarray(held) @ weights

    return score


def _sparse_score(ids: np.ndarray, values: np.ndarray) -> Score:
    """Item j's score is the sum of its similarity to those of its neighbours that a row holds."""
    num_items, count = ids.shape
    real = values.reshape(-1) > 0
    of, source = np.repeat(np.arange(num_items), count)[real], ids.reshape(-1)[real]
    order = np.argsort(source, kind="stable")
    of, weight = of[order], values.reshape(-1)[real][order]
    start = np.searchsorted(source[order], np.arange(num_items + 1))
    lengths = np.diff(start)

    def score(sets: Rows) -> np.ndarray:
        scores = np.empty((len(sets.start) - 1, num_items), np.float32)
        pairs = np.append(0, np.cumsum(lengths[sets.members]))[sets.start]
        for first, stop in _blocks(pairs):
            entries = slice(sets.start[first], sets.start[stop])
            held = sets.members[entries]
            place, entry = ragged.expand(start[held], lengths[held])
            row = np.repeat(np.arange(stop - first), np.diff(sets.start[first : stop + 1]))[entry]
            found = np.bincount(
                row * num_items + of[place], weight[place], (stop - first) * num_items
            )
            scores[first:stop] = found.reshape(stop - first, num_items)
        return scores

    return score


def _blocks(cost: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cost at most `_CHUNK`, or of one row; `cost` adds up before each row."""
    first = 0
    while first < len(cost) - 1:
        stop = int(np.searchsorted(cost, cost[first] + _CHUNK, side="right")) - 1
        stop = min(max(stop, first + 1), len(cost) - 1)
        yield first, stop
        first = stop
