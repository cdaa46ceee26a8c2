"""Item-to-item baselines: EASE and nearest neighbours, which many a deep model does not beat.

A row's score of item j is the sum of w[i, j] over the row's items i. EASE finds w in closed form,
neighbours by how often two items share a user. Rows are scored a chunk at a time: no [users, items]
array exists, and one [items, items] array at a time, only for EASE.

Sums are taken in float64 and rounded once, and items that cannot be told apart are all neighbours
or none is, so that figures do not depend on how items are numbered.
"""

from collections.abc import Callable, Iterator
from functools import partial
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
"""The largest catalogue whose [items, items] matrix EASE inverts."""
REGULARISATIONS = (30.0, 100.0, 300.0, 1000.0, 3000.0)
NEIGHBOURS = (20, 50, 100, 200, 500)
SHRINKS = (0.0, 30.0, 300.0)

_CHUNK = 2**22  # scores, or pairs of items, held at once
_WORKING_BYTES = 12 * 8 * _CHUNK  # of a chunk, several arrays at a time
_MIRRORED = 256  # rows of a matrix whose triangles are made alike at once

Score = Callable[[Rows], Any]
"""Rows of items, ids less one -> f[n, I]."""


class Candidate(NamedTuple):
    """A setting of a grid; `fit` works its weights out, which nothing else holds."""

    setting: dict[str, float]
    fit: Callable[[], Score]


def ease_bytes(num_items: int) -> int:
    """The most memory that EASE takes: one float64 matrix [I, I], and chunks of work."""
    return 8 * num_items**2 + _WORKING_BYTES


def check(name: str, num_items: int) -> None:
    """Refuses EASE for a catalogue whose matrix would not fit.

    Raises:
      ValueError: naming the sizes.
    """
    if name not in ("ease", "item_knn"):
        raise ValueError(f"a weighted baseline is ease or item_knn, got {name!r}")
    if name == "ease" and num_items > MOST_ITEMS:
        raise ValueError(
            f"eval.controls=ease inverts a matrix of {num_items} x {num_items} items in "
            f"{ease_bytes(num_items) / 1e9:.1f} GB and takes at most {MOST_ITEMS} items in "
            f"{ease_bytes(MOST_ITEMS) / 1e9:.1f} GB; take item_knn"
        )


def candidates(name: str, sets: Rows, num_items: int) -> Iterator[Candidate]:
    """A baseline under every setting of its grid.

    Args:
      name: "ease" or "item_knn".
      sets: training rows, see `graph.item_sets`.
      num_items: I.
    """
    if name == "ease":
        for regularisation in REGULARISATIONS:
            setting = {"regularisation": regularisation}
            yield Candidate(setting, partial(_ease_score, sets, num_items, regularisation))
        return
    for shrink in SHRINKS:
        ids, values = _most_alike(sets, num_items, max(NEIGHBOURS) + 1, shrink)
        for count in NEIGHBOURS:
            if count <= num_items or count == NEIGHBOURS[0]:
                kept = partial(_sparse_score, ids[:, :count], _untied(values, count))
                yield Candidate({"neighbours": count, "shrink": shrink}, kept)


def gram(sets: Rows, num_items: int) -> np.ndarray:
    """f64[I, I] X^T X: how many rows hold both items."""
    out, first = np.empty((num_items, num_items)), 0
    for block in _shared_users(sets, num_items):
        out[first : first + len(block)] = block
        first += len(block)
    return out


def ease(gram: np.ndarray, regularisation: float, *, overwrite: bool = False) -> np.ndarray:
    """f64[I, I] w with a diagonal of zeros that restores X as X w best.

        P = (X^T X + lambda 1)^-1,  w_ij = -P_ij / P_jj

    Steck 2019 (arXiv:1905.03375), Eq. 8.

    Args:
      gram: f64[I, I] X^T X, how many rows hold both items, see `gram`.
      regularisation: lambda, above 0.
      overwrite: the result takes the place of `gram`, and no other matrix is made.

    Raises:
      ValueError: if `regularisation` is not positive: X^T X may have no inverse.

    >>> ease(np.array([[3.0, 2.0], [2.0, 3.0]]), 1.0).round(6).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    chex.assert_shape(gram, (len(gram), len(gram)))
    chex.assert_type(gram, float)
    if not regularisation > 0:
        raise ValueError(f"regularisation must be above 0 (say 1.0), got {regularisation}")
    weights = gram if overwrite else np.array(gram, np.float64)
    weights[np.diag_indices_from(weights)] += regularisation
    _invert(weights)
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return weights


def _invert(matrix: np.ndarray) -> None:
    """A symmetric positive definite f64[I, I] becomes its inverse, by Cholesky, in place."""
    from scipy.linalg import lapack

    for part in (lapack.dpotrf, lapack.dpotri):
        # LAPACK's order of a symmetric matrix is its transpose; its lower triangle is our upper
        _, wrong = part(matrix.T, 1, **{f"overwrite_{'a' if part is lapack.dpotrf else 'c'}": 1})
        if wrong:
            raise ValueError(f"the matrix is not positive definite (LAPACK says {wrong})")
    for first in range(0, len(matrix), _MIRRORED):
        rows = slice(first, first + _MIRRORED)
        block = np.triu(matrix[rows, rows])
        matrix[rows, rows] = block + np.triu(block, 1).T
        matrix[rows.stop :, rows] = matrix[rows, rows.stop :].T


def neighbours(
    sets: Rows, num_items: int, count: int, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """The items most like every item, best first: ids less one i32[I, K], similarity f32[I, K].

        s_ij = |users of i and j| / (sqrt(|users of i| |users of j|) + shrink)

    A neighbour's rank is the number of items at least as much alike, as in `metrics.ranks`, and is
    at most `count`; the similarity of others is 0.

    Args:
      sets: training rows.
      num_items: I.
      count: K, cut to I.
      shrink: damps pairs that few users have.
    """
    if count < 1 or shrink < 0:
        raise ValueError(f"count must be at least 1 and shrink at least 0, got {count}, {shrink}")
    ids, values = _most_alike(sets, num_items, count + 1, shrink)
    return ids[:, :count], _untied(values, count)


def _most_alike(
    sets: Rows, num_items: int, count: int, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ids less one i32[I, K] and similarity f32[I, K], best first, ties to the lowest id."""
    size = np.sqrt(np.bincount(sets.members, minlength=num_items).astype(np.float32))
    ids, values, first = [], [], 0
    for block in _shared_users(sets, num_items):
        rows = np.arange(first, first + len(block))
        likeness = block / np.maximum(size[rows, None] * size[None, :] + shrink, 1e-12)
        likeness[np.arange(len(rows)), rows] = 0.0
        top, place = jax.lax.top_k(jnp.asarray(likeness), min(count, num_items))
        ids.append(np.asarray(place))
        values.append(np.asarray(top))
        first += len(block)
    return np.concatenate(ids), np.concatenate(values)


def _untied(values: np.ndarray, count: int) -> np.ndarray:
    """The first K of similarities that fall in every row, 0 where they tie with the next one."""
    if values.shape[1] <= count:
        return values
    return np.where(values[:, :count] > values[:, count, None], values[:, :count], 0.0)


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


def _sets(rows: Ragged, part: slice, num_items: int) -> Rows:
    start, end, stop = (column[part] for column in rows[1:4])
    return graph.item_sets(Ragged(rows.items, start, end, stop), num_items)


def _shared_users(sets: Rows, num_items: int) -> Iterator[np.ndarray]:
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


def _ease_score(sets: Rows, num_items: int, regularisation: float) -> Score:
    return _dense_score(ease(gram(sets, num_items), regularisation, overwrite=True))


def _dense_score(weights: np.ndarray) -> Score:
    from scipy import sparse

    def score(sets: Rows) -> np.ndarray:
        held = np.ones(len(sets.members), weights.dtype)
        shape = (len(sets.start) - 1, len(weights))
        return sparse.csr_array((held, sets.members, sets.start), shape=shape) @ weights

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
