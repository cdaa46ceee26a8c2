"""One update of the rows that a batch reads, for tables too large to touch whole.

Adam on a table of I rows moves three tables an update, however few of its rows a batch names. Here
the rows of the batch's items and their moments are gathered, the same loss is taken on the model of
these items alone (`Model.compact`), the same optimizer updates them, and they are scattered back:
loss and gradients are those of the whole catalogue, the cost is that of the batch.

Inside `jax.set_mesh` tables that are split along the axis `model`, and their moments, stay where
they are: what a device is sent are the rows of the batch, and it updates those that it holds.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxrec_diff.batches import catalogue
from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import meshes
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
    params = taken(train.params, held, train.params)
    loss = loss_of(len(held[tables[0].name]))
    (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, train.state, key, example)
    metrics = aux.metrics
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    metrics = metrics | {"grad_norm": optax.tree.norm(grads)}
    whole = train.params, train.opt_state
    after, opt_state = stepped(optimizer, whole, params, grads, held)
    step = train.step + jnp.int32(1)
    return TrainState(step, after, aux.state, opt_state, train.ema), metrics


def stepped(
    optimizer: optax.GradientTransformation,
    whole: tuple[Any, Any],
    params: Any,
    grads: Any,
    held: dict[str, jax.Array],
) -> tuple[Any, Any]:
    """One step of the optimizer on the rows `held` and on all that has no rows.

    XLA sends the moments of every row to all devices where this is left to it.

    Args:
      optimizer: whose update of a row depends on no other row's moments.
      whole: parameters and what the optimizer keeps of them.
      params: of `taken`.
      grads: of `params`.
      held: rows by the name of their table, from `catalogue.held`.

    Returns:
      `whole`, updated.
    """

    def own(whole, params, grads, held):
        kept = taken(whole[1], held, whole[0])
        updates, kept = optimizer.update(grads, kept, params)
        near = optax.apply_updates(params, updates), kept
        return tuple(returned(*pair, held, whole[0]) for pair in zip(whole, near, strict=True))

    mesh = meshes.around()
    if mesh is None or mesh.shape[meshes.MODEL] == 1:
        return own(whole, params, grads, held)
    owner = optim.owners(whole[0])
    lies = jax.tree_util.tree_map_with_path(
        lambda keys, _: P(meshes.MODEL) if owner(keys) in held else P(), whole
    )

    def local(whole, params, grads, held):
        # Numbered from the first of this device's rows, those of others are no rows.
        first = {name: jax.lax.axis_index(meshes.MODEL) * len(whole[0][name]) for name in held}
        return own(whole, params, grads, {name: held[name] - first[name] for name in held})

    split = jax.shard_map(
        local, mesh=mesh, in_specs=(lies, P(), P(), P()), out_specs=lies, check_vma=False
    )
    return split(whole, params, grads, held)


def taken(tree: Any, held: dict[str, jax.Array], params: Any) -> Any:
    """A tree with the rows `held` of its tables, as they are or as an optimizer keeps them.

    Numbers before a table's first row give that one, and numbers behind its last that one.
    """
    owner = optim.owners(params)

    def take(keys, leaf):
        rows = held.get(owner(keys))
        return leaf if rows is None else jnp.take(leaf, rows, axis=0, mode="clip")

    return jax.tree_util.tree_map_with_path(take, tree)


def returned(whole: Any, part: Any, held: dict[str, jax.Array], params: Any) -> Any:
    """What `taken` took, changed, back in its place; numbers of no row are dropped."""
    owner = optim.owners(params)

    def put(keys, leaf, changed):
        rows = held.get(owner(keys))
        if rows is None:
            return changed
        return leaf.at[rows].set(
            changed, mode="drop", indices_are_sorted=True, unique_indices=True,
            wrap_negative_indices=False,
        )  # fmt: skip

    return jax.tree_util.tree_map_with_path(put, whole, part)
