"""A history and the M items that came before it."""

import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import batcher, cut
from jaxrec_diff.batches.batcher import Batcher, Stream
from jaxrec_diff.batches.input import Input
from jaxrec_diff.batches.types import Prefixes
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.ops import ragged


def _batcher(dataset: Dataset, config: DataConfig) -> Batcher:
    def example(train, index, row_id, key):
        del key
        real = index >= 0
        safe = jnp.where(real, index, 0)
        items = jnp.asarray(train.items)
        start, end = (jnp.asarray(part)[safe] for part in (train.start, train.end))
        # a row has M answers, right behind its history
        prefix = items[end[:, None] + jnp.arange(config.prefix_len)]
        seq = ragged.window(items, start, end, config.max_len)
        return Prefixes(prefix, seq, real.astype(jnp.float32), row_id)

    def query(rows, index):
        return cut.queries(rows, index, max_len=config.max_len)

    def streamed(train, index, row_id, keys):
        del row_id, keys
        rows = np.maximum(index, 0).reshape(-1)
        return ragged.cut(train, rows, config.max_len, config.prefix_len)

    train, stream = dataset.train, Stream(streamed, example)
    return Batcher(train, len(train.start), example, stream, batcher.shown(dataset), query)


PREFIXES = Input("prefixes", _batcher, cut.from_history, view=views.before)
