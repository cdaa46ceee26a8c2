"""The few items that a training batch names, as a catalogue of their own.

A loss that reads no other rows of the item table says the same of the model built with these items
alone (`Model.compact`), at the cost of the batch and not of the catalogue.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrec_diff.batches.types import Negatives, Sequences

# Fields of every kind of example that hold item ids, 0 where there is none.
_ITEMS: dict[type, tuple[str, ...]] = {
    Sequences: ("seq", "target", "negatives"),
    Negatives: ("ids",),
}


def held(example: Any, rows: int, *, multiple: int = 256, axis_name: str | None = None):
    """The items of a batch, each once: i32[n + 1], rising, with padding (0) first.

    Args:
      example: whose ids are in [0, rows).
      rows: of the item table, whose row j is item j.
      multiple: of which n + 1 is one. It is known before the ids are: as many places as the batch
        has ids, or the table rows.
      axis_name: device axis of `pmap`, over which ids are gathered.

    Returns:
      The ids, then numbers from `rows` on, which are no rows.
    """
    parts: list[jax.Array] = []

    def note(ids):
        parts.append(ids.reshape(-1))
        return ids

    renamed(note, example)
    ids = jnp.concatenate(parts)
    if axis_name is not None:
        ids = jax.lax.all_gather(ids, axis_name, tiled=True)
    size = -(-min(ids.shape[0] + 1, rows) // multiple) * multiple
    found = jnp.unique(jnp.append(0, ids), size=size, fill_value=rows).astype(jnp.int32)
    return jnp.where(found < rows, found, rows + jnp.arange(size, dtype=jnp.int32))


def renumbered(example: Any, held: jax.Array) -> Any:
    """The example with every item as its place in `held`, which has it."""
    return renamed(lambda ids: jnp.searchsorted(held, ids).astype(jnp.int32), example)


def renamed(rename: Callable[[jax.Array], jax.Array], example: Any) -> Any:
    """The example with `rename` of every array of item ids in it.

    >>> batch = Sequences(jnp.array([[3, 0]]), jnp.array([4]), jnp.ones(1), jnp.arange(1))
    >>> renamed(lambda ids: 2 * ids, batch).target.tolist()
    [8]
    """
    if example is None or type(example) not in _ITEMS:
        return jax.tree.map(rename, example)  # an array, a tuple of them, or nothing
    fields = {name: renamed(rename, getattr(example, name)) for name in _ITEMS[type(example)]}
    return example._replace(**fields)
