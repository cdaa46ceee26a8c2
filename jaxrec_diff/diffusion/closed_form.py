"""The exact law of a reverse chain whose denoiser is affine.

With x0_hat = x W + u + s_i (row vectors; u is the user's, s_i the step's) every move of the chain
x <- a_i x0_hat + b_i x + c_i z is affine with Gaussian noise, so

    x_0 = u G + g + z C^T,   z ~ N(0, I),

with a G, g and C that all users share: one product replaces N steps (DreamRec's published denoiser
is of this kind).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.diffusion.process import Steps


class Law(NamedTuple):
    """x_0 = u gain + offset + z factor."""

    gain: jax.Array  # float[D, D]
    offset: jax.Array  # float[D]
    factor: jax.Array  # float[D, D]; factor^T factor is the covariance


def closed_form(steps: Steps, weight: jax.Array, shifts: jax.Array) -> Law:
    """Composes a path with single-step rows (e = 0) and an affine denoiser, from x_T ~ N(0, I).

    The covariance is factored one row before the end and then multiplied with the last row's map,
    which may be near singular; through its eigenvalues, not by Cholesky, because a path without
    noise may leave it singular too.

    Args:
      steps: table of N rows; its noise is as the column c says.
      weight: float[D, D], W.
      shifts: float[N, D], s_i of each row of the path.

    Returns:
      float arrays of the dtype of `weight`, float32 or float64: an eigendecomposition needs them.
    """
    chex.assert_shape(weight, (shifts.shape[-1],) * 2)
    chex.assert_shape(shifts, (*steps.t.shape, None))
    steps = Steps(steps.t, *(column.astype(weight.dtype) for column in steps[1:]))
    eye = jnp.eye(weight.shape[0], dtype=weight.dtype)

    def move(carry, row):
        gain, offset, cov = carry
        step, shift = row
        forward = step.a * weight + step.b * eye
        gain = gain @ forward + step.a * eye
        offset = offset @ forward + step.a * shift
        cov = forward.T @ cov @ forward + step.c**2 * eye
        return (gain, offset, cov), None

    start = (jnp.zeros_like(eye), jnp.zeros_like(shifts[0]), eye)
    body = jax.tree.map(lambda leaf: leaf[:-1], (steps, shifts))
    (gain, offset, cov), _ = jax.lax.scan(move, start, body)
    last = jax.tree.map(lambda leaf: leaf[-1], steps)
    forward = last.a * weight + last.b * eye
    values, vectors = jnp.linalg.eigh((cov + cov.T) / 2)
    factor = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))).T @ forward
    return Law(gain @ forward + last.a * eye, offset @ forward + last.a * shifts[-1], factor)


def composes(steps: Steps) -> bool:
    """Whether no row looks back at an estimate before it, so that a path is one affine map.

    Args:
      steps: a table that is no argument of a compiled function.
    """
    return not np.asarray(steps.e).any()


def transport(steps: Steps, weight: jax.Array, shifts: jax.Array) -> Law:
    """The same path as a function of where it starts, if it adds no noise (DDIM's, c = 0).

        x_0 = u G + g + x_T P,  P = A_0 A_1 ... A_N, the maps A_i = a_i W + b_i I from the first on

    Args:
      steps: table of N single-step rows; its column c is not looked at.
      weight: float[D, D], W.
      shifts: float[N, D], s_i of each row of the path.

    Returns:
      G, g and P as `factor`, so that `apply` takes x_T in the place of normals: x_T itself, not
      draws of its law. Products only, of any float type.
    """
    chex.assert_shape(weight, (shifts.shape[-1],) * 2)
    chex.assert_shape(shifts, (*steps.t.shape, None))
    steps = Steps(steps.t, *(column.astype(weight.dtype) for column in steps[1:]))
    eye = jnp.eye(weight.shape[0], dtype=weight.dtype)

    def move(law, row):
        step, shift = row
        forward = step.a * weight + step.b * eye
        gain = law.gain @ forward + step.a * eye
        return Law(gain, law.offset @ forward + step.a * shift, law.factor @ forward), None

    start = Law(jnp.zeros_like(eye), jnp.zeros_like(shifts[0]), eye)
    return jax.lax.scan(move, start, (steps, shifts))[0]


def apply(law: Law, u: jax.Array, z: jax.Array) -> jax.Array:
    """Draws of x_0: float[B, D] user terms and standard normals -> float[B, D].

    `z` = 0 gives the means. For a law of `transport` z is x_T.
    """
    chex.assert_equal_shape([u, z])
    return u @ law.gain + law.offset + z @ law.factor
