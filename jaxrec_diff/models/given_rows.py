"""Vectors of items as rows of a model's table of items, in training and for items after it.

Whatever the system (`registry.ItemTable`), row j of its parameter `items` is item j.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.models.contract import GivenRows, Model
from jaxrec_diff.ops import filled

_TABLE = "items"


def start_from(model: Model, given: GivenRows) -> Model:
    """The model with given rows of items at the start, and to the end where they are frozen.

    Its other parameters are drawn as before. A frozen table gets no gradient and no update, so that
    the norm of the gradient is that of what is trained. Where the model starts from rows that an
    earlier phase has trained, which began with the given ones, those stay.
    """
    if given.rows is not None and (given.frozen or _TABLE not in model.given):
        model = model._replace(given=model.given | {_TABLE: given.rows})
    if not given.frozen:
        return model

    def loss(params, state, key, example):
        kept = params | {_TABLE: jax.lax.stop_gradient(params[_TABLE])}
        return model.loss(kept, state, key, example)

    thawed = {name: thaw for name, thaw in model.thawed.items() if name != _TABLE}
    frozen = (*model.frozen, _TABLE)
    return model._replace(loss=loss, compact=None, frozen=frozen, thawed=thawed)


def grown(params: Any, num_items: int, rows: np.ndarray) -> Any:
    """Parameters with further items I + 1, I + 2, ... whose rows are given.

    Args:
      params: of a model whose table grows (`ItemTable.grows`), of I items.
      num_items: I.
      rows: f32[M, D].
    """
    items = params[_TABLE][: num_items + 1]
    further = jnp.asarray(rows, items.dtype)
    return params | {_TABLE: filled.padded(jnp.concatenate([items, further]))}
