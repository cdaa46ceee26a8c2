"""Moves on the unit sphere (DimeRec, arXiv:2408.12153, Algorithm 1)."""

import chex
import jax
import jax.numpy as jnp

from jaxrec_diff.diffusion.forward import extract

_TINY = 1e-12


def normalize(x: jax.Array, eps: float = _TINY) -> jax.Array:
    """x / |x| along the last axis; a zero vector stays zero and has a finite gradient.

    >>> import jax.numpy as jnp
    >>> normalize(jnp.array([3.0, 4.0])).round(6).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    chex.assert_rank(x, {1, 2, 3})
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    # where twice: the gradient of the branch not taken must not be NaN either
    safe = jnp.where(square > eps**2, square, 1.0)
    return x * jnp.where(square > eps**2, jax.lax.rsqrt(safe), 1.0 / eps)


def project_tangent(x: jax.Array, u: jax.Array) -> jax.Array:
    """The part of `u` in the tangent space at the unit vector `x`: u - <u, x> x."""
    chex.assert_equal_shape([x, u])
    return u - jnp.sum(u * x, axis=-1, keepdims=True) * x


def exp_map(x: jax.Array, v: jax.Array) -> jax.Array:
    """exp_x(v) = cos|v| x + sin|v| v / |v|, float[..., D]; finite gradients at v = 0.

    `v` must be tangent at the unit vector `x` for the result to be a unit vector.
    """
    chex.assert_equal_shape([x, v])
    square = jnp.sum(v * v, axis=-1, keepdims=True)
    tiny = square < 1e-12
    length = jnp.sqrt(jnp.where(tiny, 1.0, square))
    cosine = jnp.where(tiny, 1.0 - square / 2, jnp.cos(length))
    sinc = jnp.where(tiny, 1.0 - square / 6, jnp.sin(length) / length)
    return cosine * x + sinc * v


def q_sample(
    scale: jax.Array, x0: jax.Array, t: jax.Array, eps: jax.Array, *, project: bool = True
) -> jax.Array:
    """Geodesic random walk in one jump: x_t = exp_{x0}(scale_t eps).

    Args:
      scale: float[T] table, sqrt(1 - abar_t) in the paper's literal reading.
      x0: float[B, D] unit vectors.
      t: i32[B].
      eps: float[B, D] standard normal noise.
      project: project the noise on the tangent space at `x0`, as the exponential map requires;
        without it the result leaves the sphere and is put back by normalising.
    """
    chex.assert_equal_shape([x0, eps])
    chex.assert_rank(x0, 2)
    chex.assert_shape(t, x0.shape[:1])
    size = extract(scale, t, x0).astype(x0.dtype)
    if project:
        return exp_map(x0, size * project_tangent(x0, eps))
    return normalize(exp_map(x0, size * eps))
