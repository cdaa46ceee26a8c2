"""Which device ranks which rows of a split, and the arrays that it cuts them from.

Batches are split over the axis `data` and their order is known before the first, so every device
holds the rows that it will rank, whole, and no others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.batches import cut
from jaxrec_diff.batches.types import Answer, Group
from jaxrec_diff.evaluation import rank
from jaxrec_diff.evaluation.types import Split
from jaxrec_diff.ops import meshes, ragged

Cutter = Callable[..., tuple[Any, dict[str, Answer]]]
"""(arrays, row i32[B], place i32[B]) -> query, answers by split."""


class Batch(NamedTuple):
    """Rows that are ranked at once; the first of them on the first device."""

    row: np.ndarray  # i32[B], -1 for none
    place: np.ndarray  # i32[B] its number among the rows of its device, -1 for none


class Shares(NamedTuple):
    """What is ranked, on the devices."""

    batches: tuple[list[Batch], ...]  # of each group
    arrays: Any  # [D, ...], device d's at d; what `cutter` takes


def dealt(
    groups: Sequence[np.ndarray], batch_size: int, parts: int
) -> tuple[tuple[list[Batch], ...], list[np.ndarray]]:
    """The batches of each group of rows, and the rows of each of `parts` devices.

    >>> batches, own = dealt([np.array([7, 8, 9])], 2, 2)
    >>> [(each.row.tolist(), each.place.tolist()) for each in batches[0]]
    [([7, 8], [0, 0]), ([9, -1], [1, -1])]
    >>> [rows.tolist() for rows in own]
    [[7, 9], [8]]
    """
    batches, own = [], [np.zeros(0, np.int32)] * parts
    for rows in groups:
        size = -(-min(batch_size, len(rows)) // parts) * parts
        row = np.stack(list(rank.batches(rows, size)))
        place = np.full_like(row, -1)
        for part in range(parts):
            columns = slice(part * size // parts, (part + 1) * size // parts)
            real = row[:, columns] >= 0
            mine = row[:, columns][real]
            place[:, columns][real] = len(own[part]) + np.arange(len(mine))
            own[part] = np.append(own[part], mine)
        batches.append([Batch(*each) for each in zip(row, place, strict=True)])
    return tuple(batches), own


def make(
    rows: Any,
    alone: Callable[[Any, np.ndarray], Any],
    groups: Sequence[Group],
    splits: Mapping[str, Split],
    seats: Mapping[str, np.ndarray],
    batch_size: int,
    mesh: Mesh,
) -> Shares:
    """Deals rows out; all processes must ask, and each makes and holds what its devices do.

    Args:
      rows: arrays that queries are cut from, on the host.
      alone: `Batcher.alone`.
      groups: which rows are ranked.
      splits: what they are judged on, by name.
      seats: i32[N] of each split: the row of it that belongs to a row of a query, -1 for none.
      batch_size: rows at once.
      mesh: devices.
    """
    batches, own = dealt([each.rows for each in groups], batch_size, mesh.shape[meshes.DATA])

    def part(number):
        mine, histories, seat = own[number], {}, {}
        for name, split in splits.items():
            taken = seats[name][mine]
            histories[name] = ragged.alone(split.histories, taken[taken >= 0])
            at = np.cumsum(taken >= 0) - 1
            seat[name] = np.where(taken >= 0, at, -1).astype(np.int32)
        return alone(rows, mine), histories, seat

    return Shares(batches, layout.put_parts(part, mesh, uneven=True))


def of_split(split: Split, batch_size: int, mesh: Mesh) -> Shares:
    """`make` of one split by itself, whose name is ""."""
    identity = {"": np.arange(split.num_rows, dtype=np.int32)}
    return make(split.rows, split.alone, split.groups, {"": split}, identity, batch_size, mesh)


def cutter(
    query: Callable[[Any, jax.Array], Any], splits: Mapping[str, Split], mesh: Mesh
) -> Cutter:
    """Cuts batches of `Shares`, each device its own rows.

    Args:
      query: of the group, (rows, index) -> query.
      splits: as of `make`.
      mesh: as of `make`.
    """

    def own(arrays, row, place):
        rows, histories, seats = jax.tree.map(lambda leaf: leaf[0], arrays)
        answers = {}
        for name, split in splits.items():
            seat = jnp.where(place >= 0, seats[name][jnp.maximum(place, 0)], -1)
            answers[name] = cut.answers(
                histories[name], seat, max_seen=split.max_seen, max_relevant=split.max_relevant
            )
        # a row's number among all keys its noise
        return query(rows, place)._replace(row_id=row), answers

    rows = P(meshes.DATA)
    return jax.shard_map(own, mesh=mesh, in_specs=(rows,) * 3, out_specs=rows, check_vma=False)
