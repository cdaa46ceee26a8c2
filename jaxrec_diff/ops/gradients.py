"""Gradients of several losses as one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def at_peace(
    terms: Callable[[Any], tuple[tuple[jax.Array, jax.Array], Any]],
    params: Any,
    axis_name: str | None = None,
) -> tuple[jax.Array, Any]:
    """The sum of two losses, whose gradient is that of PCGrad; arXiv:2001.06782, Algorithm 1.

        g = g_1 - min(0, g_1 . g_2) g_2 / |g_2|^2  +  g_2 - min(0, g_1 . g_2) g_1 / |g_1|^2

    with products over all parameters.

    Args:
      terms: params -> ((f32[], f32[]), further values).
      params: of the model.
      axis_name: device axis of `pmap`: the gradients are those of the global batch.

    Returns:
      The sum, and the further values.
    """
    still = jax.lax.stop_gradient(params)
    pair, pull, further = jax.vjp(terms, still, has_aux=True)
    one, zero = jnp.ones_like(pair[0]), jnp.zeros_like(pair[0])
    first, second = pull((one, zero))[0], pull((zero, one))[0]
    if axis_name is not None:
        first, second = jax.lax.pmean((first, second), axis_name)

    def dot(a, b):
        return sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))

    at_odds = jnp.minimum(dot(first, second), 0.0)
    of_first = 1.0 - at_odds / jnp.maximum(dot(first, first), 1e-30)
    of_second = 1.0 - at_odds / jnp.maximum(dot(second, second), 1e-30)
    # a sum that is zero, and whose gradient is that of PCGrad
    moved = jax.tree.map(
        lambda p, s, a, b: jnp.vdot(p - s, of_first * a + of_second * b),
        params, still, first, second,
    )  # fmt: skip
    return pair[0] + pair[1] + sum(jax.tree.leaves(moved)), further
