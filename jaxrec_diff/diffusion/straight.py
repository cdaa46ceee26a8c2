"""The path that flows share: x_t = (1 - t) x_0 + t eps, t = 0 clean and t = 1 noise.

Training draws t from the whole line by a law; the reverse path visits a grid of it, whose levels
are `forward.straight` and whose rows are those of any other process (`samplers.PATHS`). Pure noise
is shown to no network in training: it is told (1 - s) t where the level is t, s = 0.001, and
training stays below 1 - s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import validation
from jaxrec_diff.diffusion import forward, samplers, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Draw, Steps

TimeLaw = Literal["mode", "uniform", "cosmap", "logit_normal"]

_LAWS: dict[str, Callable[[jax.Array, "PathConfig"], jax.Array]] = {
    "mode": lambda u, config: timesteps.mode(u, config.time_scale),
    "uniform": lambda u, config: u,
    "cosmap": lambda u, config: timesteps.cosmap(u),
    "logit_normal": lambda u, c: timesteps.logit_normal(u, c.time_mean, c.time_scale),
}
_MOST_MODE = 2.0 / (np.pi - 2.0)  # beyond it the law runs backwards


@dataclass(frozen=True, kw_only=True)
class PathConfig:
    """How a flow draws its times, and at which it samples."""

    time_law: TimeLaw = "mode"
    """Law of t in training. mode: the middle more often (released), or the ends where time_scale is
    negative; uniform; cosmap; logit_normal. Esser et al. 2024 (arXiv:2403.03206)."""
    time_scale: float = 1.0
    """s of mode, or the deviation of logit_normal."""
    time_mean: float = -1.0
    """Mean of logit_normal, in terms of noise: below 0 it favours the clean end."""
    start: float = 1e-3
    """s: the network is told (1 - s) t, and training stays below 1 - s."""
    shift: float = 1.0
    """m: the sampler's times are m t / (1 + (m - 1) t) of an even grid; above 1 they are closer to
    one another near noise."""

    def __post_init__(self) -> None:
        if self.time_law == "mode":
            validation.within("model.path.time-scale", self.time_scale, -1, _MOST_MODE)
        validation.at_least("model.path.time-scale", self.time_scale, -1)
        validation.finite("model.path.time-mean", self.time_mean)
        validation.within("model.path.start", self.start, 0, 0.5)
        validation.above("model.path.shift", self.shift, 0, 1.0)


class Path(NamedTuple):
    """A flow as tables."""

    config: PathConfig
    tables: Forward  # levels of the T times of the grid
    times: jax.Array  # f32[T], what the network is told at each
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows weigh noise
    keeps_noise: bool  # whether that is the noise of the start


def make(config: PathConfig, num_steps: int, sampler: SamplerConfig) -> Path:
    """Tables of a flow and of its reverse path, built in float64.

    Args:
      config: settings of the path.
      num_steps: T, times of the grid.
      sampler: settings of the reverse path, of all times or of some.
    """
    levels = forward.straight(num_steps, config.shift)
    steps, noisy = plan(sampler, levels, keeps_noise=True)
    times = jnp.asarray((1.0 - config.start) * levels.noise)
    return Path(config, forward.tables(levels), times, steps, noisy, sampler.kind == "fixed_noise")


def draw_times(config: PathConfig, key: jax.Array, index: jax.Array) -> jax.Array:
    """Times of training by the law, together spread evenly over it: i32[N] -> f32[N], below 1 - s.

    Args:
      config: settings of the path.
      key: of the times.
      index: i32[N], places in the global batch.
    """
    u = timesteps.low_discrepancy(key, index)
    return (1.0 - config.start) * _LAWS[config.time_law](u, config)


def told(t: jax.Array) -> jax.Array:
    """What a network's sinusoids are made of, 999 (1 - t): FMRec's, which counts from noise."""
    return 999.0 * (1.0 - t)


def noised(x0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """x_t = (1 - t) x_0 + t eps: float[N, D], float[N], float[N, D] -> float[N, D]."""
    return forward.mix(x0, eps, 1.0 - t, t)


def noise(path: Path, key: jax.Array, row_id: jax.Array, start: jax.Array) -> Draw | None:
    """What the rows of the reverse path weigh as z.

    Args:
      path: from `make`.
      key: of noise that is drawn on the way.
      row_id: i32[B], which keys a row's draws.
      start: float[B, ...] x_T.
    """
    if path.keeps_noise:
        return lambda i: start
    return samplers.draw_rows(key, row_id, start.shape[1:]) if path.noisy else None
