"""The examples of an epoch as the devices hold them: all of them, or some updates' at a time.

Either way an update is the same program on the same example, so that losses and parameters are
equal to the last bit; what differs is the size of the arrays that examples are cut from.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches.batcher import Stream
from jaxrec_diff.training import parallel

_RESIDENT_BYTES = 2**30  # of training data that stay on the devices unless settings say otherwise
_CHUNK_BYTES = 16 * 2**20  # of host arrays that are cut at once


class Chunk(NamedTuple):
    """What updates `first` to `stop` of an epoch read, placed on the devices."""

    data: Any
    order: Any  # i32[C, slots]; row n is of update `first + n`
    first: int
    stop: int


Chunks = Callable[[jax.Array, int, int], Iterator[Chunk]]
"""(order i32[steps, slots] of an epoch, updates before it, update to start from) -> its chunks."""


def fits(data: Any, most: int = _RESIDENT_BYTES) -> bool:
    """Whether so many bytes hold the arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(data)) <= most


def stays(data: Any, asked: Literal["auto", "true", "false"]) -> bool:
    """Whether training data stay on the devices, as `data.resident` asks.

    There they lie whole on every device. Spread over devices, examples drawn from anywhere would
    take collectives for each of a batch's lookups, in every update; so several processes cut their
    batches on the host, each the rows of its own devices, unless they are asked not to.
    """
    return asked == "true" or (asked == "auto" and jax.process_count() == 1 and fits(data))


def resident(data: Any, place: Callable[[Any], Any]) -> Chunks:
    """One chunk an epoch, all of whose data stay on the devices."""
    placed = place(data)

    def chunks(order, before, first):
        del before, first
        yield Chunk(placed, place(order), 0, len(order))

    return chunks


def streamed(
    data: Any,
    stream: Stream,
    key: jax.Array,
    place: Callable[[Any], Any],
    *,
    parts: int = 1,
    place_parts: Callable[[Callable[[int], Any]], Any] | None = None,
    steps: int | None = None,
) -> Chunks:
    """Chunks of a constant shape, each cut on the host while the one before is trained on.

    Every device gets the rows of its own part of the batches, and a process cuts and holds those
    of its devices.

    Args:
      data: on the host, memory-mapped or not.
      stream: how it is cut.
      key: root key of the noise, of which every update has its own key to draw by.
      place: host arrays -> the devices.
      parts: how many parts batches are cut in, first rows first.
      place_parts: (number -> arrays of a part) -> the devices; by default `place` of the only one.
      steps: updates a chunk, by default what fits in a fixed number of bytes.
    """

    def chunks(order, before, first):
        order = np.asarray(order)
        count = steps or _steps(data, stream, key, order)

        def cut(start):
            rows = order[start : start + count]
            index = np.full((count, order.shape[1]), -1, np.int32)
            index[: len(rows)] = rows
            updates = before + start + jnp.arange(count)
            keys = jax.vmap(lambda update: parallel.cut_key(key, update))(updates)
            row_id = np.arange(order.shape[1], dtype=np.int32)
            size = len(row_id) // parts

            def part(number):
                own = slice(number * size, (number + 1) * size)
                return stream.cut(data, index[:, own], row_id[own], keys)

            places = np.arange(count, dtype=np.int32)[:, None] * size + row_id % size
            renumbered = place(np.where(index >= 0, places, -1))
            placed = place(part(0)) if place_parts is None else place_parts(part)
            return Chunk(placed, renumbered, start, start + len(rows))

        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(cut, first)
            for start in range(first, len(order), count):
                chunk = waiting.result()
                if chunk.stop < len(order):
                    waiting = ahead.submit(cut, start + count)
                yield chunk

    return chunks


def over(data: Any, stream: Stream | None, key: jax.Array, updates: parallel.Updates) -> Chunks:
    """Chunks cut by a stream, or resident data where there is none."""
    if stream is None:
        return resident(data, updates.place)
    return streamed(
        data, stream, key, updates.place, parts=updates.parts, place_parts=updates.place_parts
    )


def first(data: Any, stream: Stream | None, key: jax.Array, batch_size: int) -> Any:
    """Arrays that a first batch is cut from, for the shapes of parameters."""
    if stream is None:
        return data
    index = np.arange(batch_size, dtype=np.int32)
    return stream.cut(data, index[None], index, key[None])


def _steps(data: Any, stream: Stream, key: jax.Array, order: np.ndarray) -> int:
    row_id = np.arange(order.shape[1], dtype=np.int32)
    one = stream.cut(data, order[:1], row_id, key[None])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(one))
    return max(1, min(_CHUNK_BYTES // max(size, 1), len(order)))
