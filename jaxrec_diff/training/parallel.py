"""Many updates in one dispatch, on one device or on many.

`jit_updates` is the default: the batch is sharded over the `data` axis of a mesh and the loss sees
the global batch, so terms that mix rows mean the same on 1 and on 8 devices. `pmap_updates` wraps
the same step for those who work with `pmap`. Both draw the same noise, because every row's key
holds its place in the global batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.ops import meshes
from jaxrec_diff.training.state import TrainState

Parallel = Literal["jit", "pmap"]
AXIS = meshes.DATA
_CUT = 2**31 - 1  # no step
MOST_UPDATES = 1024
"""Updates a dispatch can report."""


class Reports(NamedTuple):
    """What a dispatch says of its updates."""

    metrics: dict[str, jax.Array]  # f32[MOST_UPDATES] each, one a row from the first, then zeros
    bad_step: jax.Array  # i32[], first update whose loss was not finite, or -1


class Updates(NamedTuple):
    """A compiled run of updates and how its arguments are laid out."""

    run: Callable[..., tuple[TrainState, Reports]]  # train, data, key, order, first, count
    place: Callable[[Any], Any]  # host or device arrays -> the layout that `run` takes
    fetch: Callable[[Any], Any]  # the layout of `run` -> single arrays
    parts: int = 1  # that chunks of examples are cut in
    place_parts: Callable[[Callable[[int], Any]], Any] | None = None
    """(number -> arrays of a part, on the host) -> the layout that `run` takes; by default that of
    `place`, for one part."""


def jit_updates(
    update: Callable[[TrainState, jax.Array, Any], tuple[TrainState, dict]],
    examples: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    mesh: Mesh,
    *,
    join: Callable[[Any], Any] | None = None,
) -> Updates:
    """Sharded `jit`.

    Args:
      update: (train, key, example) -> (train, metrics).
      examples: (data, index i32[B], row_id i32[B], key) -> example; cuts a batch out of resident
        data, with a key for what is drawn on the way (negatives).
      mesh: devices.
      join: given where the data come from `place_parts`, so that a device holds what its rows are
        cut from and no more, and an index counts within its part: makes an example of what
        `examples` gives of all parts (`Stream.join`).
    """
    replicated, by_row = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))

    def of_part(data, index, row_id, key):
        return examples(jax.tree.map(lambda leaf: leaf[0], data), index, row_id, key)

    rows = P(AXIS)
    of_parts = jax.shard_map(
        of_part, mesh=mesh, in_specs=(rows, rows, rows, P()), out_specs=rows, check_vma=False
    )
    cut = examples if join is None else lambda *args: join(of_parts(*args))

    def select(data, index, key):
        index = jax.lax.with_sharding_constraint(index, by_row)
        row_id = jnp.arange(index.shape[0], dtype=jnp.int32)
        return cut(data, index, jax.lax.with_sharding_constraint(row_id, by_row), key)

    def placed(train):
        return jax.lax.with_sharding_constraint(train, layout.shardings(train, mesh))

    def constrained(train, key, example):
        train, metrics = update(train, key, example)
        return placed(train), metrics

    def place(tree):
        of_state = isinstance(tree, TrainState)
        return layout.put(tree, layout.shardings(tree, mesh) if of_state else replicated)

    def run(*args):
        train, reports = _run(constrained, select, *args)
        return placed(train), jax.lax.with_sharding_constraint(reports, replicated)

    return Updates(
        jax.jit(run, donate_argnums=0),
        place,
        lambda tree: tree,
        mesh.shape[AXIS],
        lambda part: layout.put_parts(part, mesh),
    )


def pmap_updates(
    update: Callable[[TrainState, jax.Array, Any], tuple[TrainState, dict]],
    examples: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    mesh: Mesh,
) -> Updates:
    """The same through `pmap`; `update` must average over the axis `parallel.AXIS`."""
    devices = list(mesh.devices.flat)

    def select(data, index, key):
        size = index.shape[0] // len(devices)
        row_id = jax.lax.axis_index(AXIS) * size + jnp.arange(size, dtype=jnp.int32)
        return examples(data, index[row_id], row_id, key)

    stacked = NamedSharding(mesh, P(AXIS))

    def copies(leaf):
        return jnp.broadcast_to(leaf, (len(devices), *jnp.shape(leaf)))

    place = jax.jit(lambda tree: jax.tree.map(copies, tree), out_shardings=stacked)

    mapped = jax.pmap(
        lambda *args: _run(update, select, *args),
        axis_name=AXIS,
        in_axes=(0, 0, 0, 0, None, None),
        devices=devices,
        donate_argnums=0,
    )

    def run(train, data, key, order, first, count):
        train, reports = mapped(train, data, key, order, first, count)
        return train, jax.tree.map(lambda leaf: leaf[0], reports)

    return Updates(run, place, lambda tree: jax.tree.map(lambda leaf: leaf[0], tree))


def cut_key(key: jax.Array, step: jax.Array) -> jax.Array:
    """Key of what is drawn while the batch of an update is cut, from the root key of the noise."""
    # A stream of its own, told apart before the step: a split of a step's key, as losses make them,
    # has the keys that folding small numbers into it has.
    return jax.random.fold_in(jax.random.fold_in(key, _CUT), step)


def _run(update, select, train: TrainState, data, key, order, first, count):
    """`count` updates from row `first` of `order`; their number is an argument, not a shape."""

    def cut(train, index):
        return select(data, index, cut_key(key, train.step))

    # Traced once, for the shapes of what is reported and for the loop.
    @partial(jax.jit, inline=True)
    def one(train, index):
        return update(train, key, cut(train, index))

    def body(i, carry):
        train, reports = carry
        after, metrics = one(train, order[first + i])
        bad = (reports.bad_step < 0) & ~jnp.isfinite(metrics["loss"])
        bad_step = jnp.where(bad, after.step, reports.bad_step)
        kept = jax.tree.map(lambda row, value: row.at[i].set(value), reports.metrics, metrics)
        return after, Reports(kept, bad_step)

    shapes = jax.eval_shape(lambda: one(train, order[0])[1])
    zeros = jax.tree.map(lambda leaf: jnp.zeros((MOST_UPDATES, *leaf.shape), leaf.dtype), shapes)
    return jax.lax.fori_loop(0, count, body, (train, Reports(zeros, jnp.int32(-1))))
