"""The diffusion that the DiffRec family shares: of a row of interactions, or of its code.

Little noise is added: a published schedule ends at a variance of 1e-5 to 1e-2, so a row is
corrupted but never lost, and the reverse path starts at the observed row itself.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.diffusion import forward, samplers, schedules, timesteps
from jaxrec_diff.diffusion import weights as diffusion_weights
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward, Levels
from jaxrec_diff.diffusion.process import Chain, Denoiser, Steps
from jaxrec_diff.diffusion.timesteps import History
from jaxrec_diff.ops import rng


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """Noise, what the network predicts, and how steps are drawn and weighted."""

    num_steps: int = 5
    """Diffusion steps T."""
    schedule: Literal["linear_var", "linear_diffrec", "cosine", "binomial"] = "linear_var"
    """linear_var: the variance 1 - abar rises in equal steps (all published runs)."""
    noise_scale: float = 0.01
    """Factor s on both bounds; 0 adds no noise at all and turns the weights off."""
    noise_min: float = 1e-3
    """Lower bound m of the variance (linear_var) or of beta (linear_diffrec)."""
    noise_max: float = 1e-2
    """Upper bound M."""
    fix_first: bool = True
    """Set the first beta to 1e-5, as the released DiffRec does and L-DiffRec does not."""
    predict: Literal["x0", "eps"] = "x0"
    """What the network predicts: the clean row, or the noise."""
    weighting: Literal["auto", "released", "bound", "uniform"] = "auto"
    """Weights of the steps' losses. released: of the released code; bound: of the variational bound
    as the paper prints it (1/2 snr difference for t > 0); uniform: all one; auto: released for x0,
    bound for eps, where the released weight divides by the variance twice."""
    draw: Literal["importance", "uniform"] = "importance"
    """importance: steps with large recent losses are drawn more often; uniform."""

    def __post_init__(self) -> None:
        validation.at_least("model.process.num-steps", self.num_steps, 1)
        validation.at_least("model.process.noise-scale", self.noise_scale, 0)
        if self.scaled and self.noise_scale > 0:
            validation.above("model.process.noise-min", self.noise_min, 0, 1e-4)
            if self.noise_max < self.noise_min:
                raise ValueError(
                    f"model.process.noise-max={self.noise_max:g} is below "
                    f"model.process.noise-min={self.noise_min:g}, which makes betas negative; the "
                    f"nearest valid value is {self.noise_min:g}"
                )
        betas(self)

    @property
    def scaled(self) -> bool:
        """Whether the schedule has a scale and bounds."""
        return self.schedule in ("linear_var", "linear_diffrec")


class Process(NamedTuple):
    """A diffusion as tables."""

    config: ProcessConfig
    tables: Forward
    weights: jax.Array  # f32[T]
    steps: Steps  # reverse path
    noisy: bool  # whether its rows add noise
    noise_steps: int  # T', forward steps before it

    @property
    def draws(self) -> bool:
        """Whether anything is drawn between a row and the end of its reverse path."""
        return self.noisy or self.noise_steps > 0


class Noised(NamedTuple):
    """Rows at steps drawn for them, and what was drawn."""

    xt: jax.Array  # f32[B, D]
    t: jax.Array  # i32[B]
    inverse: jax.Array  # f32[B], 1 / (T p_t): makes a mean over drawn steps that over uniform ones
    eps: jax.Array  # f32[B, D]


def betas(config: ProcessConfig) -> np.ndarray | None:
    """float64[T], or None if there is no noise.

    Raises:
      ValueError: if one lies outside (0, 1].
    """
    if not config.scaled:
        built = schedules.named(config.schedule, config.num_steps)
    elif config.noise_scale == 0:
        return None
    else:
        bounds = {"noise_min": config.noise_min, "noise_max": config.noise_max}
        scale, first = config.noise_scale, False
        built = {
            "linear_var": schedules.linear_var,
            "linear_diffrec": schedules.linear_diffrec,
        }[config.schedule](config.num_steps, scale=scale, beta_first=first, **bounds)
    return schedules.fix_first(built) if config.fix_first else built


def make(config: ProcessConfig, sampler: SamplerConfig, noise_steps: int = 0) -> Process:
    """Tables of a process and its reverse path, built in float64.

    Without noise every step is x <- f(x, t) and all weights are 1.

    Args:
      config: settings of the process.
      sampler: settings of the reverse path.
      noise_steps: T', forward steps before it.
    """
    given = betas(config)
    if given is None:
        total = config.num_steps
        count = np.arange(total)[::-1]
        none = jnp.zeros(total)
        steps = Steps(jnp.asarray(count, jnp.int32), jnp.ones(total), none, none, none)
        tables = Forward(jnp.ones(total), none)
        return Process(config, tables, jnp.ones(total), steps, False, noise_steps)
    levels = forward.levels(given)
    steps, noisy = plan(sampler, levels)
    weights = jnp.asarray(step_weights(config, levels), jnp.float32)
    return Process(config, forward.tables(levels), weights, steps, noisy, noise_steps)


def step_weights(config: ProcessConfig, levels: Levels) -> np.ndarray:
    """float64[T] weights of the mean squared errors; row 0 is that of the reconstruction."""
    kind = config.weighting
    if kind == "auto":
        kind = "released" if config.predict == "x0" else "bound"
    if kind == "uniform":
        return np.ones(len(levels.noise))
    if config.predict == "x0":
        released = diffusion_weights.diffrec_x0(levels)
        return released if kind == "released" else np.append(1.0, 0.5 * released[1:])
    if kind == "released":
        return diffusion_weights.diffrec_eps(levels)
    return np.append(1.0, diffusion_weights.elbo_eps(levels)[1:])


def check_sampler(sampler: SamplerConfig, process: ProcessConfig, noise_steps: int) -> None:
    """Refuses a reverse path that does not fit a row process.

    Raises:
      ValueError: naming the setting and the nearest valid value.
    """
    validation.within("model.sampler.steps", sampler.steps, 0, process.num_steps)
    validation.within("model.noise-steps", noise_steps, 0, process.num_steps)
    refuse_closed_form(sampler, "mean")
    if process.scaled and process.noise_scale == 0:
        # every step is x <- f(x, t), whatever a sampler would make of noise
        for name, value, plain in (
            ("model.sampler.kind", sampler.kind, "mean"),
            ("model.sampler.steps", sampler.steps, 0),
            ("model.noise-steps", noise_steps, 0),
        ):
            if value != plain:
                raise ValueError(
                    f"{name}={value} means nothing where model.process.noise-scale=0 adds no "
                    f"noise; the nearest valid value is {plain}"
                )


def draw_steps(
    config: ProcessConfig, key: jax.Array, row_id: jax.Array, history: History
) -> tuple[jax.Array, jax.Array]:
    """Steps i32[B] and the weights 1 / (T p) f32[B] that make their mean that of uniform steps."""
    if config.draw == "importance":
        return timesteps.importance(key, row_id, history)
    t = timesteps.uniform(key, row_id, config.num_steps)
    return t, jnp.ones(t.shape)


def noised(
    process: Process,
    k_t: jax.Array,
    k_eps: jax.Array,
    x0: jax.Array,
    row_id: jax.Array,
    history: History,
) -> Noised:
    """Each row at a step of its own, x_t ~ q(x_t | x_0); DiffRec (arXiv:2304.04971), Eq. 2-3.

    Args:
      process: from `make`.
      k_t: key of the steps.
      k_eps: key of the noise.
      x0: f32[B, D] clean rows.
      row_id: i32[B], which keys a row's draws.
      history: recent losses, by which steps are drawn.
    """
    t, inverse = draw_steps(process.config, k_t, row_id, history)
    eps = rng.normal(k_eps, row_id, x0.shape[1:])
    return Noised(forward.q_sample(process.tables, x0, t, eps), t, inverse, eps)


def step_losses(process: Process, out: jax.Array, x0: jax.Array, at: Noised) -> jax.Array:
    """f32[B] weighted losses of a network output `out`, before the division by T p_t.

        w_t mean (x_0 - f)^2, w_0 = 1, w_t = snr_{t-1} - snr_t      x0 mode, released weights
        w_t mean (eps - f)^2, at t = 0 (1/2) mean (x_0 - x0_hat)^2  eps mode

    DiffRec (arXiv:2304.04971), Eq. 9-12; the released code averages over features.

    Args:
      process: from `make`.
      out: f32[B, D] what the network says of `at.xt` and `at.t`.
      x0: f32[B, D] the clean rows.
      at: from `noised`.
    """
    config, (xt, t, _, eps) = process.config, at
    if config.predict == "x0":
        return process.weights[t] * losses.mse(out, x0)
    each = losses.mse(out, eps)
    if config.weighting != "uniform":
        first = 0.5 * losses.mse(clean(process, out, xt, t), x0)
        each = jnp.where(t == 0, first, each)
    return process.weights[t] * each


def clean(process: Process, out: jax.Array, xt: jax.Array, t: Any) -> jax.Array:
    """x0_hat from what the network predicts; `t` is i32[B] or i32[]."""
    if process.config.predict == "x0":
        return out
    signal, noise = (forward.extract(part, t, xt) for part in process.tables)
    return forward.x0_from_eps(out, xt, signal, noise)


def reverse(
    process: Process,
    network: Denoiser,
    k_start: jax.Array,
    k_steps: jax.Array,
    x0: jax.Array,
    row_id: jax.Array,
) -> Chain:
    """The reverse process from observed rows; DiffRec (arXiv:2304.04971), Algorithm 2.

    Args:
      process: from `make`.
      network: (x_t f32[B, D], t i32[]) -> f32[B, D] what it predicts.
      k_start: key of the noise before the path.
      k_steps: key of the noise on it.
      x0: f32[B, D] observed rows.
      row_id: i32[B], which keys a row's draws.

    >>> halving = make(ProcessConfig(num_steps=3, noise_scale=0.0), SamplerConfig(kind="mean"))
    >>> keys, row_id = jax.random.split(jax.random.key(0)), jnp.arange(1)
    >>> chain = reverse(halving, lambda xt, t: xt / 2, *keys, jnp.array([[8.0, 16.0]]), row_id)
    >>> samplers.run(chain).tolist()
    [[1.0, 2.0]]
    """
    size = x0.shape[1:]
    start = x0
    if process.noise_steps:
        eps = rng.normal(k_start, row_id, size)
        start = samplers.warm_start(process.tables, x0, process.noise_steps, eps)
    draw = samplers.draw_rows(k_steps, row_id, size) if process.noisy else None

    def denoise(xt, t):
        return clean(process, network(xt, t), xt, t)

    return Chain(process.steps, denoise, start, draw)
