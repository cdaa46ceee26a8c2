"""What ranks histories, as one function for `jax.jit`: draws of a model's points, and their lists.

Noise is keyed by the number of a row and nothing else, so a history has the same list wherever it
stands in a batch and whoever stands beside it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff.evaluation import rank
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.experiments.restore import Restored
from jaxrec_diff.models import registry


class Asked(NamedTuple):
    """A batch of histories."""

    row_id: jax.Array  # i32[B], keys the noise
    user: jax.Array  # i32[B], number of the known user that asks, where the model knows users
    history: jax.Array  # i32[B, S] oldest first, right-padded with 0
    hidden: jax.Array | None  # i32[B, H] items that are no candidates, filled with 0


class Found(NamedTuple):
    """Lists of a batch."""

    top: Top  # [B, k], an item scores the best of its draws
    draws: jax.Array | None  # i32[S, B, k], the list of every draw; None of a single one


def lists(
    restored: Restored, *, keys: Sequence[jax.Array], k: int
) -> Callable[[Any, Any, Asked], Found]:
    """(params, state, asked) -> lists of the `k` best candidates.

    Args:
      restored: as a user is served by it (`restore.honest`).
      keys: of the draws, one at least.
      k: length of the lists, no longer than the catalogue.
    """
    phase, model, _, _ = restored
    kind = registry.input_of(phase.settings.model)
    allowed = candidates(restored)

    def found(params: Any, state: Any, asked: Asked) -> Found:
        query = kind.from_history(asked.history, asked.row_id, asked.user, phase.settings.data)
        top = partial(rank.top, k=k, seen=asked.hidden, allowed=allowed)
        if len(keys) == 1:
            return Found(top(rank.sample(model, params, state, keys[0], query)), None)
        head = model.head(params, state)

        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            points = model.sample(params, state, key, query)
            drawn = rank.Drawn(points, head, model.score_pooling)
            return points, top(drawn).items

        # a loop, so that the program does not grow with the number of draws
        points, items = jax.lax.map(one, jnp.stack(keys))
        draws = [rank.Drawn(each, head, model.score_pooling) for each in points]
        return Found(top(rank.joined(draws)), items)

    return found


def candidates(restored: Restored) -> jax.Array:
    """bool[I] items that may be recommended."""
    return jnp.asarray(restored.phase.dataset.candidates())


def spread(items: jax.Array) -> jax.Array:
    """i32[S, B, k] lists of draws, ended by 0 -> f32[B], one minus the mean share two of them have
    in common.

    >>> spread(jnp.array([[[1, 2], [5, 0]], [[2, 3], [5, 0]]])).tolist()
    [0.5, 0.0]
    """
    draws = items.shape[0]
    shared = jnp.zeros(items.shape[1], jnp.int32)
    for a in range(draws):
        for b in range(a):
            same = (items[a][:, :, None] == items[b][:, None, :]) & (items[a][:, :, None] > 0)
            shared = shared + same.sum(axis=(1, 2))
    places = jnp.maximum((items[0] > 0).sum(axis=1), 1) * (draws * (draws - 1) // 2)
    return (places - shared) / places
