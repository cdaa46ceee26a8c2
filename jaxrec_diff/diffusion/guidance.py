"""Guidance: functions from denoiser(s) to denoiser; samplers do not know which is used."""

from collections.abc import Callable
from typing import Literal

import chex
import jax
import jax.numpy as jnp

from jaxrec_diff.diffusion.forward import Forward, extract
from jaxrec_diff.diffusion.process import Denoiser


def classifier_free(conditional: Denoiser, unconditional: Denoiser, weight: float) -> Denoiser:
    """(1 + w) f(x, t, c) - w f(x, t, null); Ho and Salimans 2022 (arXiv:2207.12598), Eq. 6.

    The scale of text-to-image libraries, uncond + g (cond - uncond), is g = 1 + w. A weight of 0
    never calls the unconditional branch.
    """
    if weight == 0:
        return conditional

    def guided(xt, t):
        kept, dropped = conditional(xt, t), unconditional(xt, t)
        chex.assert_equal_shape([kept, dropped])
        return (1.0 + weight) * kept - weight * dropped

    return guided


def classifier(
    denoise: Denoiser,
    log_prob: Callable[[jax.Array], jax.Array],
    tables: Forward,
    scale: float,
    *,
    on: Literal["xt", "x0_hat"] = "xt",
) -> Denoiser:
    """Moves the estimate up the gradient of log p(y | x).

        x0' = x0 + scale (1 - abar_t) / sqrt(abar_t) grad log p

    Dhariwal and Nichol 2021 (arXiv:2105.05233), Algorithm 2, written for x_0.

    Args:
      denoise: (x_t, t) -> x0_hat.
      log_prob: float[B, ...] -> float[B], each row's from that row alone.
      tables: the forward process.
      scale: strength; positive raises log p.
      on: take the gradient at x_t, or through x0_hat(x_t) ("universal" guidance).
    """

    def guided(xt, t):
        chex.assert_rank(xt, {2, 3})
        up = jax.grad(lambda x: jnp.sum(log_prob(x)))
        if on == "xt":
            x0_hat, gradient = denoise(xt, t), up(xt)
        else:
            x0_hat, back = jax.vjp(lambda x: denoise(x, t), xt)
            (gradient,) = back(up(x0_hat))
        chex.assert_equal_shape([x0_hat, gradient, xt])
        signal, noise = extract(tables.signal, t, xt), extract(tables.noise, t, xt)
        return (x0_hat + scale * noise**2 / signal * gradient).astype(x0_hat.dtype)

    return guided


def drop(keep: jax.Array, cond: jax.Array, null: jax.Array) -> jax.Array:
    """Replaces the conditions of rows that are not kept.

    Args:
      keep: bool[B].
      cond: float[B, ...].
      null: float[...] or float[1, ...], what nobody is told.

    Returns:
      float[B, ...]
    """
    chex.assert_shape(keep, cond.shape[:1])
    chex.assert_is_broadcastable(null.shape, cond.shape)
    return jnp.where(keep.reshape(keep.shape + (1,) * (cond.ndim - keep.ndim)), cond, null)
