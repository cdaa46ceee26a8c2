"""How arrays lie on the devices of one process or of many, and how processes keep step.

Every process runs the same program and holds the same host arrays: the data set as `data.load`
reads it, whose ids, filters and splits are of all interactions. Devices hold shares of it: the rows
that they rank (`evaluation.shares`) and those of their part of the next batches
(`training.chunks`). `put` makes global arrays of host arrays, `put_parts` of a process's own parts,
`whole` brings global arrays back to every host. What a process knows alone (its clock, a signal,
what its disk holds) goes through `agree` before anything depends on it: two processes that run
different updates wait for each other forever. `first()` writes files and speaks.

With one process `put` is `jax.device_put`, `whole` is `jax.device_get`, and the rest does nothing.
"""

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from jaxrec_diff.ops import filled, meshes

# Peers compile, read data or tune for hours; a dead one is noticed by its heartbeats, not by this.
_PATIENCE_MS = 7 * 24 * 3600 * 1000
# Whose rows are users or items.
_TABLES = frozenset({"items", "users", "means", "table_in", "table_out", "head"})
_meetings = itertools.count()  # counts alike in all processes


def put(tree: Any, sharding: Any) -> Any:
    """Arrays of the host, the same in every process, as global arrays of the devices.

    Args:
      tree: arrays of numpy or jax, numbers and typed keys; global arrays are laid out anew.
      sharding: one for all leaves, or a tree of them.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(_put, tree, jax.tree.broadcast(sharding, tree))


def _put(leaf: Any, sharding: Sharding) -> Any:
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable:
            return _moved(leaf.shape, leaf.dtype, leaf.sharding, sharding)(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = _put(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def put_parts(part: Callable[[int], Any], mesh: Mesh, *, uneven: bool = False) -> Any:
    """Global arrays [D, ...] of D parts along the axis `data`, each on the devices that hold it.

    A process makes the parts of its own devices and no other.

    Args:
      part: number of a part -> arrays of the host, of one shape in all parts.
      mesh: devices.
      uneven: arrays may differ along their first axis, and are filled up with zeros to the longest;
        all processes must ask.
    """
    grid = np.moveaxis(mesh.devices, mesh.axis_names.index(meshes.DATA), 0)
    grid = grid.reshape(len(grid), -1)
    me = jax.process_index()
    own = [n for n, row in enumerate(grid) if any(device.process_index == me for device in row)]
    made = {number: part(number) for number in own}
    made = _filled_up(made) if uneven else made
    sharding = NamedSharding(mesh, PartitionSpec(meshes.DATA))

    def joined(*leaves: np.ndarray) -> jax.Array:
        at = dict(zip(made, leaves, strict=True))

        def of(index: Any) -> np.ndarray:
            return at[index[0].start or 0][None]

        return jax.make_array_from_callback((len(grid), *leaves[0].shape), sharding, of)

    return jax.tree.map(joined, *made.values())


def _filled_up(made: dict[int, Any]) -> dict[int, Any]:
    leaves = [jax.tree.leaves(each) for each in made.values()]
    longest = [max(map(len, each)) for each in zip(*leaves, strict=True)]
    sizes = agree(longest, choose=lambda each: np.max(each, axis=0).tolist())

    def fill(tree):
        leaves, form = jax.tree.flatten(tree)
        filled = []
        for leaf, size in zip(leaves, sizes, strict=True):
            widths = [(0, max(size, 1) - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)]
            filled.append(np.pad(leaf, widths))
        return jax.tree.unflatten(form, filled)

    return {number: fill(each) for number, each in made.items()}


def whole(tree: Any) -> Any:
    """Global arrays as arrays of numpy, whole in every process; all processes must ask."""
    if jax.process_count() > 1:
        tree = jax.tree.map(_everywhere, tree)
    return jax.device_get(tree)


def _everywhere(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    assert isinstance(leaf.sharding, NamedSharding)
    everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
    return _moved(leaf.shape, leaf.dtype, leaf.sharding, everywhere)(leaf)


@functools.cache
def _moved(shape: tuple[int, ...], dtype: Any, before: Sharding, after: Sharding) -> Callable:
    """A program that lays an array out anew, made once for all arrays that lie alike."""
    leaf = jax.ShapeDtypeStruct(shape, dtype, sharding=before)
    return compiled(jax.jit(lambda x: x, out_shardings=after), leaf)


def make_mesh(devices: Sequence[jax.Device] | None = None, *, model: int = 1) -> Mesh:
    """The given or all devices along two axes: `data`, and `model` of the size that is asked for.

    Both axes are there whatever their sizes, and XLA lays out what a program does not (JAX's
    default is a mesh of explicit axes, which refuses lookups by ids that are split).
    """
    devices = list(devices or jax.devices())
    shape = len(devices) // model, model
    types = (AxisType.Auto,) * 2
    return jax.make_mesh(shape, (meshes.DATA, meshes.MODEL), axis_types=types, devices=devices)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """How the arrays of a training state lie on a mesh: a sharding for each leaf.

    Filled tables (`ops.filled`) of users and of items are cut along the axis `model`, by the last
    word of their path, in which their moments and averages end too. All else is on every device:
    networks, and of what grows with the data

    * biases of items, 4 bytes each, beside rows of 4 D;
    * L-DiffRec's tables, 4 D I bytes, which are cut by clusters of items and not by their number;
    * graphs of LightGCN, SGL and GiffCF, 8 bytes an edge. A step along them brings both tables of
      nodes to every device, 4 D (U + I) bytes a layer: edges are not cut by where they end;
    * `table_in` of DiffRec, once in an evaluation by a chain that draws, for its QR factors.

    Args:
      tree: arrays, or their shapes and dtypes.
      mesh: devices, with both axes.
    """

    def of(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        filled_up = leaf.ndim > 0 and leaf.shape[0] % filled.MULTIPLE == 0
        cut = name in _TABLES and filled_up and meshes.MODEL in mesh.axis_names
        return NamedSharding(mesh, PartitionSpec(meshes.MODEL) if cut else PartitionSpec())

    return jax.tree_util.tree_map_with_path(of, tree)


def compiled(fn: Any, *args: Any) -> Callable[..., Any]:
    """A jitted function without static arguments, ready to run on arguments like these.

    Collectives on CPUs give up on a peer that compiles for half a minute longer, so all processes
    compile first and then meet. One process compiles at the first call.
    """
    if jax.process_count() == 1:
        return fn
    made = fn.lower(*args).compile()
    barrier("compiled")
    return made


def first() -> bool:
    """Whether this process writes files and speaks."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for all processes; each must pass the same barriers in the same order.

    Raises:
      RuntimeError: if one of them is gone.
    """
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"jaxrec/{next(_meetings)}/{name}", _PATIENCE_MS)


def by_first(ask: Callable[[], Any]) -> Any:
    """What the first process finds or does, for all: looks at files and changes to them.

    Args:
      ask: called by the first process alone; gives what json can hold.

    Raises:
      ValueError: in all processes, if `ask` raises one.
    """
    if jax.process_count() == 1:
        return ask()
    found, refused = None, None
    if first():
        try:
            found = ask()
        except ValueError as error:
            refused = str(error)
    found, refused = agree((found, refused))
    if refused is not None:
        refuse(refused)
    return found


def refuse(message: str) -> NoReturn:
    """Ends all processes, which all must call it, by the same sentence.

    The first one holds what they agreed on, and may leave only when everybody has read it.

    Raises:
      ValueError: always.
    """
    barrier("refused")
    raise ValueError(message)


def agree(value: Any, choose: Callable[[list[Any]], Any] = lambda each: each[0]) -> Any:
    """One value for all processes, which must all ask; by default the first one's.

    It takes a millisecond and runs nothing on the devices.

    Args:
      value: what this process says, of what json can hold.
      choose: what all say, in the order of processes -> the value.

    Raises:
      RuntimeError: if a process is gone.
    """
    if jax.process_count() == 1:
        return choose([value])
    meeting = next(_meetings)
    client, folder = _client(), f"jaxrec/said/{meeting}/"
    client.key_value_set(f"{folder}{jax.process_index():08d}", json.dumps(value))
    client.wait_at_barrier(f"jaxrec/{meeting}/agree", _PATIENCE_MS)
    said = [json.loads(text) for _, text in sorted(client.key_value_dir_get(folder))]
    if first():
        _forget(client, folder)
    return choose(said)


_read: list[str] = []


def _forget(client: Any, folder: str) -> None:
    """Deletes what was said before last time: whoever said this has read that."""
    _read.append(folder)
    if len(_read) > 1:
        client.key_value_delete(_read.pop(0))


def _client() -> Any:
    # JAX's coordinator, which no public function of `jax.distributed` hands out (0.10); Orbax
    # reaches it the same way. `multihost_utils` goes through collectives of the devices, which give
    # up on a peer that compiles, and which round float64.
    from jax._src import distributed

    return distributed.global_state.client
