"""Exact top lists from points and the rows they are compared with, a chunk of items at a time.

>>> import jax.numpy as jnp
>>> found = top(jnp.array([[1.0, 0.0]]), jnp.array([[0.1, 9.0], [0.3, 0.0], [0.2, 1.0]]), k=2)
>>> found.items.tolist()
[[2, 3]]
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxrec_diff.ops import graph, meshes, ragged
from jaxrec_diff.ops.graph import Rows
from jaxrec_diff.ops.ragged import Ragged

# So many points are compared with so many items at once. A CPU lists the best of many narrow rows
# more slowly than those of few wide ones, and loses as much by scores beyond 32 MiB, whose memory
# it is given anew in each call. Where a row has more points than a block, chunks become narrower.
_BLOCK, _CHUNK = 2**7, 2**15
_BLOCK_BYTES = 64 * 2**20
_SCORES = 2**22  # of rows that a function scores, held at once


class Top(NamedTuple):
    """The best items of each row, best first; ties to the lowest id. Arrays of jax or numpy."""

    scores: Any  # f32[B, k], -inf where there are fewer than k candidates
    items: Any  # i32[B, k] item ids 1..I, 0 where there are fewer


def top(
    points: jax.Array,
    table: jax.Array | None,
    bias: jax.Array | None = None,
    *,
    k: int,
    first: int = 0,
    seen: jax.Array | None = None,
    allowed: jax.Array | None = None,
    chunk: int | None = None,
    score_pooling: Literal["best", "mixture"] = "best",
) -> Top:
    """The `k` items with the highest `point . table[r] + bias[r]`, r their row.

    No [B, I] array exists when I is larger than a chunk, and no copy of the table; the result does
    not depend on the chunk. A score that is not a number counts as -inf. Inside
    `jax.set_mesh` each device ranks its rows of the batch (axis `data`) against its rows of the
    table (axis `model`), and only lists are exchanged: those of a row are merged by one device.

    Args:
      points: f32[B, D], or f32[B, P, D] for P points a row.
      table: f32[R, D]; None where points are rows of scores, D = R.
      bias: f32[R].
      k: length of the lists.
      first: row of item 1; those before it are no candidates.
      seen: i32[B, S] item ids that are no candidates for that row; 0 is none. Of i32[B / r, S] each
        row stands for r rows in succession.
      allowed: bool[R] rows that are candidates; by default all from `first`.
      chunk: items scored at once on a device; by default what fits in a fixed number of bytes.
      score_pooling: what an item scores under P points: the best, or log sum_p exp(score_p).
    """
    _check(points, table, seen)
    chex.assert_rank(points, {2, 3})
    if k < 1:
        raise ValueError(f"lists must have at least 1 item, got k={k}")
    rows = points.shape[-1] if table is None else table.shape[0]
    for column in (bias, allowed):
        if column is not None:
            chex.assert_shape(column, (rows,))
    dtype = points.dtype if table is None else jnp.result_type(points, table)
    if first:
        real = jnp.arange(rows) >= first
        allowed = real if allowed is None else real & allowed
    penalty = jnp.zeros(rows, dtype) if bias is None else bias.astype(dtype)
    if allowed is not None:
        penalty = jnp.where(allowed, penalty, -jnp.inf)
    if first and seen is not None:
        seen = seen + first  # numbers of rows from 1 on; that of no item is a row before the first
    ranked = partial(_ranked, k=k, chunk=chunk, score_pooling=score_pooling)
    mesh = meshes.around()
    if mesh is None:
        found = ranked(points, table, penalty, seen)
    else:
        found = _over(mesh, ranked, k, points, table, penalty, seen)
    if not first:
        return found
    return Top(found.scores, jnp.where(found.items > 0, found.items - first, 0))


def _over(mesh, ranked, k: int, points, table, penalty, seen) -> Top:
    """`ranked` on every device: of its rows of the batch against its rows of the table.

    XLA does not partition `top_k`: left to it, each device gathers all scores and ranks them all.
    """
    parts, owners = mesh.shape[meshes.MODEL], (points if seen is None else seen).shape[0]
    axis = meshes.DATA if owners % mesh.shape[meshes.DATA] == 0 else None
    by_row = of_points = P(axis)
    if table is None:  # what a table's rows score is cut as they are
        of_points = P(axis, *(None,) * (points.ndim - 2), meshes.MODEL)
    filler = -penalty.shape[0] % parts
    if filler:
        penalty = jnp.pad(penalty, (0, filler), constant_values=-jnp.inf)
        if table is None:
            points = jnp.pad(points, ((0, 0),) * (points.ndim - 1) + ((0, filler),))
        else:
            table = jnp.pad(table, ((0, filler), (0, 0)))

    def local(points, shard, penalty, seen):
        if parts == 1:
            return ranked(points, shard, penalty, seen)
        before = jax.lax.axis_index(meshes.MODEL) * penalty.shape[0]
        # items of other shards get numbers that no row of this one has
        found = ranked(points, shard, penalty, None if seen is None else seen - before)
        items = jnp.where(found.items > 0, found.items + before, 0)
        # each device gets all lists of a share of the rows, side by side in the order of their ids,
        # so that ties go to the lowest
        count = items.shape[0]
        spare = ((0, -count % parts), (0, 0))
        scores, items = (
            jax.lax.all_to_all(jnp.pad(each, spare), meshes.MODEL, 0, 1, tiled=True)
            for each in (found.scores, items)
        )
        scores, place = jax.lax.top_k(scores, k)
        merged = Top(scores, jnp.take_along_axis(items, place, axis=1))
        return Top(*(jax.lax.all_gather(each, meshes.MODEL, tiled=True)[:count] for each in merged))

    split = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(of_points, P(meshes.MODEL), P(meshes.MODEL), by_row),
        out_specs=by_row,
        check_vma=False,
    )
    return split(points, table, penalty, seen)


def _ranked(points, table, penalty, seen, **options) -> Top:
    """`top` on one device, of rows numbered from 1; `penalty` float[R] is added to their scores.

    A block of rows of the batch at a time.
    """
    size, spread = points.shape[0], points.shape[1] if points.ndim == 3 else 1
    if not isinstance(size, int) or size * spread <= _BLOCK:  # no number in exported programs
        return _of_block(points, table, penalty, seen, **options)
    owners = size if seen is None else seen.shape[0]
    each = size // owners  # rows of an owner, who is in one block
    block = -(-owners // min(-(-size * spread // _BLOCK), owners))
    count = -(-owners // block)
    filler = block * count - owners

    def cut(array, rows):
        array = jnp.pad(array, [(0, filler * rows)] + [(0, 0)] * (array.ndim - 1))
        return array.reshape(count, block * rows, *array.shape[1:])

    parts = cut(points, each), None if seen is None else cut(seen, 1)
    found = jax.lax.map(lambda part: _of_block(part[0], table, penalty, part[1], **options), parts)
    return Top(*(array.reshape(-1, array.shape[-1])[:size] for array in found))


def _of_block(points, table, penalty, seen, *, k: int, chunk: int | None, score_pooling) -> Top:
    """`_ranked` of a few rows of the batch, a chunk of the table at a time."""
    size, items = points.shape[0], penalty.shape[0]
    cut_from, axis = (points, points.ndim - 1) if table is None else (table, 0)
    spread = points.shape[1] if points.ndim == 3 else 1
    chunk = chunk or max(k, 1024, min(_CHUNK, _BLOCK_BYTES // (4 * size * spread)))
    count = -(-items // chunk)
    chunk = -(-items // count)

    def cut(number):
        """A chunk of rows or of their scores, what is added to these, and its first row.

        The last one ends with the table, so that nothing has to be copied to fill it up, and
        reaches back over rows that have been listed.
        """
        offset = jnp.minimum(number * chunk, items - chunk)
        rows = jax.lax.dynamic_slice_in_dim(cut_from, offset, chunk, axis)
        extra = jax.lax.dynamic_slice_in_dim(penalty, offset, chunk)
        fresh = offset + jnp.arange(chunk, dtype=jnp.int32) >= number * chunk
        return rows, jnp.where(fresh, extra, -jnp.inf), offset

    def scores_of(rows, extra, offset):
        raw = rows
        if table is not None:
            # exact on every device: the default precision may round to bfloat16 or tf32
            raw = jnp.matmul(points, rows.T, precision=jax.lax.Precision.HIGHEST)
        if points.ndim == 3:
            raw = raw.max(axis=1) if score_pooling == "best" else jax.nn.logsumexp(raw, axis=1)
        scores = raw + extra
        scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
        if seen is None:
            return scores
        place = seen - 1 - offset
        # ids outside this chunk, padding among them, are dropped: a negative place would wrap
        place = jnp.where((place >= 0) & (place < chunk), place, chunk)
        # shapes, not len(): sizes of an exported program are symbols
        owner = jnp.arange(seen.shape[0])[:, None]
        if seen.shape[0] == size:
            return scores.at[owner, place].set(-jnp.inf, mode="drop")
        # one scattered write for all rows of an owner
        barred = (
            jnp.zeros((seen.shape[0], 1, chunk), bool).at[owner, 0, place].set(True, mode="drop")
        )
        of_owner = scores.reshape(seen.shape[0], -1, chunk)
        return jnp.where(barred, -jnp.inf, of_owner).reshape(scores.shape)

    def best_of(scores, offset):
        # A slice of a list must not be merged into it: XLA then sorts whole rows, ten times slower.
        # The barrier lies on what is made of the places: on those of `top_k` themselves, XLA's
        # compiler for CPUs ends the process inside `shard_map`.
        values, place = jax.lax.top_k(scores, min(k, chunk))
        items = place.astype(jnp.int32) + offset + 1
        return jax.lax.optimization_barrier((values, jnp.where(values > -jnp.inf, items, 0)))

    if count == 1:
        values, ids = best_of(scores_of(cut_from, penalty, 0), 0)
    else:

        def merge(best, number):
            rows, extra, offset = cut(number)
            values, ids = best_of(scores_of(rows, extra, offset), offset)
            # earlier chunks first, so that ties go to the lowest id
            both = [jnp.concatenate(pair, axis=1) for pair in zip(best, (values, ids), strict=True)]
            values, place = jax.lax.top_k(both[0], k)
            return (values, jnp.take_along_axis(both[1], place, axis=1)), None

        start = (jnp.full((size, k), -jnp.inf, penalty.dtype), jnp.zeros((size, k), jnp.int32))
        (values, ids), _ = jax.lax.scan(merge, start, jnp.arange(count, dtype=jnp.int32))
    short = k - values.shape[1]
    values = jnp.pad(values, ((0, 0), (0, short)), constant_values=-jnp.inf)
    ids = jnp.pad(ids, ((0, 0), (0, short)))
    return Top(values, ids)


def nearest(
    points: jax.Array,
    table: jax.Array | None,
    *,
    first: int = 0,
    seen: jax.Array | None = None,
    allowed: jax.Array | None = None,
    distinct: bool = False,
    chunk: int | None = None,
) -> jax.Array:
    """The best item of each place by inner product: f32[B, M, D] -> i32[B, M].

    Normalise both sides for the cosine. A place for which no candidate is left gets 0.

    Args:
      points: f32[B, M, D].
      table: f32[R, D]; None as for `top`.
      first: row of item 1; those before it are no candidates.
      seen: i32[B, S] item ids that no place of that row may take; 0 is none.
      allowed: bool[R] rows that are candidates; by default all from `first`.
      distinct: an item is taken once in a row: from the first place on, each takes the best of
        what those before it left.
      chunk: items scored at once, as for `top`.
    """
    _check(points, table, seen)
    chex.assert_rank(points, 3)
    size, places, _ = points.shape
    flat = points.reshape(size * places, -1)
    # what others take is at most M - 1 of a place's M best
    k = places if distinct else 1
    found = top(flat, table, k=k, first=first, seen=seen, allowed=allowed, chunk=chunk)
    best = found.items.reshape(size, places, k)
    if not distinct:
        return best[:, :, 0]

    def take(taken, place):
        wanted = best[:, place]
        free = ~(wanted[:, :, None] == taken[:, None, :]).any(axis=2) | (wanted == 0)
        first = jnp.argmax(free, axis=1)[:, None]
        item = jnp.take_along_axis(wanted, first, axis=1)[:, 0]
        return taken.at[:, place].set(item), item

    none = jnp.zeros((size, places), jnp.int32)
    return jax.lax.scan(take, none, jnp.arange(places))[1].T


def of_scores(
    score: Callable[[Rows], Any],
    inputs: Ragged,
    queries: Ragged,
    *,
    num_items: int,
    k: int,
    mask_seen: bool,
    allowed: np.ndarray | None = None,
) -> Top:
    """The best items of rows that a function scores, as numpy; a chunk of rows at a time.

    Args:
      score: rows of items, ids less one -> f[n, I], see `classics.scores`.
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
    step, parts = max(_SCORES // num_items, 1), []
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
    return Top(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _check(points: jax.Array, table: jax.Array | None, seen: jax.Array | None) -> None:
    chex.assert_type(points, float)
    if table is not None:
        chex.assert_rank(table, 2)
        chex.assert_equal_shape_suffix([points, table], 1)
        chex.assert_type(table, float)
    if seen is not None:
        chex.assert_rank(seen, 2)
        chex.assert_type(seen, int)
        if seen.shape[0] != points.shape[0]:
            chex.assert_is_divisible(points.shape[0], seen.shape[0])
