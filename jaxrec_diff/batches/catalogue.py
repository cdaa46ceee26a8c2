"""The few items and users that a training batch names, as a catalogue of their own.

A loss that reads no other rows of its tables says the same of tables of these rows alone
(`Model.compact`), at the cost of the batch and not of the catalogue.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrec_diff.batches.types import Negatives, Sequences, Triplets, WholeSequences

Of = Literal["items", "users"]
# Fields of every kind of example that hold ids: items from 1 on, 0 where there is none; users.
_FIELDS: dict[Of, dict[type, tuple[str, ...]]] = {
    "items": {
        Sequences: ("seq", "target", "negatives"),
        Negatives: ("ids",),
        Triplets: ("positive", "negative"),
        WholeSequences: ("seq", "negative", "shown"),
    },
    "users": {Triplets: ("user",)},
}


def held(
    example: Any,
    rows: int,
    *,
    of: Of = "items",
    padded: bool = True,
    multiple: int = 256,
    axis_name: str | None = None,
) -> jax.Array:
    """The rows of a table that a batch names, each once: i32[n], rising.

    Args:
      example: with ids.
      rows: of the table.
      of: whose rows they are.
      padded: whether row j is item j and row 0, which is always held, padding; else row j is item
        j + 1, or user j.
      multiple: of which n is one. It is known before the ids are: as many places as the batch has
        ids, or the table rows.
      axis_name: device axis of `pmap`, over which ids are gathered.

    Returns:
      The rows, then numbers from `rows` on, which are none.
    """
    parts: list[jax.Array] = []

    def note(ids):
        parts.append(ids.reshape(-1))
        return ids

    renamed(note, example, of)
    named = jnp.concatenate(parts) - _before(of, padded)
    if axis_name is not None:
        named = jax.lax.all_gather(named, axis_name, tiled=True)
    if padded:
        named = jnp.append(0, named)
    size = -(-min(named.shape[0], rows) // multiple) * multiple
    found = jnp.unique(named, size=size, fill_value=rows).astype(jnp.int32)
    return jnp.where(found < rows, found, rows + jnp.arange(size, dtype=jnp.int32))


def renumbered(example: Any, held: jax.Array, *, of: Of = "items", padded: bool = True) -> Any:
    """The example with ids whose rows are their places in `held`, which has them."""
    before = _before(of, padded)

    def place(ids):
        return jnp.searchsorted(held, ids - before).astype(jnp.int32) + before

    return renamed(place, example, of)


def renamed(rename: Callable[[jax.Array], jax.Array], example: Any, of: Of = "items") -> Any:
    """The example with `rename` of every array of ids in it.

    >>> batch = Sequences(jnp.array([[3, 0]]), jnp.array([4]), jnp.ones(1), jnp.arange(1))
    >>> renamed(lambda ids: 2 * ids, batch).target.tolist()
    [8]
    """
    fields = _FIELDS[of].get(type(example))
    if fields is None:
        return jax.tree.map(rename, example)  # an array, a tuple of them, or nothing
    return example._replace(
        **{name: renamed(rename, getattr(example, name), of) for name in fields}
    )


def _before(of: Of, padded: bool) -> int:
    """What an id is above its row."""
    return int(of == "items" and not padded)
