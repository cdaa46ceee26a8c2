"""The forward process: noise levels, q(x_t | x_0), its posterior, and changes of variable.

x_t = a x_0 + n eps;  v = a eps - n x_0;  score = -eps / n.  A schedule of betas has a = sqrt(abar)
and n = sqrt(1 - abar).
"""

from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.ops import rng

Kind = Literal["x0", "eps", "v", "score"]


class Levels(NamedTuple):
    """A noising as host tables, float64[T] each: x_t = signal x_0 + noise eps; row t is step t + 1.

    Every reverse path is built from these two, so a process need not have betas: a flow has signal
    1 - t and noise t. Noise is positive at every step; clean data is where the last move ends.
    """

    signal: np.ndarray
    noise: np.ndarray


class Forward(NamedTuple):
    """`Levels` on the device, float[T] each; row `t` is step `t + 1` of the papers."""

    signal: jax.Array  # sqrt(alphas_cumprod)
    noise: jax.Array  # sqrt(1 - alphas_cumprod)


class Posterior(NamedTuple):
    """Coefficients of q(x_s | x_t, x_0) = N(c1 x_0 + c2 x_t, var), float64[N] on the host."""

    c1: np.ndarray
    c2: np.ndarray
    var: np.ndarray
    step_var: np.ndarray  # variance of q(x_t | x_s); beta_t where s is t - 1


def log_alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """log abar, float64[T]; -inf where a beta is 1."""
    chex.assert_rank(betas, 1)
    with np.errstate(divide="ignore"):
        return np.cumsum(np.log1p(-betas))


def alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """abar, float64[T]."""
    return np.exp(log_alphas_cumprod(betas))


def one_minus_alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """1 - abar without the cancellation that tiny betas suffer, float64[T]."""
    return -np.expm1(log_alphas_cumprod(betas))


def levels(betas: np.ndarray) -> Levels:
    """sqrt(abar) and sqrt(1 - abar) of a schedule float64[T], exact for tiny betas too.

    >>> import numpy as np
    >>> [f"{noise:.6e}" for noise in levels(np.array([1e-14, 3e-14])).noise]
    ['1.000000e-07', '2.000000e-07']
    """
    return Levels(np.sqrt(alphas_cumprod(betas)), np.sqrt(one_minus_alphas_cumprod(betas)))


def straight(num_steps: int, shift: float = 1.0) -> Levels:
    """The levels of a flow, signal 1 - t and noise t, at T times of which the last is noise alone.

    Args:
      num_steps: T.
      shift: m, which takes the even grid k / T to m t / (1 + (m - 1) t); above 1 times are closer
        to one another near noise.

    >>> straight(4).noise.tolist(), straight(4, shift=3.0).noise.tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.5, 0.75, 0.9, 1.0])
    """
    even = np.arange(1, num_steps + 1) / num_steps
    noise = shift * even / (1.0 + (shift - 1.0) * even)
    return Levels(1.0 - noise, noise)


def snr(levels: Levels) -> np.ndarray:
    """(signal / noise)^2, float64[T]; abar / (1 - abar)."""
    chex.assert_equal_shape(levels)
    return (levels.signal / levels.noise) ** 2


def logsnr(levels: Levels) -> np.ndarray:
    """log snr, float64[T]; -inf where there is no signal."""
    chex.assert_equal_shape(levels)
    with np.errstate(divide="ignore"):
        return 2.0 * np.log(levels.signal / levels.noise)


def posterior(levels: Levels, before: Levels | None = None) -> Posterior:
    """Ho et al. 2020 (arXiv:2006.11239), Eq. 7, from any level t to any cleaner one s.

        c1 = signal_s (1 - r),  c2 = (signal_t / signal_s) (noise_s / noise_t)^2,
        var = noise_s^2 (1 - r),  r = snr_t / snr_s

    With betas, c1 = sqrt(abar_{t-1}) beta / (1 - abar_t) and var = beta (1 - abar_{t-1}) /
    (1 - abar_t). 1 - r is taken from log r, which keeps its digits where levels are close.

    Args:
      levels: N levels t.
      before: the N levels s that they move to; by default each the one before it, and clean data
        before the first.
    """
    if before is None:
        before = Levels(np.append(1.0, levels.signal[:-1]), np.append(0.0, levels.noise[:-1]))
    chex.assert_equal_shape([*levels, *before])
    chex.assert_rank(levels.signal, 1)
    signal, noise = levels.signal / before.signal, before.noise / levels.noise
    with np.errstate(divide="ignore"):  # no signal at t, or no noise at s: r is 0
        rest = -np.expm1(2.0 * (np.log(signal) + np.log(noise)))
    return Posterior(
        c1=before.signal * rest,
        c2=signal * noise**2,
        var=before.noise**2 * rest,
        step_var=levels.noise**2 * rest,
    )


def tables(levels: Levels) -> Forward:
    """Device tables of a noising, rounded once from float64 to JAX's own float."""
    chex.assert_equal_shape(levels)
    chex.assert_rank(levels.signal, 1)
    return Forward(*(jnp.asarray(level) for level in levels))


def mix(x0: jax.Array, eps: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """signal x_0 + noise eps at levels of any time, one a row.

    Args:
      x0: float[B, ...] clean data.
      eps: float[B, ...] noise.
      signal: float[B].
      noise: float[B].

    Returns:
      float[B, ...] noisy data, of the type of `x0`.
    """
    chex.assert_equal_shape([x0, eps])
    chex.assert_equal_shape([signal, noise])
    chex.assert_shape(signal, x0.shape[:1])
    by_row = (-1, *(1,) * (x0.ndim - 1))
    return _alike(signal.reshape(by_row) * x0 + noise.reshape(by_row) * eps, x0)


def at_step(
    tables: Forward, key: jax.Array, row_id: jax.Array, x0: jax.Array, t: jax.Array
) -> jax.Array:
    """x_t of a whole batch at one step, with the noise that its key and rows give.

    Args:
      tables: of the noise schedule, T rows.
      key: of the noise; each step has its own.
      row_id: i32[B], which keys a row's noise.
      x0: float[B, ...] clean data.
      t: i32[], in [0, T).

    Returns:
      float[B, ...]
    """
    chex.assert_rank(t, 0)
    eps = rng.normal(jax.random.fold_in(key, t), row_id, x0.shape[1:]).astype(x0.dtype)
    return q_sample(tables, x0, jnp.broadcast_to(t, x0.shape[:1]), eps)


def extract(table: jax.Array, t: jax.Array, like: jax.Array) -> jax.Array:
    """`table[t]`, for one step or one a row, ready to multiply `like`.

    Args:
      table: float[T].
      t: i32[] or i32[B].
      like: float[B, ...].

    Returns:
      float[] or float[B, 1, ...].
    """
    chex.assert_rank(table, 1)
    if jnp.ndim(t):
        chex.assert_shape(t, like.shape[:1])
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
      float[B, ...] noisy data, of the type of `x0`.

    >>> import numpy as np, jax.numpy as jnp
    >>> table = tables(levels(np.linspace(1e-4, 0.02, 10)))
    >>> x = q_sample(table, jnp.array([[1., 2.]]), jnp.array([4]), jnp.array([[.5, -1.]]))
    >>> [f"{value:.4f}" for value in x[0].tolist()]
    ['1.0636', '1.8277']
    """
    chex.assert_equal_shape([x0, eps])
    chex.assert_shape(t, x0.shape[:1])
    chex.assert_type([x0, t, eps], [float, int, float])
    xt = extract(forward.signal, t, x0) * x0 + extract(forward.noise, t, x0) * eps
    xt = _alike(xt, x0)
    return xt if mask is None else _alike(jnp.where(mask != 0, xt, x0), x0)


def x0_from_eps(eps: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """(x_t - n eps) / a; float[B, ...] with levels that broadcast to it, as all of these."""
    chex.assert_equal_shape([eps, xt])
    return _alike((xt - noise * eps) / signal, xt)


def eps_from_x0(x0: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """(x_t - a x_0) / n"""
    chex.assert_equal_shape([x0, xt])
    return _alike((xt - signal * x0) / noise, xt)


def x0_from_v(v: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """a x_t - n v"""
    chex.assert_equal_shape([v, xt])
    return _alike(signal * xt - noise * v, xt)


def eps_from_v(v: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """n x_t + a v"""
    chex.assert_equal_shape([v, xt])
    return _alike(noise * xt + signal * v, xt)


def v_from_x0_eps(x0: jax.Array, eps: jax.Array, signal: jax.Array, noise: jax.Array) -> jax.Array:
    """a eps - n x_0"""
    chex.assert_equal_shape([x0, eps])
    return _alike(signal * eps - noise * x0, x0)


def x0_from_score(
    score: jax.Array, xt: jax.Array, signal: jax.Array, noise: jax.Array
) -> jax.Array:
    """(x_t + n^2 score) / a"""
    chex.assert_equal_shape([score, xt])
    return _alike((xt + noise**2 * score) / signal, xt)


def eps_from_score(score: jax.Array, noise: jax.Array) -> jax.Array:
    """-n score"""
    return _alike(-noise * score, score)


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


def _alike(value: jax.Array, x: jax.Array) -> jax.Array:
    """`value` in the type of `x`, whose shape it must have: levels may not widen it."""
    chex.assert_equal_shape([value, x])
    return value.astype(x.dtype)
