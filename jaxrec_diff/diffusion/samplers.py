"""Reverse paths: host tables from noise levels, and the noise that is drawn along them.

Ancestral, mean-only, DDIM, Heun's, DPM-Solver++(2M), respaced and one-step sampling differ only in
the rows of a table (`Steps`), which is made in float64 from `forward.Levels` and nothing else:
betas are one way to levels, a flow's signal 1 - t and noise t (`forward.straight`) are another, of
which the DDIM row is the Euler step. `PATHS` names them all. `run` and `trajectory` of
`diffusion.process` walk them.

>>> import jax, jax.numpy as jnp, numpy as np
>>> levels = forward.levels(np.linspace(1e-4, 0.02, 50))
>>> steps = ddim_steps(levels, np.arange(9, 50, 10)[::-1])
>>> shrink = lambda xt, t: 0.5 * xt
>>> run(Chain(steps, shrink, start=jnp.ones((2, 3)))).shape
(2, 3)
"""

from collections.abc import Callable
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.diffusion import forward
from jaxrec_diff.diffusion.forward import Levels
from jaxrec_diff.diffusion.process import Chain as Chain
from jaxrec_diff.diffusion.process import Denoiser as Denoiser
from jaxrec_diff.diffusion.process import Draw as Draw
from jaxrec_diff.diffusion.process import Steps as Steps
from jaxrec_diff.diffusion.process import run as run
from jaxrec_diff.diffusion.process import trajectory as trajectory
from jaxrec_diff.ops import normals

Coefficient = Literal["std_small", "std_large", "var_small", "exp_var"]


def ddpm_rows(
    levels: Levels,
    ts: np.ndarray | None = None,
    *,
    temperature: float = 1.0,
    noise: Coefficient = "std_small",
) -> Steps:
    """`ddpm_steps` in float64 on the host."""
    ts, here, there = _moves(levels, ts)
    law = forward.posterior(here, there)
    coefficient = {
        "std_small": np.sqrt(law.var),
        "std_large": np.sqrt(law.step_var),
        "var_small": law.var,
        "exp_var": np.exp(0.5 * law.var),
    }[noise]
    return Steps(
        t=ts,
        a=law.c1,
        b=law.c2,
        c=temperature * np.append(coefficient[:-1], 0.0),
        e=np.zeros(len(ts)),
    )


def ddpm_steps(
    levels: Levels,
    ts: np.ndarray | None = None,
    *,
    temperature: float = 1.0,
    noise: Coefficient = "std_small",
) -> Steps:
    """Posterior q(x_s | x_t, x0_hat) down the grid `ts` (all steps by default).

    Ho et al. 2020 (arXiv:2006.11239), Eq. 7, for any stride; the last row adds no noise.

    Args:
      levels: T noise levels.
      ts: falling step indices.
      temperature: factor on the noise; 0 keeps the means only (DiffRec, DDRM).
      noise: its coefficient: the posterior's deviation (DiffRec, DreamRec), sqrt(beta) (DiffuRec),
        the posterior's *variance* v (as DimeRec's Algorithm 2 is printed), or exp(v / 2), DiQDiff's
        released exp(log v / 2) without the logarithm.

    Raises:
      ValueError: on a grid that does not fall, or a step without noise.
    """
    return cast(ddpm_rows(levels, ts, temperature=temperature, noise=noise))


def ddim_rows(levels: Levels, ts: np.ndarray | None = None, *, eta: float = 0.0) -> Steps:
    """`ddim_steps` in float64 on the host."""
    ts, here, there = _moves(levels, ts)
    sd = eta * np.sqrt(forward.posterior(here, there).var)
    b = np.sqrt(np.maximum(there.noise**2 - sd**2, 0.0)) / here.noise
    return Steps(
        t=ts,
        a=there.signal - b * here.signal,
        b=b,
        c=sd,
        e=np.zeros(len(ts)),
    )


def ddim_steps(levels: Levels, ts: np.ndarray | None = None, *, eta: float = 0.0) -> Steps:
    """DDIM down the grid `ts`; Song et al. 2021 (arXiv:2010.02502), Eq. 12.

    `eta` = 1 on the full grid is `ddpm_steps`. The move to clean data returns x0_hat. For a flow,
    signal 1 - t and noise t, a move from t to s is Euler's, a = 1 - s / t and b = s / t.
    """
    return cast(ddim_rows(levels, ts, eta=eta))


def heun_rows(levels: Levels, ts: np.ndarray | None = None) -> Steps:
    """`heun_steps` in float64 on the host."""
    ts, here, there = _moves(levels, ts)
    b = there.noise / here.noise
    moves = np.stack([ts, there.signal - b * here.signal, b, 0.0 * b, 0.0 * b], axis=1)
    gain = 0.5 * (there.signal[:-1] / b[:-1] - here.signal[:-1])
    again = np.stack([ts[1:], gain, 0.0 * gain + 1.0, 0.0 * gain, -gain], axis=1)
    # a correction behind every move but the last
    t, *columns = np.insert(moves, np.arange(1, len(ts)), again, axis=0).T
    return Steps(t.astype(int), *columns)


def heun_steps(levels: Levels, ts: np.ndarray | None = None) -> Steps:
    """Heun's second-order steps down the grid `ts`: 2 N - 1 rows, each a call of the network.

        x' = a x0_hat + b x_t, DDIM's,  x_s = x' + g (x0_hat' - x0_hat),
        g = (signal_s noise_t / noise_s - signal_t) / 2

    where x0_hat' is the estimate at x' and s. It is the mean of the slopes at both ends of the move
    as a function of the noise level, along the chord between the two levels; for a flow, signal
    1 - t and noise t, that is the Heun step of its ODE, g = (t - s) / (2 s). The last move, to
    clean data, is DDIM's.
    """
    return cast(heun_rows(levels, ts))


def fixed_noise_rows(levels: Levels, ts: np.ndarray | None = None) -> Steps:
    """`fixed_noise_steps` in float64 on the host."""
    ts, here, there = _moves(levels, ts)
    one, zero = np.ones(len(ts)), np.zeros(len(ts))
    return Steps(ts, there.signal - here.signal, one, there.noise - here.noise, zero)


def fixed_noise_steps(levels: Levels, ts: np.ndarray | None = None) -> Steps:
    """Moves whose noise stays that of the start: z is x_T in every row, the last one too.

        x_s = x_t + (signal_s - signal_t) x0_hat + (noise_s - noise_t) x_T

    FMRec's released loop (arXiv:2505.16298): from pure noise it ends in the mean of its estimates,
    weighted by the signal that they add, and is a solver of no ODE: on estimates that change along
    the way its error stays, however many steps there are.
    """
    return cast(fixed_noise_rows(levels, ts))


def dpmpp_rows(
    levels: Levels, ts: np.ndarray | None = None, *, final: Literal["clean", "index0"] = "clean"
) -> Steps:
    """`dpmpp_steps` in float64 on the host."""
    ts, here, there = _moves(levels, ts)
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.log(there.signal / there.noise) - np.log(here.signal / here.noise)
        gain = -there.signal * np.expm1(-h)
        multistep = np.append(0.0, h[1:] / (2.0 * h[:-1]))
    multistep[-1] = 0.0  # the move to clean data has an infinite h and is of first order
    rows = Steps(
        t=ts, a=gain * (1.0 + multistep), b=there.noise / here.noise,
        c=np.zeros(len(ts)), e=-gain * multistep,
    )  # fmt: skip
    if final == "clean":
        return rows
    if ts[-1] != 0 or len(ts) < 2:
        raise ValueError(f"final='index0' needs a grid that ends in step 0, got {ts[-1]}")
    return Steps(*(column[:-1] for column in rows))


def dpmpp_steps(
    levels: Levels, ts: np.ndarray | None = None, *, final: Literal["clean", "index0"] = "clean"
) -> Steps:
    """DPM-Solver++(2M), data prediction; Lu et al. 2022 (arXiv:2211.01095), Algorithm 2.

    The first and the last move are of first order, which is DDIM's. `final="index0"` stops at the
    noise level of step 0 instead of at clean data.
    """
    return cast(dpmpp_rows(levels, ts, final=final))


def one_step_rows(levels: Levels) -> Steps:
    """`one_step` in float64 on the host."""
    return Steps(np.array([len(levels.noise) - 1]), np.ones(1), *np.zeros((3, 1)))


def one_step(levels: Levels) -> Steps:
    """A single call at the noisiest level, taken as the answer (DiffRec2's efficient inference)."""
    return cast(one_step_rows(levels))


def _ddpm(levels: Levels, ts: np.ndarray | None, settings: Any) -> Steps:
    return ddpm_rows(levels, ts, temperature=settings.temperature, noise=settings.noise)


PATHS: dict[str, Callable[[Levels, np.ndarray | None, Any], Steps]] = {
    "ddpm": _ddpm,
    "mean": lambda levels, ts, settings: ddpm_rows(levels, ts, temperature=0.0),
    "ddim": lambda levels, ts, settings: ddim_rows(levels, ts, eta=settings.eta),
    "heun": lambda levels, ts, settings: heun_rows(levels, ts),
    "dpmpp": lambda levels, ts, settings: dpmpp_rows(levels, ts),
    "fixed_noise": lambda levels, ts, settings: fixed_noise_rows(levels, ts),
    "one_step": lambda levels, ts, settings: one_step_rows(levels),
    "closed_form": _ddpm,  # the law of that path's end
}
"""Every sampler by the word that settings name it with: levels, grid, settings -> host rows. The
settings are `SamplerConfig`'s fields `eta`, `temperature` and `noise`."""


def cast(rows: Steps) -> Steps:
    """Host rows on the device, rounded once from float64 to JAX's own float."""
    chex.assert_rank(rows, 1)
    return Steps(jnp.asarray(rows.t, jnp.int32), *(jnp.asarray(column) for column in rows[1:]))


def repeat_first(steps: Steps, extra: int) -> Steps:
    """The path with `extra` rows before it that have the coefficients of its first.

    Their step numbers go on rising from it, beyond the schedule: DDRM's released settings walk down
    more steps than they train, and read every table at its last entry meanwhile.
    """
    chex.assert_rank(steps, 1)
    t = jnp.concatenate([steps.t[0] + jnp.arange(extra, 0, -1, dtype=jnp.int32), steps.t])
    columns = (jnp.concatenate([jnp.repeat(c[:1], extra), c]) for c in steps[1:])
    return Steps(t, *columns)


def draw_whole(key: jax.Array, shape: tuple[int, ...]) -> Draw:
    """Noise for a whole batch under one key; see `normals`."""
    return normals.whole(key, shape)


def draw_rows(key: jax.Array, row_id: jax.Array, shape: tuple[int, ...]) -> Draw:
    """Noise keyed by place in the global batch, `row_id` i32[B]: f32[B, *shape]; see `normals`."""
    return normals.by_row(key, row_id, shape)


def draw_given(z: jax.Array) -> Draw:
    """Noise given as float[N, B, ...]."""
    return lambda i: z[i]


def warm_start(
    tables: forward.Forward, x0: jax.Array, noise_steps: int, eps: jax.Array
) -> jax.Array:
    """Where a chain starts that begins at observed data: after `noise_steps` forward steps.

    DiffRec (arXiv:2304.04971), Algorithm 2: x_T' ~ q(x_T' | x_0), or x_0 itself when T' = 0. The
    released code then walks down all T steps whatever T' is: the two are independent arguments.
    """
    chex.assert_equal_shape([x0, eps])
    if noise_steps == 0:
        return x0
    return forward.q_sample(tables, x0, jnp.full(x0.shape[:1], noise_steps - 1), eps)


def _moves(levels: Levels, ts: np.ndarray | None) -> tuple[np.ndarray, Levels, Levels]:
    """Grid, then the levels of each step and of what it moves to."""
    chex.assert_rank(levels, 1)
    chex.assert_equal_shape(levels)
    total = len(levels.noise)
    ts = np.arange(total)[::-1] if ts is None else np.asarray(ts)
    if (np.diff(ts) >= 0).any() or ts[0] >= total or ts[-1] < 0:
        raise ValueError(f"steps must fall from below {total} to 0 or above, got {ts}")
    if not (levels.noise[ts] > 0).all():
        raise ValueError(
            f"every step must have noise, but step {ts[np.argmin(levels.noise[ts])]} has none; "
            "leave it out: the last move ends in clean data by itself"
        )
    here = Levels(levels.signal[ts], levels.noise[ts])
    return ts, here, Levels(np.append(here.signal[1:], 1.0), np.append(here.noise[1:], 0.0))
