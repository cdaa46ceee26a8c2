"""Items ahead of sequences without a generator: drawn, the user's own, or a recommender's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import types
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import streams
from jaxrec_diff.ops.ragged import Ragged


def uniform(user_items: Ragged, num_items: int, length: int, seed: int) -> np.ndarray:
    """Items drawn uniformly from the catalogue, i32[U, M]."""
    rng = streams.uniform_items(seed)
    drawn = rng.integers(1, num_items + 1, (len(user_items.start), length))
    return np.where((user_items.end > user_items.start)[:, None], drawn, 0).astype(np.int32)


def resampled(user_items: Ragged, length: int, seed: int) -> np.ndarray:
    """Items drawn from the user's own training items, with replacement, i32[U, M]."""
    rng = streams.resampled_items(seed)
    sizes = (user_items.end - user_items.start)[:, None]
    place = np.floor(rng.random((len(sizes), length)) * sizes).astype(np.int64)
    drawn = user_items.items[np.where(sizes > 0, user_items.start[:, None] + place, 0)]
    return np.where(sizes > 0, drawn, 0).astype(np.int32)


def recommended(
    model: Model,
    params: Any,
    state: Any,
    user_items: Ragged,
    length: int,
    *,
    max_len: int,
    batch_size: int = 1024,
) -> np.ndarray:
    """ASReP: a recommender of reversed sequences goes on where they end, i32[U, M].

    Liu et al. 2021 (arXiv:2105.00522): v_n .. v_1 is continued with the best item, M times over.
    Items of the history are candidates, as they are for the diffusion.

    Args:
      model: trained on `data.views.backwards`.
      params: its parameters.
      state: its other arrays.
      user_items: row u is user u's training items, oldest first.
      length: M.
      max_len: L, items that the model sees: those nearest to the beginning.
      batch_size: users at once; changes no item.
    """
    resident = jax.tree.map(jnp.asarray, user_items)
    total, place = len(user_items.start), jnp.arange(max_len)

    @jax.jit
    def made(params, state, user_items, index):
        safe = jnp.maximum(index, 0)
        start, end = user_items.start[safe], user_items.end[safe]
        count = jnp.minimum(end - start, max_len)
        source = start[:, None] + count[:, None] - 1 - place
        inside = (place < count[:, None]) & (index >= 0)[:, None]
        seq = jnp.where(inside, user_items.items[jnp.where(inside, source, 0)], 0)

        def more(carry, key):
            seq, count = carry
            query = types.SequenceQuery(seq.astype(jnp.int32), index)
            item = rank.top(rank.sample(model, params, state, key, query), k=1).items[:, 0]
            full = (count == max_len)[:, None]
            seq = jnp.where(full, jnp.roll(seq, -1, axis=1), seq)
            at = jnp.minimum(count, max_len - 1)
            seq = jnp.where(place == at[:, None], item[:, None], seq)
            return (seq, jnp.minimum(count + 1, max_len)), item

        keys = jax.random.split(jax.random.key(0), length)
        _, items = jax.lax.scan(more, (seq, count), keys)
        return jnp.where((count > 0)[:, None], items[::-1].T, 0)

    out = []
    for index in rank.batches(np.arange(total), min(batch_size, total)):
        out.append(np.asarray(made(params, state, resident, index))[index >= 0])
    return np.concatenate(out)
