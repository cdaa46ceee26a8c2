"""Items ahead of histories: made by a model, a batch of users at a time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import layout
from jaxrec_diff.batches import cut
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import streams
from jaxrec_diff.ops.ragged import Ragged


class Rounding(NamedTuple):
    """Which items a place may take, beside the nearest."""

    dedup: bool = False  # an item once in a user's M: the oldest place chooses first
    exclude_seen: bool = False  # none of the items that a user is conditioned on


NEAREST = Rounding()


def prefixes(
    model: Model,
    params: Any,
    state: Any,
    user_items: Ragged,
    *,
    seed: int,
    max_len: int,
    batch_size: int = 1024,
    first: int = 0,
    rounding: Rounding = NEAREST,
) -> Iterator[tuple[int, np.ndarray]]:
    """Chunks (first user, i32[b, M]) of generated items, user by user.

    A user's noise is keyed by the user's number, so items do not depend on the batch. Points are
    rounded to the item of the largest cosine, ties to the lowest id, a chunk of the catalogue at a
    time. Users without items get none, and a place gets 0 where `rounding` leaves nothing.

    Args:
      model: whose `sample` returns f32[B, M, D].
      params: trained parameters.
      state: its other arrays.
      user_items: row u is what user u is conditioned on: training items, nothing later.
      seed: of the run.
      max_len: L, items of a history that the model sees.
      batch_size: users at once; changes no number.
      first: user to begin with.
      rounding: which items are left out.
    """
    key = streams.generation(seed)
    resident = jax.tree.map(jnp.asarray, user_items)
    total = len(user_items.start)
    longest = int(np.max(user_items.end - user_items.start, initial=1))

    @jax.jit
    def made(params, state, user_items, index):
        query = cut.queries(user_items, index, max_len=max_len)
        drawn = rank.sample(model, params, state, key, query)
        # all of a user's items, those before the last L too
        owned = cut.queries(user_items, index, max_len=longest).seq
        seen = owned if rounding.exclude_seen else None
        items = rank.nearest(drawn, seen=seen, distinct=rounding.dedup)
        return jnp.where((query.seq > 0).any(axis=1)[:, None], items, 0)

    state = rank.precompute(model, params, state)
    step = partial(made, params, state, resident)

    def chunk(index):
        return int(index[0]), layout.whole(step(index))[index >= 0]

    # Two at a time: one leaves cores of a CPU idle between operations, and a device while the items
    # of the batch before are written.
    # Several processes must run the same programs in the same order, so each has one thread.
    with ThreadPoolExecutor(2 if jax.process_count() == 1 else 1) as pool:
        ahead = deque[Future[tuple[int, np.ndarray]]]()
        for index in rank.batches(np.arange(first, total), min(batch_size, total)):
            ahead.append(pool.submit(chunk, index))
            if len(ahead) == 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
