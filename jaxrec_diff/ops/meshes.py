"""The mesh that a program is compiled for, asked by the functions that XLA does not split well.

A program is lowered inside `with jax.set_mesh(mesh)`, so no model and no loss is handed a mesh.
"""

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh

DATA = "data"  # batches are split over it
MODEL = "model"  # tables of items and users are split over it


def around() -> AbstractMesh | None:
    """The mesh of both axes that a program is traced for.

    Returns:
      None where there is nothing to split by hand: on one device, on a mesh of other axes or of
      explicit ones, and inside `pmap` and `shard_map`, which have split it already.
    """
    mesh = jax.sharding.get_abstract_mesh()
    split = set(mesh.axis_names) == {DATA, MODEL} and set(mesh.axis_types) == {AxisType.Auto}
    return mesh if split and mesh.size > 1 else None


def rounded(size: int, mesh: Mesh) -> int:
    """The smallest batch of at least `size` rows that divides over the axis `data`."""
    parts = mesh.shape[DATA]
    return -(-size // parts) * parts
