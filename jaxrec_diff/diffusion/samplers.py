"""Reverse paths: host tables from a schedule, and the one scan that runs any of them.

Every Gaussian reverse move is x_s = a x0_hat + b x_t + c z + e x0_hat_before, so ancestral,
mean-only, DDIM, DPM-Solver++(2M), respaced and one-step sampling differ only in the rows of a
table. The table is an argument of the compiled scan: another eta or another schedule does not
compile again.

>>> import jax, jax.numpy as jnp, numpy as np
>>> betas = np.linspace(1e-4, 0.02, 50)
>>> steps = ddim_steps(betas, np.arange(9, 50, 10)[::-1])
>>> shrink = lambda xt, t: 0.5 * xt
>>> run(steps, shrink, jnp.ones((2, 3))).shape
(2, 3)
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.diffusion import forward
from jaxrec_diff.ops import normals

Denoiser = Callable[[jax.Array, jax.Array], jax.Array]
"""(x_t [B, ...], t i32[]) -> x0_hat. One step serves the whole batch, so tables are sliced."""

Draw = Callable[[jax.Array], jax.Array]
"""Row i32[] of the path -> z, shaped like x_t."""

Coefficient = Literal["std_small", "std_large", "var_small", "exp_var"]


class Steps(NamedTuple):
    """A reverse path; row i, N in all, maps x_t to `a x0_hat + b x_t + c z + e x0_hat_before`."""

    t: Any  # i32[N], falling
    a: Any  # f32[N], as are b, c and e
    b: Any
    c: Any  # ends in 0
    e: Any  # weight of the estimate of the row before; zero but for multistep solvers


def ddpm_rows(
    betas: np.ndarray,
    ts: np.ndarray | None = None,
    *,
    temperature: float = 1.0,
    noise: Coefficient = "std_small",
) -> Steps:
    """`ddpm_steps` in float64 on the host."""
    ts, bar_t, bar_s, rest_t, rest_s = _levels(betas, ts)
    beta = -np.expm1(_log_levels(betas, ts))  # 1 - abar_t / abar_s
    variance = beta * rest_s / rest_t
    coefficient = {
        "std_small": np.sqrt(variance),
        "std_large": np.sqrt(beta),
        "var_small": variance,
        "exp_var": np.exp(0.5 * variance),
    }[noise]
    return Steps(
        t=ts,
        a=np.sqrt(bar_s) * beta / rest_t,
        b=np.sqrt(1.0 - beta) * rest_s / rest_t,
        c=temperature * np.append(coefficient[:-1], 0.0),
        e=np.zeros(len(ts)),
    )


def ddpm_steps(
    betas: np.ndarray,
    ts: np.ndarray | None = None,
    *,
    temperature: float = 1.0,
    noise: Coefficient = "std_small",
) -> Steps:
    """Posterior q(x_s | x_t, x0_hat) down the grid `ts` (all steps by default).

    Ho et al. 2020 (arXiv:2006.11239), Eq. 7, for any stride; the last row adds no noise.

    Args:
      betas: float64[T] schedule.
      ts: falling step indices.
      temperature: factor on the noise; 0 keeps the means only (DiffRec, DDRM).
      noise: its coefficient: the posterior's deviation (DiffRec, DreamRec), sqrt(beta) (DiffuRec),
        the posterior's *variance* v (as DimeRec's Algorithm 2 is printed), or exp(v / 2), DiQDiff's
        released exp(log v / 2) without the logarithm.
    """
    return _cast(ddpm_rows(betas, ts, temperature=temperature, noise=noise))


def ddim_rows(betas: np.ndarray, ts: np.ndarray | None = None, *, eta: float = 0.0) -> Steps:
    """`ddim_steps` in float64 on the host."""
    ts, bar_t, bar_s, rest_t, rest_s = _levels(betas, ts)
    sd = eta * np.sqrt(rest_s / rest_t * -np.expm1(_log_levels(betas, ts)))
    direction = np.sqrt(np.maximum(rest_s - sd**2, 0.0))
    return Steps(
        t=ts,
        a=np.sqrt(bar_s) - direction * np.sqrt(bar_t / rest_t),
        b=direction / np.sqrt(rest_t),
        c=sd,
        e=np.zeros(len(ts)),
    )


def ddim_steps(betas: np.ndarray, ts: np.ndarray | None = None, *, eta: float = 0.0) -> Steps:
    """DDIM down the grid `ts`; Song et al. 2021 (arXiv:2010.02502), Eq. 12.

    `eta` = 1 on the full grid is `ddpm_steps`. The move to clean data returns x0_hat.
    """
    return _cast(ddim_rows(betas, ts, eta=eta))


def dpmpp_rows(
    betas: np.ndarray, ts: np.ndarray | None = None, *, final: Literal["clean", "index0"] = "clean"
) -> Steps:
    """`dpmpp_steps` in float64 on the host."""
    ts, bar_t, bar_s, rest_t, rest_s = _levels(betas, ts)
    with np.errstate(divide="ignore", invalid="ignore"):
        lam_t, lam_s = (0.5 * np.log(b / r) for b, r in ((bar_t, rest_t), (bar_s, rest_s)))
        h = lam_s - lam_t
        gain = -np.sqrt(bar_s) * np.expm1(-h)
        multistep = np.append(0.0, h[1:] / (2.0 * h[:-1]))
    multistep[-1] = 0.0  # the move to clean data has an infinite h and is of first order
    rows = Steps(
        t=ts, a=gain * (1.0 + multistep), b=np.sqrt(rest_s / rest_t),
        c=np.zeros(len(ts)), e=-gain * multistep,
    )  # fmt: skip
    if final == "clean":
        return rows
    if ts[-1] != 0 or len(ts) < 2:
        raise ValueError(f"final='index0' needs a grid that ends in step 0, got {ts[-1]}")
    return Steps(*(column[:-1] for column in rows))


def dpmpp_steps(
    betas: np.ndarray, ts: np.ndarray | None = None, *, final: Literal["clean", "index0"] = "clean"
) -> Steps:
    """DPM-Solver++(2M), data prediction; Lu et al. 2022 (arXiv:2211.01095), Algorithm 2.

    The first and the last move are of first order, which is DDIM's. `final="index0"` stops at the
    noise level of step 0 instead of at clean data.
    """
    return _cast(dpmpp_rows(betas, ts, final=final))


def one_step(betas: np.ndarray) -> Steps:
    """A single call at the noisiest level, taken as the answer (DiffRec2's efficient inference)."""
    return _cast(Steps(np.array([len(betas) - 1]), np.ones(1), *np.zeros((3, 1))))


def repeat_first(steps: Steps, extra: int) -> Steps:
    """The path with `extra` rows before it that have the coefficients of its first.

    Their step numbers go on rising from it, beyond the schedule: DDRM's released settings walk down
    more steps than they train, and read every table at its last entry meanwhile.
    """
    t = jnp.concatenate([steps.t[0] + jnp.arange(extra, 0, -1, dtype=jnp.int32), steps.t])
    columns = (jnp.concatenate([jnp.repeat(c[:1], extra), c]) for c in steps[1:])
    return Steps(t, *columns)


def run(
    steps: Steps,
    denoise: Denoiser,
    xt: jax.Array,
    draw: Draw | None = None,
    *,
    project: Callable[[jax.Array], jax.Array] = lambda x: x,
    unroll: int = 1,
) -> jax.Array:
    """Walks `xt` down `steps` in one `lax.scan`.

    Args:
      steps: table of the path; a traced argument.
      denoise: (x_t, t) -> x0_hat; guidance is wrapped around it beforehand.
      xt: float[B, ...] start.
      draw: row of the path -> z; None draws nothing and leaves the column `c` unused.
      project: maps each point back to its space, a sphere say.
      unroll: rows a loop turn.

    Returns:
      float[B, ...] end of the path.
    """
    return _scan(steps, denoise, xt, draw, project, unroll, keep=False)[0]


def trajectory(
    steps: Steps,
    denoise: Denoiser,
    xt: jax.Array,
    draw: Draw | None = None,
    *,
    project: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> tuple[jax.Array, jax.Array]:
    """`run` that also returns the point after every row, float[N, B, ...]: N times the memory."""
    return _scan(steps, denoise, xt, draw, project, 1, keep=True)


def draw_whole(key: jax.Array, shape: tuple[int, ...]) -> Draw:
    """Noise for a whole batch under one key; see `normals`."""
    return normals.whole(key, shape)


def draw_rows(key: jax.Array, rows: jax.Array, shape: tuple[int, ...]) -> Draw:
    """Noise keyed by each row's global index, i32[B]: f32[B, *shape]; see `normals`."""
    return normals.by_row(key, rows, shape)


def draw_given(z: jax.Array) -> Draw:
    """Noise given as float[N, B, ...]."""
    return lambda i: z[i]


def seeds(denoise: Denoiser, t: int, starts: jax.Array) -> jax.Array:
    """One call at step `t` from each of K starts: float[K, B, D] -> x0_hat float[K, B, D].

    DiffRec2's efficient inference (one step, many seeds); see `mean_of_points`, `mean_of_logits`
    and `mean_of_probabilities` for what its seeds are reduced to.
    """
    return jax.vmap(lambda start: denoise(start, jnp.int32(t)))(starts)


def mean_of_points(points: jax.Array) -> jax.Array:
    """float[K, B, D] -> float[B, D]"""
    return jnp.mean(points, axis=0)


def mean_of_logits(points: jax.Array, table: jax.Array) -> jax.Array:
    """Mean of the K seeds' scores, float[B, I]; for a linear head the scores of the mean point."""
    return jnp.mean(points @ table.T, axis=0)


def mean_of_probabilities(points: jax.Array, table: jax.Array) -> jax.Array:
    """Mean of the K seeds' softmax over the rows of `table`, float[B, I]."""
    return jnp.mean(jax.nn.softmax(points @ table.T, axis=-1), axis=0)


def running_mean_of_points(
    denoise: Denoiser, t: int, draw: Draw, num_seeds: int, like: jax.Array
) -> jax.Array:
    """`mean_of_points` over `num_seeds` draws, one at a time, when K B D does not fit."""

    def add(total, k):
        return total + denoise(draw(k), jnp.int32(t)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(like), jnp.arange(num_seeds))
    return total / num_seeds


def warm_start(
    tables: forward.Forward, x0: jax.Array, noise_steps: int, eps: jax.Array
) -> jax.Array:
    """Where a chain starts that begins at observed data: after `noise_steps` forward steps.

    DiffRec (arXiv:2304.04971), Algorithm 2: x_T' ~ q(x_T' | x_0), or x_0 itself when T' = 0. The
    released code then walks down all T steps whatever T' is: the two are independent arguments.
    """
    if noise_steps == 0:
        return x0
    return forward.q_sample(tables, x0, jnp.full(x0.shape[:1], noise_steps - 1), eps)


def _levels(betas: np.ndarray, ts: np.ndarray | None):
    """Grid, then abar and 1 - abar at each step and at the step that it moves to."""
    ts = np.arange(len(betas))[::-1] if ts is None else np.asarray(ts)
    if (np.diff(ts) >= 0).any() or ts[0] >= len(betas) or ts[-1] < 0:
        raise ValueError(f"steps must fall from below {len(betas)} to 0 or above, got {ts}")
    bar, rest = forward.alphas_cumprod(betas), forward.one_minus_alphas_cumprod(betas)
    bar_s, rest_s = np.append(bar[ts[1:]], 1.0), np.append(rest[ts[1:]], 0.0)
    return ts, bar[ts], bar_s, rest[ts], rest_s


def _log_levels(betas: np.ndarray, ts: np.ndarray) -> np.ndarray:
    """log(abar_t / abar_s), exact for tiny betas."""
    log_bar = forward.log_alphas_cumprod(betas)
    return log_bar[ts] - np.append(log_bar[ts[1:]], 0.0)


def _cast(rows: Steps) -> Steps:
    return Steps(
        jnp.asarray(rows.t, jnp.int32), *(jnp.asarray(column, jnp.float32) for column in rows[1:])
    )


def _scan(steps, denoise, xt, draw, project, unroll, *, keep):
    # On accelerators a branch costs more than what it spares.
    carries = isinstance(draw, normals.Normals) and jax.default_backend() == "cpu"

    def move(carry, row):
        xt, before, pair = carry
        i, step = row
        x0_hat = denoise(xt, step.t)
        xs = step.a * x0_hat + step.b * xt + step.e * before
        if carries:
            pair, z = draw.following(pair, i)
            xs = xs + step.c * z
        elif draw is not None:
            xs = xs + step.c * draw(i)
        xs = project(xs)
        return (xs, x0_hat, pair), xs if keep else None

    index = jnp.arange(steps.t.shape[0])
    first = (xt, jnp.zeros_like(xt), draw.nothing() if carries else ())
    (last, _, _), path = jax.lax.scan(move, first, (index, steps), unroll=unroll)
    return last, path
