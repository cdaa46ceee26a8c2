"""Ranking metrics of each user from top lists, and what the lists say together.

Rank is pessimistic: an item's rank is the number of candidates that score at least as much, itself
included. A model whose scores are all equal therefore hits nothing. Lists hold one entry more than
the largest cut-off, which makes this exact: an item that ties with that extra entry has a rank
beyond every cut-off.

>>> import jax.numpy as jnp
>>> from jaxrec_diff.evaluation.ranking import Top
>>> found = Top(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[7, 5, 2]]))
>>> {name: round(float(v[0]), 4) for name, v in per_user(found, jnp.array([[5]]), (2,)).items()}
... # doctest: +NORMALIZE_WHITESPACE
{'hr@2': 1.0, 'recall@2': 1.0, 'ndcg@2': 0.6309, 'mrr@2': 0.5, 'map@2': 0.5, 'precision@2': 0.5}
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.evaluation.ranking import Top


def ranks(top: Top) -> jax.Array:
    """i32[B, K] pessimistic rank of each listed item; K where it ties with the last."""
    _check_lists(top)
    # Lists fall, so a rank is the place of the last entry of a run of equal scores.
    scores = jnp.asarray(top.scores)
    length = scores.shape[1]
    end = jnp.pad(scores[:, 1:] < scores[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    last = jnp.where(end, jnp.arange(1, length + 1, dtype=jnp.int32), jnp.int32(length))
    return jax.lax.cummin(last, axis=1, reverse=True)


def hits(top: Top, relevant: jax.Array) -> jax.Array:
    """bool[B, K]: whether each listed item is among the relevant ones, i32[B, R] (0 is none)."""
    _check_lists(top)
    _check_relevant(top, relevant)
    found = (top.items[:, :, None] == relevant[:, None, :]).any(axis=-1)
    return found & (top.items > 0)


def hr(hit: jax.Array, rank: jax.Array, size: jax.Array, k: int) -> jax.Array:
    """1 if any relevant item has a rank of at most k."""
    _check_hits(hit, rank, size, k)
    return (hit & (rank <= k)).any(axis=-1).astype(jnp.float32)


def recall(hit: jax.Array, rank: jax.Array, size: jax.Array, k: int) -> jax.Array:
    """Share of the relevant items that have a rank of at most k."""
    _check_hits(hit, rank, size, k)
    return _share(jnp.sum(hit & (rank <= k), axis=-1), jnp.maximum(size, 1))


def precision(hit: jax.Array, rank: jax.Array, size: jax.Array, k: int) -> jax.Array:
    """Relevant items with a rank of at most k, over k."""
    _check_hits(hit, rank, size, k)
    return _share(jnp.sum(hit & (rank <= k), axis=-1), k)


def ndcg(hit: jax.Array, rank: jax.Array, size: jax.Array, k: int) -> jax.Array:
    """sum 1 / log2(rank + 1), over the sum of an ideal list of min(k, size) hits."""
    _check_hits(hit, rank, size, k)
    gains = jnp.where(hit & (rank <= k), 1.0 / jnp.log2(_float(rank) + 1.0), 0.0)
    ideal = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0)))
    best = jnp.asarray(ideal, jnp.float32)[jnp.minimum(size, k)]
    return jnp.where(size > 0, jnp.sum(gains, axis=-1) / jnp.maximum(best, 1e-9), 0.0)


def mrr(hit: jax.Array, rank: jax.Array, size: jax.Array, k: int) -> jax.Array:
    """1 / rank of the first relevant item, 0 beyond k."""
    _check_hits(hit, rank, size, k)
    return jnp.max(jnp.where(hit & (rank <= k), _share(1, rank), 0.0), axis=-1)


def map(hit: jax.Array, rank: jax.Array, size: jax.Array, k: int) -> jax.Array:
    """Mean over min(k, size) of the precision at the rank of each relevant item found."""
    _check_hits(hit, rank, size, k)
    counted = hit & (rank <= k)
    among = jnp.take_along_axis(jnp.cumsum(hit, axis=-1), rank - 1, axis=-1)
    total = jnp.sum(jnp.where(counted, _share(among, rank), 0.0), axis=-1)
    return _share(total, jnp.maximum(jnp.minimum(size, k), 1))


_METRICS: dict[str, Callable[[jax.Array, jax.Array, jax.Array, int], jax.Array]] = {
    "hr": hr,
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
    "map": map,
    "precision": precision,
}
NAMES = tuple(_METRICS)


def per_user(top: Top, relevant: jax.Array, ks: tuple[int, ...]) -> dict[str, jax.Array]:
    """Every metric at every cut-off, f32[B] each, named `hr@10`.

    Args:
      top: lists of at least max(ks) + 1 entries.
      relevant: i32[B, R] ids to find, 0 where there are fewer; a row without any gets zeros.
      ks: cut-offs.
    """
    _check_lists(top)
    _check_relevant(top, relevant)
    if top.items.shape[1] <= max(ks):
        raise ValueError(
            f"cut-off {max(ks)} needs lists of {max(ks) + 1}, got {top.items.shape[1]}"
        )
    hit, rank = hits(top, relevant), ranks(top)
    size = jnp.sum(relevant > 0, axis=-1)
    return {f"{name}@{k}": _METRICS[name](hit, rank, size, k) for k in ks for name in NAMES}


def exposure(items: jax.Array, k: int, num_items: int, weight: jax.Array) -> jax.Array:
    """How often each item is among the first k of a list; rows of weight 0 do not count.

    Args:
      items: i32[B, K] lists, 0 where there are fewer.
      k: cut-off.
      num_items: I.
      weight: float[B].

    Returns:
      float[I]
    """
    chex.assert_rank(items, 2)
    chex.assert_shape(weight, items.shape[:1])
    chex.assert_type([items, weight], [int, float])
    first = items[:, :k]
    counted = jnp.where(first > 0, weight[:, None], 0.0)
    return jnp.zeros(num_items + 1, weight.dtype).at[first].add(counted)[1:]


def coverage(exposed: np.ndarray) -> float:
    """Share of items that are in any list."""
    chex.assert_rank(exposed, 1)
    return float(np.mean(exposed > 0))


def gini(exposed: np.ndarray) -> float:
    """Inequality of exposure: 0 if all items are shown equally often, near 1 if one has all."""
    chex.assert_rank(exposed, 1)
    ordered = np.sort(exposed.astype(np.float64))
    total = ordered.sum()
    if total == 0:
        return 0.0
    count = len(ordered)
    place = np.arange(1, count + 1)
    return float(np.sum((2 * place - count - 1) * ordered) / (count * total))


def average_popularity(exposed: np.ndarray, train_counts: np.ndarray) -> float:
    """Mean number of training occurrences of the items shown."""
    chex.assert_rank(exposed, 1)
    chex.assert_equal_shape([exposed, train_counts])
    shown = exposed.sum()
    return float((exposed * train_counts).sum() / shown) if shown else 0.0


def table_spread(table: np.ndarray, trained: np.ndarray) -> dict[str, float]:
    """How far the item rows f32[I, D] are apart, and how long they are, trained bool[I] or not.

    `item_spread` is the root mean square distance of a trained row from their mean: it goes to zero
    when a loss pulls all items onto one point.
    """
    chex.assert_rank(table, 2)
    chex.assert_shape(trained, table.shape[:1])
    chex.assert_type(trained, bool)
    lengths = np.linalg.norm(table.astype(np.float64), axis=-1)
    known = table[trained].astype(np.float64)
    spread = np.sqrt(np.mean(np.sum((known - known.mean(axis=0)) ** 2, axis=-1)))
    out = {"item_spread": float(spread), "item_norm_trained": float(lengths[trained].mean())}
    if not trained.all():
        out["item_norm_untrained"] = float(lengths[~trained].mean())
    return out


def _float(x: jax.Array | int) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


def _share(part: jax.Array | int, whole: jax.Array | int) -> jax.Array:
    """Of float32 whatever the default type of numbers is."""
    return _float(part) / _float(whole)


def _check_lists(top: Top) -> None:
    chex.assert_rank(top.scores, 2)
    chex.assert_equal_shape([top.scores, top.items])
    chex.assert_type([top.scores, top.items], [float, int])


def _check_relevant(top: Top, relevant: jax.Array) -> None:
    chex.assert_rank(relevant, 2)
    chex.assert_equal_shape_prefix([top.items, relevant], 1)
    chex.assert_type(relevant, int)


def _check_hits(hit: jax.Array, rank: jax.Array, size: jax.Array, k: int) -> None:
    if k < 1:
        raise ValueError(f"a cut-off must be at least 1, got {k}")
    chex.assert_rank(hit, 2)
    chex.assert_equal_shape([hit, rank])
    chex.assert_shape(size, hit.shape[:1])
    chex.assert_type([hit, rank, size], [bool, int, int])
