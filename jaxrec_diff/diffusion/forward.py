"""The forward process: noise levels, q(x_t | x_0), its posterior, and changes of variable.

x_t = a x_0 + n eps with a = sqrt(abar), n = sqrt(1 - abar);  v = a eps - n x_0;  score = -eps / n.
"""

from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

Kind = Literal["x0", "eps", "v", "score"]


class Forward(NamedTuple):
    """Coefficients of q(x_t | x_0), f32[T] each; row `t` is step `t + 1` of the papers."""

    signal: jax.Array  # sqrt(alphas_cumprod)
    noise: jax.Array  # sqrt(1 - alphas_cumprod)


class Posterior(NamedTuple):
    """Coefficients of q(x_{t-1} | x_t, x_0) = N(c1 x_0 + c2 x_t, var), float64[T] on the host."""

    c1: np.ndarray
    c2: np.ndarray
    var: np.ndarray
    logvar_small: np.ndarray  # log var, with row 0 borrowed from row 1 because var_0 = 0
    logvar_large: np.ndarray  # log [var_1, beta_1, beta_2, ...]


def log_alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """log abar, float64[T]; -inf where a beta is 1."""
    with np.errstate(divide="ignore"):
        return np.cumsum(np.log1p(-betas))


def alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """abar, float64[T]."""
    return np.exp(log_alphas_cumprod(betas))


def one_minus_alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """1 - abar without the cancellation that tiny betas suffer, float64[T]."""
    return -np.expm1(log_alphas_cumprod(betas))


def snr(betas: np.ndarray) -> np.ndarray:
    """abar / (1 - abar), float64[T]."""
    return alphas_cumprod(betas) / one_minus_alphas_cumprod(betas)


def logsnr(betas: np.ndarray) -> np.ndarray:
    """log snr, float64[T]."""
    return log_alphas_cumprod(betas) - np.log(one_minus_alphas_cumprod(betas))


def posterior(betas: np.ndarray) -> Posterior:
    """Ho et al. 2020 (arXiv:2006.11239), Eq. 7.

    c1 = sqrt(abar_{t-1}) beta / (1 - abar_t),  c2 = sqrt(alpha_t) (1 - abar_{t-1}) / (1 - abar_t),
    var = beta (1 - abar_{t-1}) / (1 - abar_t).
    """
    rest = one_minus_alphas_cumprod(betas)
    bar_before = np.append(1.0, alphas_cumprod(betas)[:-1])
    rest_before = np.append(0.0, rest[:-1])
    var = betas * rest_before / rest
    with np.errstate(divide="ignore"):
        small = np.log(np.append(var[1:2] if len(var) > 1 else var, var[1:]))
        large = np.log(np.append(var[1:2] if len(var) > 1 else var, betas[1:]))
    return Posterior(
        c1=np.sqrt(bar_before) * betas / rest,
        c2=np.sqrt(1.0 - betas) * rest_before / rest,
        var=var,
        logvar_small=small,
        logvar_large=large,
    )


def tables(betas: np.ndarray) -> Forward:
    """Device tables of a schedule, computed in float64 and cast once."""
    levels = alphas_cumprod(betas), one_minus_alphas_cumprod(betas)
    return Forward(*(jnp.asarray(np.sqrt(level), jnp.float32) for level in levels))


def rows(table: jax.Array, t: jax.Array, like: jax.Array) -> jax.Array:
    """`table[t]`, for one step or one a row, ready to multiply `like`."""
    picked = table[t]
    return (
        picked.reshape(picked.shape + (1,) * (like.ndim - picked.ndim)) if picked.ndim else picked
    )


def q_sample(
    forward: Forward,
    x0: jax.Array,
    t: jax.Array,
    eps: jax.Array,
    *,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Noises clean data to step `t` in one move.

        x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps

    Ho et al. 2020 (arXiv:2006.11239), Eq. 4; DiffRec (arXiv:2304.04971), Eq. 3.

    Args:
      forward: tables of the noise schedule, T rows.
      x0: float[B, ...] clean data.
      t: i32[B] step of each row, in [0, T).
      eps: float[B, ...] standard normal noise, shaped like `x0`.
      mask: broadcastable to `x0`; places with mask 0 stay clean.

    Returns:
      float[B, ...] noisy data.

    >>> import numpy as np, jax.numpy as jnp
    >>> table = tables(np.linspace(1e-4, 0.02, 10))
    >>> x = q_sample(table, jnp.array([[1., 2.]]), jnp.array([4]), jnp.array([[.5, -1.]]))
    >>> [f"{value:.4f}" for value in x[0].tolist()]
    ['1.0636', '1.8277']
    """
    chex.assert_equal_shape([x0, eps])
    chex.assert_shape(t, x0.shape[:1])
    chex.assert_type([x0, t, eps], [float, int, float])
    xt = rows(forward.signal, t, x0) * x0 + rows(forward.noise, t, x0) * eps
    return xt if mask is None else jnp.where(mask != 0, xt, x0)


def joint_step(betas: np.ndarray, s: int, t: int) -> tuple[float, float]:
    """(scale, variance) of q(x_t | x_s) for s < t; s = -1 is clean data."""
    log_bar = np.append(0.0, log_alphas_cumprod(betas))
    gap = log_bar[t + 1] - log_bar[s + 1]
    return float(np.exp(gap / 2)), float(-np.expm1(gap))


def x0_from_eps(eps: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """(x_t - n eps) / a"""
    return (xt - noise * eps) / signal


def eps_from_x0(x0: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """(x_t - a x_0) / n"""
    return (xt - signal * x0) / noise


def x0_from_v(v: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """a x_t - n v"""
    return signal * xt - noise * v


def eps_from_v(v: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """n x_t + a v"""
    return noise * xt + signal * v


def v_from_x0_eps(x0: jax.Array, eps: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """a eps - n x_0"""
    return signal * eps - noise * x0


def x0_from_score(
    score: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array
) -> jax.Array:
    """(x_t + n^2 score) / a"""
    return (xt + noise**2 * score) / signal


def eps_from_score(score: jax.Array, noise: jax.Array) -> jax.Array:
    """-n score"""
    return -noise * score


def to_x0_eps(
    out: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array, kind: Kind
) -> tuple[jax.Array, jax.Array]:
    """(x_0, eps) from whatever a network predicts; Salimans and Ho 2022 (arXiv:2202.00512)."""
    if kind == "x0":
        return out, eps_from_x0(out, xt, signal, noise)
    if kind == "eps":
        return x0_from_eps(out, xt, signal, noise), out
    if kind == "v":
        return x0_from_v(out, xt, signal, noise), eps_from_v(out, xt, signal, noise)
    return x0_from_score(out, xt, signal, noise), eps_from_score(out, noise)
