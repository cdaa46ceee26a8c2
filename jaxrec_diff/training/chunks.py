"""The examples of an epoch as the devices hold them: all of them, or some updates' at a time.

Either way an update is the same program on the same example, so that losses and parameters are
equal to the last bit; what differs is the size of the arrays that examples are cut from.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

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
    steps: int | None = None,
) -> Chunks:
    """Chunks of a constant shape, each cut on the host while the one before is trained on.

    Args:
      data: on the host, memory-mapped or not.
      stream: how it is cut.
      key: root key of the noise, of which every update has its own key to draw by.
      place: host arrays -> the devices.
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
            small = stream.cut(data, index, keys)
            places = np.arange(index.size, dtype=np.int32).reshape(index.shape)
            renumbered = np.where(index >= 0, places, -1)
            placed, placed_order = place((small, renumbered))
            return Chunk(placed, placed_order, start, start + len(rows))

        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(cut, first)
            for start in range(first, len(order), count):
                chunk = waiting.result()
                if chunk.stop < len(order):
                    waiting = ahead.submit(cut, start + count)
                yield chunk

    return chunks


def over(data: Any, stream: Stream | None, key: jax.Array, place: Callable[[Any], Any]) -> Chunks:
    """Chunks cut by a stream, or resident data where there is none."""
    return resident(data, place) if stream is None else streamed(data, stream, key, place)


def first(data: Any, stream: Stream | None, key: jax.Array, batch_size: int) -> Any:
    """Arrays that a first batch is cut from, for the shapes of parameters."""
    if stream is None:
        return data
    return stream.cut(data, np.arange(batch_size, dtype=np.int32)[None], key[None])


def _steps(data: Any, stream: Stream, key: jax.Array, order: np.ndarray) -> int:
    one = stream.cut(data, order[:1], key[None])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(one))
    return max(1, min(_CHUNK_BYTES // max(size, 1), len(order)))
