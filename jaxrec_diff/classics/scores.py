"""What a fitted classic is: rows of items in, a score of every item out; and its best lists."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.ops import graph, ragged
from jaxrec_diff.ops.graph import Rows
from jaxrec_diff.ops.ragged import Ragged

CHUNK = 2**22  # scores, or pairs of items, held at once

Score = Callable[[Rows], Any]
"""Rows of items, ids less one -> f[n, I]. Sums are taken in float64 and rounded once, so that
figures do not depend on how items are numbered."""


class Lists(NamedTuple):
    """The best items of every row, best first; ties to the lowest id. numpy."""

    scores: np.ndarray  # f32[N, k], -inf where there are fewer than k candidates
    items: np.ndarray  # i32[N, k] item ids 1..I, 0 where there are fewer


def matrix(sets: Rows, num_items: int) -> Any:
    """The rows as a scipy matrix of ones, float64[N, I]."""
    from scipy import sparse

    held = np.ones(len(sets.members))
    shape = (len(sets.start) - 1, num_items)
    return sparse.csr_array((held, sets.members, sets.start), shape=shape)


def of_weights(weights: Any) -> Score:
    """A row's score of item j is the sum of w[i, j] over its items i.

    Args:
      weights: f[I, I], a numpy array or a scipy matrix.
    """
    num_items = weights.shape[0]

    def score(sets: Rows) -> np.ndarray:
        scores = matrix(sets, num_items) @ weights
        return scores if isinstance(scores, np.ndarray) else scores.toarray()

    return score


def lists(
    score: Score,
    inputs: Ragged,
    queries: Ragged,
    *,
    num_items: int,
    k: int,
    mask_seen: bool,
    allowed: np.ndarray | None = None,
) -> Lists:
    """The best items of every row, a chunk of rows at a time.

    Args:
      score: a fitted classic.
      inputs: row n scores by its items `items[start:end]`.
      queries: rows whose histories are no candidates under `mask_seen`.
      num_items: I.
      k: length of the lists.
      mask_seen: items of the history are no candidates.
      allowed: bool[I] candidates; all by default.

    Raises:
      ValueError: if `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"lists must have at least 1 item, got k={k}")
    if allowed is not None:
        chex.assert_shape(allowed, (num_items,))
    step, parts = max(CHUNK // num_items, 1), []
    for first in range(0, len(queries.start), step):
        rows = slice(first, first + step)
        scores = np.array(score(graph.item_sets(ragged.pick(inputs, rows), num_items)), np.float32)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        if mask_seen:
            seen = graph.item_sets(ragged.pick(queries, rows), num_items)
            scores[np.repeat(np.arange(len(scores)), np.diff(seen.start)), seen.members] = -np.inf
        best = jax.lax.top_k(jnp.asarray(scores), min(k, num_items))
        values, place = (np.pad(part, ((0, 0), (0, max(k - num_items, 0)))) for part in best)
        values[:, num_items:] = -np.inf
        parts.append((values, np.where(values > -np.inf, place + 1, 0).astype(np.int32)))
    return Lists(*(np.concatenate(part) for part in zip(*parts, strict=True)))
