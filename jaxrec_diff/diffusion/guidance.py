"""Guidance: functions from denoiser(s) to denoiser; samplers do not know which is used."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrec_diff.diffusion.forward import Forward, rows
from jaxrec_diff.diffusion.samplers import Denoiser


def classifier_free(conditional: Denoiser, unconditional: Denoiser, weight: float) -> Denoiser:
    """(1 + w) f(x, t, c) - w f(x, t, null); Ho and Salimans 2022 (arXiv:2207.12598), Eq. 6.

    The scale of text-to-image libraries, uncond + g (cond - uncond), is g = 1 + w. A weight of 0
    never calls the unconditional branch.
    """
    if weight == 0:
        return conditional

    def guided(xt, t):
        return (1.0 + weight) * conditional(xt, t) - weight * unconditional(xt, t)

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
        up = jax.grad(lambda x: jnp.sum(log_prob(x)))
        if on == "xt":
            x0_hat, gradient = denoise(xt, t), up(xt)
        else:
            x0_hat, back = jax.vjp(lambda x: denoise(x, t), xt)
            (gradient,) = back(up(x0_hat))
        signal, noise = rows(tables.signal, t, xt), rows(tables.noise, t, xt)
        return x0_hat + scale * noise**2 / signal * gradient

    return guided


def classifier_eps(eps: jax.Array, grad: jax.Array, noise: jax.Array, scale: float) -> jax.Array:
    """The same in terms of noise: eps' = eps - scale sqrt(1 - abar_t) grad."""
    return eps - scale * noise * grad


def classifier_mean(
    mean: jax.Array, grad: jax.Array, variance: jax.Array, scale: float
) -> jax.Array:
    """The same on the mean of an ancestral step: mean' = mean + scale var_t grad."""
    return mean + scale * variance * grad


def drop(keep: jax.Array, cond: jax.Array, null: jax.Array) -> jax.Array:
    """Replaces the conditions of rows that are not kept: bool[B], float[B, ...], null row."""
    return jnp.where(keep.reshape(keep.shape + (1,) * (cond.ndim - keep.ndim)), cond, null)
