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
    held = {}
    for name, of, padded in tables:
        size = len(train.params[name])
        held[name] = catalogue.held(example, size, of=of, padded=padded, axis_name=axis_name)
        example = catalogue.renumbered(example, held[name], of=of, padded=padded)
    params, opt_state = (
        taken(tree, held, train.params) for tree in (train.params, train.opt_state)
    )
    loss = loss_of(len(held[tables[0].name]))
    (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, train.state, key, example)
    metrics = aux.metrics
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    metrics = metrics | {"grad_norm": optax.tree.norm(grads)}
    after = TrainState(
        step=train.step + jnp.int32(1),
        params=returned(train.params, params, held, train.params),
        state=aux.state,
        opt_state=returned(train.opt_state, opt_state, held, train.params),
        ema=train.ema,
    )
    return after, metrics


def taken(tree: Any, held: dict[str, jax.Array], params: Any) -> Any:
    """A tree with the rows `held` of its tables, as they are or as an optimizer keeps them.

    Numbers behind a table's end give its last row.
    """
    owner = optim.owners(params)

    def take(keys, leaf):
        rows = held.get(owner(keys))
        return leaf if rows is None else jnp.take(leaf, rows, axis=0, mode="clip")

    return jax.tree_util.tree_map_with_path(take, tree)


def returned(whole: Any, part: Any, held: dict[str, jax.Array], params: Any) -> Any:
    """What `taken` took, changed, back in its place; numbers behind a table's end are dropped."""
    owner = optim.owners(params)

    def put(keys, leaf, changed):
        rows = held.get(owner(keys))
        if rows is None:
            return changed
        return leaf.at[rows].set(changed, mode="drop", indices_are_sorted=True, unique_indices=True)

    return jax.tree_util.tree_map_with_path(put, whole, part)
