"""The lists of a split themselves, to be laid side by side."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.evaluation import rank, shares
from jaxrec_diff.evaluation.types import Split
from jaxrec_diff.models.contract import Model
from jaxrec_diff.models.protocols import Rules


def lists(
    model: Model,
    split: Split,
    mesh: Mesh,
    rules: Rules,
    train_counts: np.ndarray,
    *,
    k: int,
    batch_size: int,
) -> Callable[[Any, Any, jax.Array], np.ndarray]:
    """A function (params, state, key) -> i32[N, k], the best items of every row, 0 for none.

    Args:
      model: what a `build` made.
      split: from `evaluator.split_of`.
      mesh: devices; a batch is sharded over them.
      rules: what may be recommended.
      train_counts: i64[I], how often item j + 1 occurs in training.
      k: length of the lists.
      batch_size: rows ranked at once.
    """
    trained = jnp.asarray(train_counts > 0)
    dealt = shares.of_split(split, batch_size, mesh)

    def batch(cut, params, state, key, *given):
        query, answers = cut(*given)
        drawn, answer = rank.sample(model, params, state, key, query), answers[""]
        top = rank.top(
            drawn,
            k=k,
            seen=answer.seen if rules.mask_seen else None,
            allowed=trained if rules.trained_only else None,
        )
        return top.items

    everywhere = NamedSharding(mesh, P())
    programs = [
        jax.jit(
            partial(batch, shares.cutter(group.query, {"": split}, mesh)), out_shardings=everywhere
        )
        for group in split.groups
    ]

    def run(params, state, key):
        out = np.zeros((split.num_rows, k), np.int32)
        state = rank.precompute(model, params, state)
        for program, batches in zip(programs, dealt.batches, strict=True):
            for index, at in batches:
                with jax.set_mesh(mesh):
                    found = program(params, state, key, dealt.arrays, index, at)
                out[index[index >= 0]] = layout.whole(found)[index >= 0]
        return out

    return run


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over rows of how many items two lists share, of all that either has (Jaccard).

    >>> overlap(np.array([[1, 2], [3, 0]]), np.array([[2, 4], [3, 0]]))
    0.6666666666666666
    """
    shared = ((one[:, :, None] == other[:, None, :]) & (one[:, :, None] > 0)).sum(axis=(1, 2))
    either = (one > 0).sum(axis=1) + (other > 0).sum(axis=1) - shared
    return float(np.mean(np.where(either > 0, shared / np.maximum(either, 1), 1.0)))
