"""A history and the M items that came before it."""

import jax.numpy as jnp

from jaxrec_diff.batches import cut, feed
from jaxrec_diff.batches.feed import Feed
from jaxrec_diff.batches.types import Prefixes
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


def of_prefixes(dataset: Dataset, profiles: Ragged, config: DataConfig) -> Feed:
    del profiles  # `view` has cut the rows

    def example(train, index, row, key):
        del key
        real = index >= 0
        safe = jnp.where(real, index, 0)
        items = jnp.asarray(train.items)
        start, end = (jnp.asarray(part)[safe] for part in (train.start, train.end))
        # a row has M answers, right behind its history
        prefix = items[end[:, None] + jnp.arange(config.prefix_len)]
        seq = ragged.window(items, start, end, config.max_len)
        return Prefixes(prefix, seq, real.astype(jnp.float32), row)

    def query(rows, index):
        return cut.queries(rows, index, max_len=config.max_len)

    return Feed(dataset.train, len(dataset.train.start), example, feed.shown(dataset), query)
