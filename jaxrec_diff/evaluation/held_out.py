"""The objective of training on held-out rows, for models that no ranking judges."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import ragged

_LOSS_ROWS = 4096  # held-out rows are repeated up to so many: a row has one step of the diffusion


def held_out_loss(
    model: Model,
    example: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    held: ragged.Ragged,
    key: jax.Array,
    batch_size: int,
) -> Callable[[Any, Any], float]:
    """(params, state) -> the objective of training on rows that were kept from it.

    Every call draws the same steps, noise and dropout, so that two states are compared on the same.

    Args:
      model: whose `loss` it is.
      example: of a batcher, whose training rows are like `held`.
      held: the rows.
      key: of the draws.
      batch_size: rows at once; changes the mean's last bits.
    """
    count = len(held.start)
    total = count * max(1, -(-_LOSS_ROWS // count))
    steps = -(-total // batch_size)
    row_id = np.arange(steps * batch_size, dtype=np.int32).reshape(steps, batch_size)
    index = np.where(row_id < total, row_id % count, -1).astype(np.int32)
    rows = jax.tree.map(jnp.asarray, held)

    @jax.jit
    def mean(params, state, rows, index, row_id):
        def one(batch):
            index, row_id = batch
            value, _ = model.loss(params, state, key, example(rows, index, row_id, key))
            return value * (index >= 0).sum()

        return jax.lax.map(one, (index, row_id)).sum() / total

    return lambda params, state: float(mean(params, state, rows, index, row_id))
