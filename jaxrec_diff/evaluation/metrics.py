"""Ranking metrics of each user from top lists, and what the lists say together.

Rank is pessimistic: an item's rank is the number of candidates that score at least as much, itself
included. A model whose scores are all equal therefore hits nothing. Lists hold one entry more than
the largest cut-off, which makes this exact: an item that ties with that extra entry has a rank
beyond every cut-off. Answers are a set: one that is named twice counts once.

`METRICS` is the one list of metrics; names, columns of reports and defaults are read from it. The
functions in it take arrays of jax or numpy alike.

>>> import jax.numpy as jnp
>>> from jaxrec_diff.evaluation.topk import Top
>>> found = Top(jnp.array([[3.0, 2.0, 1.0]]), jnp.array([[7, 5, 2]]))
>>> {name: round(float(v[0]), 4) for name, v in per_user(found, jnp.array([[5]]), (2,)).items()}
... # doctest: +NORMALIZE_WHITESPACE
{'hr@2': 1.0, 'recall@2': 1.0, 'ndcg@2': 0.6309, 'mrr@2': 0.5, 'map@2': 0.5, 'precision@2': 0.5}
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.evaluation.topk import Top


def ranks(top: Top) -> jax.Array:
    """i32[B, K] pessimistic rank of each listed item; K where it ties with the last."""
    _check_lists(top)
    # Lists fall, so a rank is the place of the last entry of a run of equal scores.
    scores = jnp.asarray(top.scores)
    length = scores.shape[1]
    end = jnp.pad(scores[:, 1:] < scores[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    last = jnp.where(end, jnp.arange(1, length + 1, dtype=jnp.int32), jnp.int32(length))
    return jax.lax.cummin(last, axis=1, reverse=True)


def hits(top: Top, relevant: Any) -> Any:
    """bool[B, K]: whether each listed item is among the relevant ones, i32[B, R] (0 is none)."""
    _check_lists(top)
    _check_relevant(top, relevant)
    found = (top.items[:, :, None] == relevant[:, None, :]).any(axis=-1)
    return found & (top.items > 0)


def sizes(relevant: Any) -> Any:
    """i32[B]: how many different items are relevant, i32[B, R] (0 is none).

    >>> sizes(np.array([[5, 5, 0], [2, 7, 2], [0, 0, 0]])).tolist()
    [1, 2, 0]
    """
    xp = relevant.__array_namespace__()
    if relevant.shape[1] < 2:
        return xp.sum(relevant > 0, axis=-1, dtype=np.int32)
    ordered = xp.sort(relevant, axis=-1)
    first = ordered[:, 1:] != ordered[:, :-1]
    return xp.sum((ordered[:, 1:] > 0) & first, axis=-1, dtype=np.int32) + (ordered[:, 0] > 0)


def hr(hit: Any, rank: Any, size: Any, k: int) -> Any:
    """1 if any relevant item has a rank of at most k."""
    _check_hits(k, hit, rank, size)
    return (hit & (rank <= k)).any(axis=-1).astype(np.float32)


def recall(hit: Any, rank: Any, size: Any, k: int) -> Any:
    """Share of the relevant items that have a rank of at most k."""
    _check_hits(k, hit, rank, size)
    xp = hit.__array_namespace__()
    return _share(xp.sum(hit & (rank <= k), axis=-1), xp.maximum(size, 1))


def precision(hit: Any, rank: Any, size: Any, k: int) -> Any:
    """Relevant items with a rank of at most k, over k."""
    _check_hits(k, hit, rank, size)
    return _float(hit.__array_namespace__().sum(hit & (rank <= k), axis=-1)) / k


def ndcg(hit: Any, rank: Any, size: Any, k: int) -> Any:
    """sum 1 / log2(rank + 1), over the sum of an ideal list of min(k, size) hits."""
    _check_hits(k, hit, rank, size)
    xp = hit.__array_namespace__()
    gains = xp.where(hit & (rank <= k), 1.0 / xp.log2(_float(rank) + 1.0), 0.0)
    ideal = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(1, k + 1) + 1.0)))
    best = xp.asarray(ideal, dtype=np.float32)[xp.minimum(size, k)]
    return xp.where(size > 0, xp.sum(gains, axis=-1) / xp.maximum(best, 1e-9), 0.0)


def mrr(hit: Any, rank: Any, size: Any, k: int) -> Any:
    """1 / rank of the first relevant item, 0 beyond k."""
    _check_hits(k, hit, rank, size)
    xp = hit.__array_namespace__()
    return xp.max(xp.where(hit & (rank <= k), 1.0 / _float(rank), 0.0), axis=-1)


def mean_ap(hit: Any, rank: Any, size: Any, k: int) -> Any:
    """Mean over min(k, size) of the precision at the rank of each relevant item found."""
    _check_hits(k, hit, rank, size)
    xp = hit.__array_namespace__()
    counted = hit & (rank <= k)
    among = xp.take_along_axis(xp.cumsum(hit, axis=-1), rank - 1, axis=-1)
    total = xp.sum(xp.where(counted, _share(among, rank), 0.0), axis=-1)
    return _share(total, xp.maximum(xp.minimum(size, k), 1))


class Metric(NamedTuple):
    """A figure of every row at a cut-off, and where it is shown."""

    value: Callable[[Any, Any, Any, int], Any]
    """hit bool[B, K], rank i32[B, K], size i32[B] (`hits`, `ranks`, `sizes`), k -> f32[B]."""
    compared: bool = False  # a column of tables and leaderboards
    grouped: bool = False  # also shown by the length of histories, among drawn items, by draw
    same_as: str = ""  # the metric it equals where all rows have one answer: no column of its own
    higher_is_better: bool = True


METRICS = {
    "hr": Metric(hr, compared=True, grouped=True),
    "recall": Metric(recall, compared=True, same_as="hr"),
    "ndcg": Metric(ndcg, compared=True, grouped=True),
    "mrr": Metric(mrr),
    "map": Metric(mean_ap),
    "precision": Metric(precision),
}
_COMPARED_KS = (10, 20)


def of(name: str) -> Metric | None:
    """The metric of a figure such as `hr@10`, None if it is of none."""
    return METRICS.get(name.partition("@")[0]) if "@" in name else None


def names(ks: Iterable[int]) -> tuple[str, ...]:
    """Every metric at every cut-off.

    >>> names((5,))
    ('hr@5', 'recall@5', 'ndcg@5', 'mrr@5', 'map@5', 'precision@5')
    """
    return tuple(f"{name}@{k}" for k in ks for name in METRICS)


def grouped(figures: Iterable[str]) -> tuple[str, ...]:
    """Those of some figures that are also shown by group of users."""
    return tuple(name for name in figures if (metric := of(name)) and metric.grouped)


def compared(figures: Iterable[str], equal: Callable[[str, str], bool]) -> tuple[str, ...]:
    """The columns of a table of some figures, in the order of `METRICS`: at 10 and 20, and at
    every cut-off where there are at most two or neither of these.

    Args:
      figures: names that there are values of.
      equal: whether two of them have the same values; a metric that is another one where rows have
        one answer is left out where it is that at every cut-off.

    >>> compared(names((5, 10)), lambda one, other: True)
    ('hr@5', 'hr@10', 'ndcg@5', 'ndcg@10')
    >>> compared(names((1, 5, 10, 20)), lambda one, other: True)
    ('hr@10', 'hr@20', 'ndcg@10', 'ndcg@20')
    """
    known, out = set(figures), list[str]()
    every = sorted({int(name.partition("@")[2]) for name in known if of(name)})
    ks = every if len(every) <= 2 else [k for k in every if k in _COMPARED_KS] or every
    for name, metric in METRICS.items():
        found = [f"{name}@{k}" for k in ks if f"{name}@{k}" in known]
        pairs = [(each, each.replace(name, metric.same_as)) for each in found if metric.same_as]
        repeats = pairs and all(b in known and equal(a, b) for a, b in pairs)
        if metric.compared and not repeats:
            out += found
    return tuple(out)


def sign(name: str) -> float:
    """1 for a figure that is better when higher, -1 for one that is better when lower."""
    metric = of(name)
    return 1.0 if metric is None or metric.higher_is_better else -1.0


def at_cut_offs(hit: Any, rank: Any, size: Any, ks: tuple[int, ...]) -> dict[str, Any]:
    """Every metric at every cut-off, f32[B] each, named `hr@10`."""
    return {f"{name}@{k}": METRICS[name].value(hit, rank, size, k) for k in ks for name in METRICS}


def per_user(top: Top, relevant: jax.Array, ks: tuple[int, ...]) -> dict[str, jax.Array]:
    """Every metric of every list at every cut-off, f32[B] each, named `hr@10`.

    Args:
      top: lists of at least max(ks) + 1 entries.
      relevant: i32[B, R] ids to find, 0 where there are fewer; a row without any gets zeros, and
        an id that is named twice counts once.
      ks: cut-offs.

    Raises:
      ValueError: if the lists are shorter than that.
    """
    _check_lists(top)
    _check_relevant(top, relevant)
    if top.items.shape[1] <= max(ks):
        raise ValueError(
            f"cut-off {max(ks)} needs lists of {max(ks) + 1}, got {top.items.shape[1]}"
        )
    return at_cut_offs(hits(top, relevant), ranks(top), sizes(relevant), ks)


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


def item_spread(table: np.ndarray, trained: np.ndarray) -> float:
    """Root mean square distance of the trained rows of f32[I, D] from their mean.

    It goes to zero when a loss pulls all items onto one point.

    Args:
      table: item rows; those beyond the catalogue are no items.
      trained: bool[I].
    """
    chex.assert_rank([table, trained], [2, 1])
    chex.assert_type(trained, bool)
    known = table[: len(trained)][trained].astype(np.float64)
    return float(np.sqrt(np.mean(np.sum((known - known.mean(axis=0)) ** 2, axis=-1))))


def table_spread(table: np.ndarray, trained: np.ndarray) -> dict[str, float]:
    """How far the item rows f32[I, D] are apart, and how long they are, trained bool[I] or not."""
    chex.assert_shape(trained, table.shape[:1])
    lengths = np.linalg.norm(table.astype(np.float64), axis=-1)
    out = {
        "item_spread": item_spread(table, trained),
        "item_norm_trained": float(lengths[trained].mean()),
    }
    if not trained.all():
        out["item_norm_untrained"] = float(lengths[~trained].mean())
    return out


def _float(x: Any) -> Any:
    """Of float32 whatever the default type of numbers is; numpy and jax alike."""
    return x.astype(np.float32)


def _share(part: Any, whole: Any) -> Any:
    return _float(part) / _float(whole)


def _check_lists(top: Top) -> None:
    chex.assert_rank(top.scores, 2)
    chex.assert_equal_shape([top.scores, top.items])
    chex.assert_type([top.scores, top.items], [float, int])


def _check_relevant(top: Top, relevant: jax.Array) -> None:
    chex.assert_rank(relevant, 2)
    chex.assert_equal_shape_prefix([top.items, relevant], 1)
    chex.assert_type(relevant, int)


def _check_hits(k: int, hit: jax.Array, rank: jax.Array, size: jax.Array) -> None:
    if k < 1:
        raise ValueError(f"a cut-off must be at least 1, got {k}")
    chex.assert_rank(hit, 2)
    chex.assert_equal_shape([hit, rank])
    chex.assert_shape(size, hit.shape[:1])
    chex.assert_type([hit, rank, size], [bool, int, int])
