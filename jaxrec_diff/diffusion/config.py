"""Settings of a reverse path, and the path that they mean."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxrec_diff import validation
from jaxrec_diff.diffusion import samplers, schedules
from jaxrec_diff.diffusion.forward import Levels
from jaxrec_diff.diffusion.process import Steps

if TYPE_CHECKING:
    SamplerKind = str
else:  # the words of `samplers.PATHS`, for flags
    SamplerKind = Literal[tuple(samplers.PATHS)]


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The reverse path from noise to a point."""

    kind: SamplerKind = "ddpm"
    """ddpm (ancestral), mean (its means only), ddim (of a flow: Euler's), heun (two calls a step),
    dpmpp (DPM-Solver++(2M)), fixed_noise (FMRec's released loop, flows only), one_step (a single
    call at the noisiest level), closed_form (the exact law of the ddpm or mean chain, affine
    denoisers only)."""
    steps: int = 0
    """Reverse steps; 0 takes every step of the schedule."""
    eta: float = 0.0
    """Noise of ddim, 0 to 1; 1 is the ancestral step."""
    temperature: float = 1.0
    """Scale of the noise of ddpm and closed_form."""
    spacing: Literal["trailing", "leading", "linspace", "quad", "trunc", "strided"] = "trailing"
    """Which steps are visited when there are fewer than the schedule has."""
    noise: Literal["std_small", "std_large", "var_small", "exp_var"] = "std_small"
    """Coefficient of ddpm's noise: deviation of the posterior, of the forward step, the posterior's
    variance itself (as one algorithm box prints it) or exp of half of it (as one script has it)."""

    def __post_init__(self) -> None:
        validation.at_least("model.sampler.steps", self.steps, 0)
        validation.within("model.sampler.eta", self.eta, 0, 1)
        validation.at_least("model.sampler.temperature", self.temperature, 0)


def check_diffusion(num_steps: int, start: float, stop: float, sampler: SamplerConfig) -> None:
    """Refuses a linear schedule outside (0, 1] and more reverse steps than it has.

    Raises:
      ValueError: naming the setting and the nearest valid value.
    """
    validation.at_least("model.num-steps", num_steps, 1)
    validation.above("model.beta-start", start, 0, 1e-4)
    validation.within("model.beta-stop", stop, start, 1)
    validation.within("model.sampler.steps", sampler.steps, 0, num_steps)


def refuse_closed_form(sampler: SamplerConfig, nearest: str) -> None:
    """Raises ValueError where a path needs an affine denoiser; for networks that are not."""
    if sampler.kind == "closed_form":
        raise ValueError(
            "model.sampler.kind=closed_form needs an affine denoiser, which this network is not; "
            f"the nearest is {nearest}"
        )


def plan(config: SamplerConfig, levels: Levels, *, keeps_noise: bool = False) -> tuple[Steps, bool]:
    """The table of a reverse path and whether its rows add noise.

    Args:
      config: settings of the path.
      levels: T noise levels.
      keeps_noise: whether the caller gives the rows of fixed_noise their start as noise.

    Raises:
      ValueError: if it does not, and the settings ask for them.
    """
    if config.kind == "fixed_noise" and not keeps_noise:
        raise ValueError(
            "model.sampler.kind=fixed_noise is the loop of a flow, which this model is not; the "
            "nearest is ddim"
        )
    total, ts = len(levels.noise), None
    if 0 < config.steps < total:
        ts = schedules.subset(total, config.steps, config.spacing)[::-1]
    rows = samplers.PATHS[config.kind](levels, ts, config)
    return samplers.cast(rows), bool(rows.c.any())
