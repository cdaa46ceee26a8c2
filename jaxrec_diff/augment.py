"""Items ahead of histories: made by a model in batches of users, and what they are worth."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import batches, ranking
from jaxrec_diff.batches import Slices
from jaxrec_diff.models.base import Model


class Rounding(NamedTuple):
    """Which items a place may take, beside the nearest."""

    dedup: bool = False  # an item once in a user's M: the oldest place chooses first
    exclude_seen: bool = False  # none of the items that a user is conditioned on


NEAREST = Rounding()


def prefixes(
    model: Model,
    params: Any,
    state: Any,
    profiles: Slices,
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
      profiles: row u is what user u is conditioned on: training items, nothing later.
      seed: of the run.
      max_len: L, items of a history that the model sees.
      batch_size: users at once; changes no number.
      first: user to begin with.
      rounding: which items are left out.
    """
    key = jax.random.fold_in(jax.random.key(seed), 4)
    resident = jax.tree.map(jnp.asarray, profiles)
    total = len(profiles.start)
    longest = int(np.max(profiles.end - profiles.start, initial=1))

    @jax.jit
    def made(params, state, profiles, index):
        query = batches.queries(profiles, index, max_len=max_len)
        points = model.sample(params, state, key, query)
        # all of a user's items, those before the last L too
        owned = batches.queries(profiles, index, max_len=longest).seq
        items = ranking.nearest(
            points,
            model.head(params, state).table,
            seen=owned if rounding.exclude_seen else None,
            distinct=rounding.dedup,
        )
        return jnp.where((query.seq > 0).any(axis=1)[:, None], items, 0)

    state = jax.jit(model.prepare)(params, state)
    step = partial(made, params, state, resident)
    size = min(batch_size, total)

    def chunk(start):
        index = np.arange(start, start + size, dtype=np.int32)
        index[index >= total] = -1
        return start, np.asarray(step(index))[: total - start]

    # Two at a time: one leaves cores of a CPU idle between operations, and a device while the items
    # of the batch before are written.
    with ThreadPoolExecutor(2) as pool:
        ahead = deque[Future[tuple[int, np.ndarray]]]()
        for start in range(first, total, size):
            ahead.append(pool.submit(chunk, start))
            if len(ahead) == 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def uniform(profiles: Slices, num_items: int, length: int, seed: int) -> np.ndarray:
    """Control: items drawn uniformly from the catalogue, i32[U, M]."""
    rng = np.random.default_rng([seed, 0])
    drawn = rng.integers(1, num_items + 1, (len(profiles.start), length))
    return np.where((profiles.end > profiles.start)[:, None], drawn, 0).astype(np.int32)


def resampled(profiles: Slices, length: int, seed: int) -> np.ndarray:
    """Control: items drawn from the user's own training items, with replacement, i32[U, M]."""
    rng = np.random.default_rng([seed, 1])
    sizes = (profiles.end - profiles.start)[:, None]
    place = np.floor(rng.random((len(sizes), length)) * sizes).astype(np.int64)
    drawn = profiles.items[np.where(sizes > 0, profiles.start[:, None] + place, 0)]
    return np.where(sizes > 0, drawn, 0).astype(np.int32)


def recommended(
    model: Model,
    params: Any,
    state: Any,
    profiles: Slices,
    length: int,
    *,
    max_len: int,
    batch_size: int = 1024,
) -> np.ndarray:
    """Control ASReP: a recommender of reversed sequences goes on where they end, i32[U, M].

    Liu et al. 2021 (arXiv:2105.00522): v_n .. v_1 is continued with the best item, M times over.
    Items of the history are candidates, as they are for the diffusion.

    Args:
      model: trained on `data.views.backwards`.
      params: its parameters.
      state: its other arrays.
      profiles: row u is user u's training items, oldest first.
      length: M.
      max_len: L, items that the model sees: those nearest to the beginning.
      batch_size: users at once; changes no item.
    """
    resident = jax.tree.map(jnp.asarray, profiles)
    total, place = len(profiles.start), jnp.arange(max_len)

    @jax.jit
    def made(params, state, profiles, index):
        safe = jnp.maximum(index, 0)
        start, end = profiles.start[safe], profiles.end[safe]
        count = jnp.minimum(end - start, max_len)
        source = start[:, None] + count[:, None] - 1 - place
        inside = (place < count[:, None]) & (index >= 0)[:, None]
        seq = jnp.where(inside, profiles.items[jnp.where(inside, source, 0)], 0)
        head = model.head(params, state)

        def more(carry, key):
            seq, count = carry
            query = batches.SequenceQuery(seq.astype(jnp.int32), index)
            points = model.sample(params, state, key, query)
            item = ranking.top(points, head.table, head.bias, k=1).items[:, 0]
            full = (count == max_len)[:, None]
            seq = jnp.where(full, jnp.roll(seq, -1, axis=1), seq)
            at = jnp.minimum(count, max_len - 1)
            seq = jnp.where(place == at[:, None], item[:, None], seq)
            return (seq, jnp.minimum(count + 1, max_len)), item

        keys = jax.random.split(jax.random.key(0), length)
        _, items = jax.lax.scan(more, (seq, count), keys)
        return jnp.where((count > 0)[:, None], items[::-1].T, 0)

    size, out = min(batch_size, total), []
    for first in range(0, total, size):
        index = np.arange(first, first + size, dtype=np.int32)
        index[index >= total] = -1
        out.append(np.asarray(made(params, state, resident, index))[: total - first])
    return np.concatenate(out)


def quality(
    prefix: np.ndarray, profiles: Slices, train_counts: np.ndarray, true: np.ndarray | None = None
) -> dict[str, float]:
    """What generated items look like.

    Args:
      prefix: i32[U, M].
      profiles: the users' own items.
      train_counts: i64[I].
      true: i32[U, R] items that really came first for these users, 0 where there are fewer.

    Returns:
      distinct_in_row: distinct items of a user over those given; coverage: share of the catalogue
      used; popularity_kl: divergence of the law of generated items from the training law, in
      nats, both with one count added to every item; in_history: share of items that the user has;
      recall: share of a user's true first items that were generated, mean over users, and
      recall_popular: the same of the M most popular items.
    """
    rows = prefix[(prefix > 0).any(axis=1)]
    length, count = prefix.shape[1], len(train_counts)
    ordered = np.sort(rows, axis=1)
    distinct = (ordered[:, 0] > 0) + (np.diff(ordered, axis=1) > 0).sum(axis=1)
    used = np.bincount(rows.reshape(-1), minlength=count + 1)[1:]
    p = (used + 1.0) / (used + 1.0).sum()
    q = (train_counts + 1.0) / (train_counts + 1.0).sum()
    sizes = (profiles.end - profiles.start).astype(np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    own = owner * (count + 1) + profiles.items[profiles.start[owner] + place]
    given = np.arange(len(prefix))[:, None] * (count + 1) + prefix
    real = prefix > 0
    out = {
        "distinct_in_row": float(np.mean(distinct / (rows > 0).sum(axis=1))),
        "coverage": float((used > 0).mean()),
        "popularity_kl": float(np.sum(p * np.log(p / q))),
        "in_history": float(np.isin(given, own)[real].mean()),
    }
    if true is not None:
        popular = np.argsort(-train_counts, kind="stable")[:length] + 1
        out["recall"] = _recall(true, prefix)
        out["recall_popular"] = _recall(true, np.broadcast_to(popular, prefix.shape))
    return out


def _recall(true: np.ndarray, found: np.ndarray) -> float:
    """Mean over rows of the share of distinct true items among those found."""
    ordered = np.sort(true, axis=1)
    fresh = np.append(np.ones((len(ordered), 1), bool), np.diff(ordered, axis=1) > 0, axis=1)
    wanted = fresh & (ordered > 0)
    hit = wanted & (ordered[:, :, None] == found[:, None, :]).any(axis=2)
    return float(np.mean(hit.sum(axis=1) / np.maximum(wanted.sum(axis=1), 1)))
