"""The programs of a training: its updates, the order of an epoch, the state it begins with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrec_diff import layout
from jaxrec_diff.batches import epochs
from jaxrec_diff.batches.batcher import Stream
from jaxrec_diff.models import contract
from jaxrec_diff.ops import meshes, streams
from jaxrec_diff.training import checkpoint, chunks, optim, parallel, rows, step
from jaxrec_diff.training.config import BY_ROW, TrainConfig
from jaxrec_diff.training.state import TrainState, create


class Programs(NamedTuple):
    """What a training runs."""

    updates: parallel.Updates
    epoch_order: Callable[[int], jax.Array]  # number of an epoch -> its batches
    initial: Callable[[], TrainState]
    like: TrainState  # shapes, dtypes and layout of a state


def make(
    model_of: Callable[[str | None], Any],
    data: Any,
    examples: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    num_examples: int,
    config: TrainConfig,
    seed: int,
    mesh: jax.sharding.Mesh,
    mode: parallel.Parallel,
    order_of: Callable[[jax.Array], jax.Array] | None,
    stream: Stream | None,
) -> Programs:
    """The programs of a training; arguments as of `loop.fit`."""
    model = model_of(None)
    total = num_updates(config, num_examples)
    optimizer = optim.of_model(config, total, model)
    of_shapes = chunks.first(data, stream, streams.training(seed), config.batch_size)
    updates = updates_of(model_of, examples, optimizer, config, mesh, mode, stream)
    if stream is not None:
        examples = _whole(stream)
    order_of = order_of or shuffle_of(config, num_examples)
    epoch_order = jax.jit(lambda epoch: order_of(jax.random.fold_in(streams.order(seed), epoch)))
    initial = initial_of(model_of, examples, optimizer, config, streams.init(seed))
    shapes = jax.eval_shape(initial, of_shapes, model.given)
    placing = layout.shardings(shapes, mesh)
    placed = jax.jit(initial, out_shardings=placing)
    like = checkpoint.abstract(shapes, placing)
    return Programs(updates, epoch_order, lambda: placed(of_shapes, model.given), like)


def check(config: TrainConfig, num_examples: int, mesh: jax.sharding.Mesh) -> None:
    if config.batch_size > num_examples:
        raise ValueError(
            f"train.batch_size={config.batch_size} is larger than the {num_examples} training "
            f"examples; at most {num_examples} fits"
        )
    parts = mesh.shape[meshes.DATA]
    if config.batch_size % parts:
        near = max(config.batch_size // parts, 1) * parts
        what = f"{parts} devices" if parts == mesh.size else f"the {parts} parts of axis data"
        raise ValueError(
            f"train.batch_size={config.batch_size} does not divide over {what}; {near} does"
        )


def num_updates(config: TrainConfig, num_examples: int) -> int:
    """Updates of a training that is not stopped early."""
    left = config.epoch_sampler == "whole" and num_examples % config.batch_size > 0
    return (num_examples // config.batch_size + left) * config.num_epochs


def updates_of(
    model_of: Callable[[str | None], Any],
    examples: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    mesh: jax.sharding.Mesh,
    mode: parallel.Parallel,
    stream: Stream | None = None,
) -> parallel.Updates:
    """The updates of a training, as `fit` runs them and with its arguments.

    Args:
      stream: reads batches that were cut on the host, in place of `examples`.
    """
    axis_name = parallel.AXIS if mode == "pmap" else None
    model = model_of(axis_name)

    def update(train, key, example):
        if config.optimizer in BY_ROW:
            return rows.update(model, optimizer, train, key, example, axis_name=axis_name)
        return step.update(
            model, optimizer, train, key, example, ema_decay=config.ema_decay, axis_name=axis_name
        )

    if mode == "pmap":
        return parallel.pmap_updates(update, examples if stream is None else _whole(stream), mesh)
    if stream is None:
        return parallel.jit_updates(update, examples, mesh)
    return parallel.jit_updates(update, stream.example, mesh, join=stream.join)


def _whole(stream: Stream) -> Callable[..., Any]:
    """Examples of one device's rows."""
    return lambda *args: stream.join(stream.example(*args))


def initial_of(
    model_of: Callable[[str | None], Any],
    examples: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    key: jax.Array,
) -> Callable[[Any, Any], TrainState]:
    """Resident arrays, `Model.given` -> the state before the first update, by the shapes of a first
    batch."""

    def initial(data, given):
        index = jnp.arange(config.batch_size, dtype=jnp.int32)
        variables = model_of(None).init(key, examples(data, index, index, key))
        variables = variables._replace(params=contract.begun(variables.params, given))
        return create(variables, optimizer, ema_decay=config.ema_decay)

    return initial


def shuffle_of(config: TrainConfig, num_examples: int) -> Callable[[jax.Array], jax.Array]:
    """Key of an epoch -> i32[steps, B], its batches as the settings say."""
    samplers = {"perm": epochs.permutation, "whole": epochs.whole, "iid": epochs.iid}
    shuffle = samplers[config.epoch_sampler]
    return lambda key: shuffle(key, num_examples, config.batch_size)
