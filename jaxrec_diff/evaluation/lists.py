"""The lists of a split themselves, to be laid side by side, and what they are worth."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.evaluation import metrics, rank, shares, types
from jaxrec_diff.evaluation.types import Split
from jaxrec_diff.models.contract import Model
from jaxrec_diff.models.protocols import Rules


class Lists(NamedTuple):
    """The best items of every row, and the metrics of them all."""

    items: np.ndarray  # i32[N, k], 0 for none
    metrics: dict[str, float]


def lists(
    model: Model,
    split: Split,
    mesh: Mesh,
    rules: Rules,
    train_counts: np.ndarray,
    *,
    k: int,
    ks: tuple[int, ...],
    batch_size: int,
    num_users: int = 0,
) -> Callable[[Any, Any, jax.Array], Lists]:
    """A function (params, state, key) -> `Lists`, of one draw.

    Args:
      model: what a `build` made.
      split: from `evaluator.split_of`.
      mesh: devices; a batch is sharded over them.
      rules: what may be recommended.
      train_counts: i64[I], how often item j + 1 occurs in training.
      k: length of the lists.
      ks: cut-offs of the metrics.
      batch_size: rows ranked at once.
      num_users: users in all, for rules under which those without an answer count.
    """
    trained = jnp.asarray(train_counts > 0)
    dealt = shares.of_split(split, batch_size, mesh)

    def batch(cut, params, state, key, *given):
        query, answers = cut(*given)
        drawn, answer = rank.sample(model, params, state, key, query), answers[""]
        top = rank.top(
            drawn,
            k=max(*ks, k) + 1,
            seen=answer.seen if rules.mask_seen else None,
            allowed=trained if rules.trained_only else None,
        )
        return top.items[:, :k], metrics.per_user(top, answer.relevant, ks)

    everywhere = NamedSharding(mesh, P())
    programs = [
        jax.jit(
            partial(batch, shares.cutter(group.query, {"": split}, mesh)), out_shardings=everywhere
        )
        for group in split.groups
    ]

    def run(params, state, key):
        items = np.zeros((split.num_rows, k), np.int32)
        values: dict[str, np.ndarray] = {}
        state = rank.precompute(model, params, state)
        for program, batches in zip(programs, dealt.batches, strict=True):
            for index, at in batches:
                with jax.set_mesh(mesh):
                    found = program(params, state, key, dealt.arrays, index, at)
                real = index >= 0
                shown, per_user = layout.whole(found)
                items[index[real]] = shown[real]
                for name, each in per_user.items():
                    values.setdefault(name, np.zeros(split.num_rows, np.float32))
                    values[name][index[real]] = each[real]
        missing = types.missing_users(rules, num_users, split.num_rows)
        return Lists(items, types.means(values, missing))

    return run


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over rows of how many items two lists share, of all that either has (Jaccard).

    >>> overlap(np.array([[1, 2], [3, 0]]), np.array([[2, 4], [3, 0]]))
    0.6666666666666666
    """
    shared = ((one[:, :, None] == other[:, None, :]) & (one[:, :, None] > 0)).sum(axis=(1, 2))
    either = (one > 0).sum(axis=1) + (other > 0).sum(axis=1) - shared
    return float(np.mean(np.where(either > 0, shared / np.maximum(either, 1), 1.0)))
