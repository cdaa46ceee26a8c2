"""The walk of any model's reverse process, read off the program that `sample` traces to.

`sample` returns the end of a walk only. Its program holds the walk as one `scan`, whose carry is
the point; the same scan, told to keep its carry, gives every point. No model has to know of it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core


def walk(sample: Callable, params: Any, state: Any, key: jax.Array, query: Any) -> Any | None:
    """The points of every row from the start of its walk to the end.

    Args:
      sample: of a model.
      params: trained arrays.
      state: the others.
      key: of the noise.
      query: B rows.

    Returns:
      f32[N + 1, B, ..., D] for N reverse steps; None for a program without a scan over points.
    """
    args = (params, state, key, query)
    traced = jax.make_jaxpr(sample)(*args)
    rows = query.row.shape[0]
    found = None
    for place, eqn in enumerate(traced.jaxpr.eqns):
        if eqn.primitive.name == "scan" and _carry(eqn, rows) is not None:
            found = place  # the last one: what comes before it encodes histories
    if found is None:
        return None
    eqn = traced.jaxpr.eqns[found]
    before = traced.jaxpr.replace(
        eqns=traced.jaxpr.eqns[:found],
        outvars=eqn.invars,
        debug_info=traced.jaxpr.debug_info._replace(result_paths=None),
    )
    inputs = core.jaxpr_as_fun(core.ClosedJaxpr(before, traced.consts))(*jax.tree.leaves(args))
    return _kept(eqn, list(inputs), rows)


def _carry(eqn: Any, rows: int) -> int | None:
    """Which part of a scan's carry is a point of every row."""
    consts, carries = eqn.params["num_consts"], eqn.params["num_carry"]
    for place, atom in enumerate(eqn.invars[consts : consts + carries]):
        kind = atom.aval
        if kind.ndim >= 2 and kind.shape[0] == rows and jnp.issubdtype(kind.dtype, jnp.floating):
            return place
    return None


def _kept(eqn: Any, inputs: list, rows: int) -> np.ndarray:
    consts, carries = eqn.params["num_consts"], eqn.params["num_carry"]
    body = core.jaxpr_as_fun(eqn.params["jaxpr"])
    place = _carry(eqn, rows)
    assert place is not None
    fixed, first, along = (
        inputs[:consts],
        inputs[consts : consts + carries],
        inputs[consts + carries :],
    )

    def step(carry, row):
        after = body(*fixed, *carry, *row)[:carries]
        return after, after[place]

    _, points = jax.lax.scan(
        step, first, along, length=eqn.params["length"], reverse=eqn.params["reverse"]
    )
    return np.concatenate([np.asarray(first[place])[None], np.asarray(points)])
