"""One update, for every model and any number of devices."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrec_diff.models.contract import Model
from jaxrec_diff.training.state import TrainState


def update(
    model: Model,
    optimizer: optax.GradientTransformation,
    train: TrainState,
    key: jax.Array,
    example: Any,
    *,
    ema_decay: float = 0.0,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one gradient step.

    Args:
      model: what a `build` made.
      optimizer: an optax transformation.
      train: the state before.
      key: root key of the noise; the step is folded into it.
      example: a batch with its answers.
      ema_decay: decay of the moving average of parameters, 0 if there is none.
      axis_name: device axis of `pmap`, over which gradients and metrics are averaged; under `jit`
        the batch is global and nothing has to be.

    Returns:
      The state after and the model's scalars with `grad_norm`.
    """
    value_and_grad = jax.value_and_grad(model.loss, has_aux=True)
    key = jax.random.fold_in(key, train.step)
    example = model.draw(key, example)
    (_, aux), grads = value_and_grad(train.params, train.state, key, example)
    metrics = aux.metrics
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    updates, opt_state = optimizer.update(grads, train.opt_state, train.params)
    params = optax.apply_updates(train.params, updates)
    ema = train.ema
    if ema_decay > 0:
        ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
    metrics = metrics | {"grad_norm": optax.tree.norm(grads)}
    return TrainState(train.step + jnp.int32(1), params, aux.state, opt_state, ema), metrics
