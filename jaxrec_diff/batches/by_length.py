"""Batches whose histories are padded to a few lengths instead of to the longest."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import cut as batches_cut
from jaxrec_diff.batches import epochs, feed, sequences, whole_sequences
from jaxrec_diff.batches import lengths as batches_lengths
from jaxrec_diff.batches.feed import Feed, Kind
from jaxrec_diff.batches.types import Group
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset


def by_length(
    kind: Kind, dataset: Dataset, config: DataConfig, batch_size: int, devices: int
) -> Feed:
    """Sequences or windows in a few static lengths, for models that read them so.

    Every training batch has a fixed number of slots for each length (`epochs.stratified`),
    so an update is compiled once and sees the whole batch; its `seq` is a tuple. Queries are
    grouped by length, one compilation a group. What a length leaves out is padding and nothing
    else; whether that changes a number is the model's to say.
    """
    if kind == "walks":
        cut = whole_sequences.cut_walks(
            dataset, views.profiles_of(dataset, "this model needs"), config
        )
    else:
        cut = sequences.cut_sequences(kind, dataset, config)
    lengths = batches_lengths.bucket_lengths(cut.spans, config)
    bucket = batches_lengths.bucket(cut.spans, lengths)
    train = cut.pick(cut.train, np.argsort(bucket, kind="stable"))
    sizes = tuple(np.bincount(bucket, minlength=len(lengths)).tolist())
    slots = [c // devices for c in epochs.capacities(sizes, batch_size, devices)]
    edges = np.append(0, np.cumsum(slots))
    base = np.append(0, np.cumsum(epochs.capacities(sizes, batch_size, 1)))

    def query(rows, index, length):
        return batches_cut.queries(rows, index, max_len=length)

    def example(train, index, row, key):
        if index.shape[0] % edges[-1]:  # not a batch of `order`: a few rows to initialise from
            return cut.example(train, index, row, key, config.max_len)
        index = index.reshape(-1, edges[-1])
        device, slot = jnp.divmod(row.reshape(-1, edges[-1]), edges[-1])
        parts = []
        for k, length in enumerate(lengths):
            own = slice(edges[k], edges[k + 1])
            # Examples are dealt to devices like cards; their rows are those of an undealt pack, so
            # that noise does not depend on the number of devices.
            place = base[k] + (slot[:, own] - edges[k]) * devices + device[:, own]
            parts.append(
                cut.example(train, index[:, own].reshape(-1), place.reshape(-1), key, length)
            )
        return _joined(parts, cut.apart)

    def grouped(slices):
        found = batches_lengths.bucket(slices, lengths)
        return tuple(
            Group(np.flatnonzero(found == k).astype(np.int32), partial(query, length=length))
            for k, length in enumerate(lengths)
            if (found == k).any()
        )

    return sequences.fed(cut, dataset, config)._replace(
        train=train,
        example=example,
        order=lambda key: epochs.stratified(key, sizes, batch_size, devices),
        groups={split: grouped(rows) for split, rows in feed.shown(dataset).items()},
    )


def _joined(parts: list[Any], apart: tuple[str, ...]) -> Any:
    """One example of examples of several lengths, whose fields `apart` become tuples."""
    columns: dict[str, Any] = {}
    for name in parts[0]._fields:
        column = [getattr(part, name) for part in parts]
        if name in apart:
            columns[name] = tuple(column)
        else:
            columns[name] = None if column[0] is None else jnp.concatenate(column)
    return type(parts[0])(**columns)
