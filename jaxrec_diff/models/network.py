"""Calls of the network that a model's parts hold."""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax

from jaxrec_diff.diffusion import forward
from jaxrec_diff.diffusion.forward import Forward


class HasNetwork(Protocol):
    """The parts of a model, one of which is its network."""

    @property
    def net(self) -> nn.Module: ...


class HasTables(Protocol):
    """The parts of a model, one of which is its forward process."""

    @property
    def tables(self) -> Forward: ...


def call(parts: HasNetwork, params: Any, method: Any, *args: Any, **options: Any) -> Any:
    """A method of the network, by name or as a function of it, under its parameters."""
    return parts.net.apply({"params": params}, *args, method=method, **options)


def by_row(method: Callable[..., Any], keys: jax.Array, *rows: Any) -> Any:
    """`method` under dropout, row by row: a row drops the same whatever batch it is in.

    Args:
      method: (arrays [1, ...] ..., deterministic=False, rngs=) -> [1, ...], a bound `call`.
      keys: key[B].
      rows: arrays [B, ...], or trees of them.

    Returns:
      What `method` returns for each, [B, ...].
    """

    def one(key, *row):
        single = jax.tree.map(lambda leaf: leaf[None], row)
        out = method(*single, deterministic=False, rngs={"dropout": key})
        return jax.tree.map(lambda leaf: leaf[0], out)

    return jax.vmap(one)(keys, *rows)


def noised_target(
    parts: HasTables, params: Any, state: Any, key: jax.Array, query: Any, items: jax.Array,
    t: jax.Array,
) -> jax.Array:  # fmt: skip
    """`Model.noised` where x_0 is a row of the item table: x_t f32[B, D] of the first of the
    answers i32[B, R], where a perfect chain would stand."""
    del state
    return forward.at_step(parts.tables, key, query.row_id, params["items"][items[:, 0]], t)
