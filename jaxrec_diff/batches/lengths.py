"""Histories padded to a few lengths instead of to the longest, so that little is padded."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import batcher, epochs
from jaxrec_diff.batches import cut as batches_cut
from jaxrec_diff.batches.batcher import Batcher, Stream
from jaxrec_diff.batches.input import Input
from jaxrec_diff.batches.types import Group
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops.ragged import Ragged

_MAX_BUCKETS = 4  # each is a copy of the network in the compiled update


class Cut(NamedTuple):
    """Examples that are cut from histories, at any length."""

    train: Any  # arrays on the host
    spans: Ragged  # of every example, the history that it is cut from
    pick: Callable[[Any, Any], Any]
    """(train, rows) -> the same with these examples alone."""
    example: Callable[..., Any]
    """(train, index i32[B], row_id i32[B], key, length) -> example."""
    apart: tuple[str, ...]
    """Fields of an example that have a column a place."""
    part: Callable[[Any, np.ndarray, int], Any]
    """(train, rows int[n], longest length) -> small arrays, from which `example` cuts the same."""


def of_histories(name: str, cut: Callable[[Dataset, DataConfig], Cut]) -> Input:
    """A kind of input that is cut from histories, whose queries are histories."""
    return Input(
        name,
        batcher=lambda dataset, config: at_longest(cut(dataset, config), dataset, config),
        from_history=batches_cut.from_history,
        by_length=lambda dataset, config, batch_size, devices: by_length(
            cut(dataset, config), dataset, config, batch_size, devices
        ),
    )


def at_longest(cut: Cut, dataset: Dataset, config: DataConfig) -> Batcher:
    """All examples at the longest length."""

    def query(rows, index):
        return batches_cut.queries(rows, index, max_len=config.max_len)

    def streamed(train, index, row_id, keys):
        del row_id, keys
        return cut.part(train, np.maximum(index, 0).reshape(-1), config.max_len)

    example = partial(cut.example, length=config.max_len)
    return Batcher(
        cut.train,
        len(cut.spans.start),
        example,
        Stream(streamed, example),
        batcher.shown(dataset),
        query,
    )


def by_length(
    cut: Cut, dataset: Dataset, config: DataConfig, batch_size: int, devices: int
) -> Batcher:
    """Examples in a few static lengths, for models that read them so.

    Every training batch has a fixed number of slots for each length (`epochs.stratified`),
    so an update is compiled once and sees the whole batch; its `seq` is a tuple. Queries are
    grouped by length, one compilation a group. What a length leaves out is padding and nothing
    else; whether that changes a number is the model's to say.
    """
    lengths = bucket_lengths(cut.spans, config)
    bucket = bucket_of(cut.spans, lengths)
    train = cut.pick(cut.train, np.argsort(bucket, kind="stable"))
    sizes = tuple(np.bincount(bucket, minlength=len(lengths)).tolist())
    slots = [c // devices for c in epochs.capacities(sizes, batch_size, devices)]
    edges = np.append(0, np.cumsum(slots))
    base = np.append(0, np.cumsum(epochs.capacities(sizes, batch_size, 1)))

    def query(rows, index, length):
        return batches_cut.queries(rows, index, max_len=length)

    def pieces(train, index, row_id, key):
        if index.shape[0] % edges[-1]:  # not a batch of `order`: a few rows to initialise from
            return [cut.example(train, index, row_id, key, config.max_len)]
        index = index.reshape(-1, edges[-1])
        device, slot = jnp.divmod(row_id.reshape(-1, edges[-1]), edges[-1])
        parts = []
        for k, length in enumerate(lengths):
            own = slice(edges[k], edges[k + 1])
            # Examples are dealt to devices like cards; their rows are those of an undealt pack, so
            # that noise does not depend on the number of devices.
            place = base[k] + (slot[:, own] - edges[k]) * devices + device[:, own]
            parts.append(
                cut.example(train, index[:, own].reshape(-1), place.reshape(-1), key, length)
            )
        return parts

    def example(*args):
        return _joined(pieces(*args), cut.apart)

    def grouped(rows):
        found = bucket_of(rows, lengths)
        return tuple(
            Group(np.flatnonzero(found == k).astype(np.int32), partial(query, length=length))
            for k, length in enumerate(lengths)
            if (found == k).any()
        )

    plain = at_longest(cut, dataset, config)
    return plain._replace(
        train=train,
        example=example,
        stream=Stream(plain.stream.cut, pieces, partial(_joined, apart=cut.apart)),
        order=lambda key: epochs.stratified(key, sizes, batch_size, devices),
        groups={split: grouped(rows) for split, rows in batcher.shown(dataset).items()},
    )


def _joined(parts: list[Any], apart: tuple[str, ...]) -> Any:
    """One example of examples of several lengths, whose fields `apart` become tuples."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for name in parts[0]._fields:
        column = [getattr(part, name) for part in parts]
        if name in apart:
            columns[name] = tuple(column)
        else:
            columns[name] = None if column[0] is None else jnp.concatenate(column)
    return type(parts[0])(**columns)


def bucket_lengths(rows: Ragged, config: DataConfig) -> tuple[int, ...]:
    """The lengths that histories are padded to: as set, or the (up to four) that pad least.

    Dynamic programming over the histogram of lengths: with c(l) the least number of places when the
    longest history has l items and k lengths are left,

        c_k(l) = min over j < l of c_{k-1}(j) + l #{j < length <= l}.
    """
    longest = config.max_len
    if config.buckets:
        return (*(length for length in config.buckets if length < longest), longest)
    lengths = np.clip(rows.end - rows.start, 1, longest)
    below = np.append(0, np.cumsum(np.bincount(lengths, minlength=longest + 1)[1:]))
    cost = np.where(below == 0, 0, np.inf)
    cuts = []
    for _ in range(min(_MAX_BUCKETS, longest)):
        # [l, j]: a bucket of length l after all histories of up to j items
        candidates = cost[None, :] + np.arange(longest + 1)[:, None] * (below[:, None] - below)
        candidates[np.triu_indices(longest + 1)] = np.inf
        candidates[0, 0] = 0
        cuts.append(candidates.argmin(axis=1))
        cost = candidates.min(axis=1)
    chosen, length = [], longest
    for before in reversed(cuts):
        if length == 0 or below[length] == 0:
            break
        chosen.append(length)
        length = int(before[length])
    return tuple(reversed(chosen))


def bucket_of(rows: Ragged, lengths: tuple[int, ...]) -> np.ndarray:
    """Which length each history has, the shortest that holds it."""
    return np.searchsorted(lengths, np.minimum(rows.end - rows.start, lengths[-1]))
