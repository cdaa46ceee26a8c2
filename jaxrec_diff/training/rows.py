"""One update of the rows that a batch reads, for tables too large to touch whole.

Adam on a table of I rows moves three tables an update, however few of its rows a batch names. Here
the rows of the batch's items and their moments are gathered, the same loss is taken on the model of
these items alone (`Model.compact`), the same optimizer updates them, and they are scattered back:
loss and gradients are those of the whole catalogue, the cost is that of the batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrec_diff.batches import catalogue
from jaxrec_diff.models.contract import Model
from jaxrec_diff.training import optim
from jaxrec_diff.training.state import TrainState


def update(
    model: Model,
    optimizer: optax.GradientTransformation,
    train: TrainState,
    key: jax.Array,
    example: Any,
    *,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one gradient step on the rows that the example names and on all other parameters.

    Args:
      model: with `compact`.
      optimizer: from `optim.make`, whose update of a row depends on no other row.
      train: the state before; it has no moving average.
      key: as of `step.update`.
      example: a batch with its answers.
      axis_name: device axis of `pmap`; all devices then hold the rows of the global batch.

    Returns:
      What `step.update` returns.
    """
    assert model.compact is not None
    tables, loss_of = model.compact
    key = jax.random.fold_in(key, train.step)
    example = model.draw(key, example)
    held = catalogue.held(example, len(train.params[tables[0]]), axis_name=axis_name)
    params, opt_state = (
        taken(tree, held, train.params, tables) for tree in (train.params, train.opt_state)
    )
    value_and_grad = jax.value_and_grad(loss_of(len(held) - 1), has_aux=True)
    (_, aux), grads = value_and_grad(params, train.state, key, catalogue.renumbered(example, held))
    metrics = aux.metrics
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    metrics = metrics | {"grad_norm": optax.tree.norm(grads)}
    after = TrainState(
        step=train.step + jnp.int32(1),
        params=returned(train.params, params, held, train.params, tables),
        state=aux.state,
        opt_state=returned(train.opt_state, opt_state, held, train.params, tables),
        ema=train.ema,
    )
    return after, metrics


def taken(tree: Any, held: jax.Array, params: Any, tables: tuple[str, ...]) -> Any:
    """A tree with the rows `held` of its tables, as they are or as an optimizer keeps them.

    Numbers behind a table's end give its last row.
    """
    owner = optim.owners(params)

    def take(keys, leaf):
        return jnp.take(leaf, held, axis=0, mode="clip") if owner(keys) in tables else leaf

    return jax.tree_util.tree_map_with_path(take, tree)


def returned(whole: Any, part: Any, held: jax.Array, params: Any, tables: tuple[str, ...]) -> Any:
    """What `taken` took, changed, back in its place; numbers behind a table's end are dropped."""
    owner = optim.owners(params)

    def put(keys, leaf, rows):
        if owner(keys) not in tables:
            return rows
        return leaf.at[held].set(rows, mode="drop", indices_are_sorted=True, unique_indices=True)

    return jax.tree_util.tree_map_with_path(put, whole, part)
