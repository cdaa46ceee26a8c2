"""Vectors along the last axis."""

import chex
import jax
import jax.numpy as jnp


def unit(x: jax.Array) -> jax.Array:
    """x / |x| along the last axis, float[..., D] -> float[..., D]; zeros stay.

    A length has no gradient at zeros, so this has none there (NaN); `graph.unit_rows` and
    `sphere.normalize` do, and round otherwise.

    >>> import jax.numpy as jnp
    >>> unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(6).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    chex.assert_type(x, float)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
