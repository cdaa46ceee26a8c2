"""All that changes while training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrec_diff.models.contract import Variables


class TrainState(NamedTuple):
    """A checkpoint is this and nothing else: order and noise are functions of (seed, step)."""

    step: jax.Array  # i32[], updates made
    params: Any
    state: Any  # the model's untrained arrays
    opt_state: Any
    ema: Any  # moving average of params, or () when it is off


def create(
    variables: Variables, optimizer: optax.GradientTransformation, *, ema_decay: float = 0.0
) -> TrainState:
    """The state before the first update."""
    return TrainState(
        step=jnp.int32(0),
        params=variables.params,
        state=variables.state,
        opt_state=optimizer.init(variables.params),
        # A copy: parameters and their average are donated together, so they may not share memory.
        ema=jax.tree.map(jnp.copy, variables.params) if ema_decay > 0 else (),
    )


def averaged(train: TrainState) -> Any:
    """The parameters to evaluate: their moving average where there is one."""
    return train.params if isinstance(train.ema, tuple) and not train.ema else train.ema
