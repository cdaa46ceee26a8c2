"""Who ranks: a model samples points for queries, and the catalogue is ranked by them.

Evaluations, sampled metrics, recommendations, exported programs and generated items all come
through here:

    state = rank.precompute(model, params, state)
    drawn = rank.sample(model, params, state, key, query)
    top = rank.top(drawn, k=10, seen=query.seq)
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.evaluation import topk
from jaxrec_diff.models.contract import Head, Model


class Drawn(NamedTuple):
    """What scores every item for every query, while no array holds the scores."""

    points: jax.Array  # f32[B, D], or f32[B, P, D] for P points a query
    head: Head  # the catalogue
    score_pooling: Literal["best", "mixture"] = "best"  # what an item scores under P points


def precompute(model: Model, params: Any, state: Any) -> Any:
    """The state with what all queries share worked out; saves time and changes no list."""
    return jax.jit(model.precompute)(params, state)


def sample(model: Model, params: Any, state: Any, key: jax.Array, query: Any) -> Drawn:
    """One draw of a model's points for a batch of queries, and its catalogue."""
    points = model.sample(params, state, key, query)
    return Drawn(points, model.head(params, state), model.score_pooling)


def joined(draws: Sequence[Drawn]) -> Drawn:
    """Several draws of the same queries as one, whose points stand side by side."""
    points = [each.points[:, None] if each.points.ndim == 2 else each.points for each in draws]
    return draws[0]._replace(points=jnp.concatenate(points, axis=1))


def top(
    drawn: Drawn,
    *,
    k: int,
    seen: jax.Array | None = None,
    allowed: jax.Array | None = None,
    chunk: int | None = None,
) -> topk.Top:
    """The best `k` items of each query, best first; arguments as for `topk.top`.

    `allowed` is of items, entry j of item j + 1; those behind its end are no candidates.
    """
    return topk.top(
        drawn.points,
        drawn.head.table,
        drawn.head.bias,
        k=k,
        first=drawn.head.first,
        seen=seen,
        allowed=_by_row(drawn, allowed),
        chunk=chunk,
        score_pooling=drawn.score_pooling,
    )


def nearest(drawn: Drawn, *, seen: jax.Array | None = None, distinct: bool = False) -> jax.Array:
    """The best item of each of a query's points, i32[B, P]; arguments as for `topk.nearest`."""
    head, allowed = drawn.head, _by_row(drawn, None)
    return topk.nearest(
        drawn.points, head.table, first=head.first, seen=seen, allowed=allowed, distinct=distinct
    )


def num_items(head: Head) -> int:
    """Items of a head."""
    if head.items is not None:
        return head.items
    assert head.table is not None, "a head without a table says how many items it has"
    return head.table.shape[0] - head.first


def num_rows(drawn: Drawn) -> int:
    """Rows that are scored, those that are no items among them."""
    table = drawn.head.table
    return drawn.points.shape[-1] if table is None else table.shape[0]


def item_rows(head: Head) -> Any:
    """The rows of items alone, item 1 first, f32[I, D]; None where there is no table."""
    if head.table is None:
        return None
    return head.table[head.first : head.first + num_items(head)]


def _by_row(drawn: Drawn, allowed: Any) -> jax.Array | None:
    """bool[R] rows that are candidates, from bool[I] items; None where all rows are."""
    head, rows = drawn.head, num_rows(drawn)
    if allowed is None:
        if head.first == 0 and num_items(head) == rows:
            return None
        allowed = jnp.ones(num_items(head), bool)
    return jnp.pad(allowed, (head.first, rows - head.first - allowed.shape[0]))


def batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Rows in batches of `size`, i32[size] each, the last one filled up with -1.

    >>> [batch.tolist() for batch in batches(np.array([4, 5, 6]), 2)]
    [[4, 5], [6, -1]]
    """
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield np.pad(part, (0, size - len(part)), constant_values=-1).astype(np.int32)
