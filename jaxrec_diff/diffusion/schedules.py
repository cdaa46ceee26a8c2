"""Noise schedules: host functions that return `betas`, float64[T].

Index t = 0 is the least noisy level. All are built in float64 on the host and cast once: at the
noise levels that recommenders use (betas near 1e-7) float32 products are wrong by parts in a
thousand or exactly zero.

>>> import numpy as np
>>> np.round(linear(5, start=1e-4, stop=0.02), 6).tolist()
[0.0001, 0.005075, 0.01005, 0.015025, 0.02]
"""

import difflib
import math
from collections.abc import Callable

import chex
import numpy as np

_MAX_BETA = 0.999


def linear(num_steps: int, *, start: float = 1e-4, stop: float = 2e-2) -> np.ndarray:
    """Equal steps from `start` to `stop`, whatever T is (DreamRec)."""
    return validate(np.linspace(start, stop, _steps(num_steps)))


def linear_scaled(num_steps: int, *, start: float = 1e-4, stop: float = 2e-2) -> np.ndarray:
    """`linear` with both ends times 1000 / T (DiffuASR; DiffuRec's "linear"); needs T >= 20."""
    scale = 1000.0 / _steps(num_steps, low=20)
    return validate(np.linspace(scale * start, scale * stop, num_steps))


def quad(num_steps: int, *, start: float = 1e-4, stop: float = 2e-2) -> np.ndarray:
    """Equal steps of sqrt(beta), "scaled linear" of latent diffusion."""
    if min(start, stop) <= 0:
        raise ValueError(f"start and stop must be above 0 (say 1e-4), got {start:g} and {stop:g}")
    return validate(np.linspace(math.sqrt(start), math.sqrt(stop), _steps(num_steps)) ** 2)


def sigmoid(num_steps: int, *, start: float = 1e-4, stop: float = 2e-2) -> np.ndarray:
    """A logistic rise from `start` to `stop`."""
    x = np.linspace(-6.0, 6.0, _steps(num_steps))
    return validate((stop - start) / (1.0 + np.exp(-x)) + start)


def linear_diffrec(
    num_steps: int, *, scale: float, noise_min: float, noise_max: float, beta_first: bool = True
) -> np.ndarray:
    """DiffRec's "linear": equal steps from scale * noise_min to scale * noise_max."""
    betas = np.linspace(scale * noise_min, scale * noise_max, _steps(num_steps))
    return validate(fix_first(betas) if beta_first else betas)


def linear_var(
    num_steps: int, *, scale: float, noise_min: float, noise_max: float, beta_first: bool = True
) -> np.ndarray:
    """DiffRec's "linear-var": the variance 1 - abar_t rises in equal steps."""
    variance = np.linspace(scale * noise_min, scale * noise_max, _steps(num_steps))
    if not 0.0 < variance[0] <= variance[-1] < 1.0:
        raise ValueError(
            f"scale * noise_min = {variance[0]:g} and scale * noise_max = {variance[-1]:g} must "
            "satisfy 0 < min <= max < 1"
        )
    before = np.append(0.0, variance[:-1])
    # 1 - (1 - v_t) / (1 - v_{t-1}), written without the cancellation.
    betas = np.minimum((variance - before) / (1.0 - before), _MAX_BETA)
    return validate(fix_first(betas) if beta_first else betas)


def cosine(num_steps: int) -> np.ndarray:
    """Nichol and Dhariwal's cosine, betas at most .999 (DiffRec, DiffuRec)."""
    return validate(_from_abar(_steps(num_steps), _cosine_abar, _MAX_BETA))


def cosine_clip(num_steps: int) -> np.ndarray:
    """The cosine with betas clipped to [1e-4, .9999] (DreamRec, DiffuASR)."""
    bar = np.array([_cosine_abar(i / num_steps) for i in range(_steps(num_steps) + 1)])
    return validate(np.clip(1.0 - bar[1:] / bar[:-1], 1e-4, 0.9999))


def sqrt(num_steps: int) -> np.ndarray:
    """abar(u) = 1 - sqrt(u + 1e-4), the square-root schedule of Diffusion-LM."""
    return validate(_from_abar(_steps(num_steps), lambda u: 1.0 - math.sqrt(u + 1e-4), _MAX_BETA))


def exp(num_steps: int, *, low: float = 0.1, high: float = 10.0) -> np.ndarray:
    """A discretised variance-preserving SDE (DreamRec's default).

    beta_i = 1 - exp(-low / T - x_i (high - low) / (2 T^2)), x = linspace(1, 2T + 1, T).
    """
    x = np.linspace(1.0, 2.0 * _steps(num_steps) + 1.0, num_steps)
    return validate(-np.expm1(-low / num_steps - x * (high - low) / (2.0 * num_steps**2)))


def trunc_lin(num_steps: int) -> np.ndarray:
    """Truncated linear (DiffuRec's and DiQDiff's default, T = 32)."""
    scale = 1000.0 / _steps(num_steps)
    stop = scale * 0.02 + 0.01
    return validate(
        np.linspace(scale * 1e-4 + 0.01, scale * 1e-3 + 0.01 if stop > 1 else stop, num_steps)
    )


def trunc_cos(num_steps: int) -> np.ndarray:
    """Truncated cosine (DiffuRec): a wider offset, and a first beta of its own."""

    def abar(u: float) -> float:
        return math.cos((u + 0.1) / 1.1 * math.pi / 2) ** 2

    first = min(1.0 - abar(0.0), _MAX_BETA)
    return validate(np.append(first, _from_abar(_steps(num_steps), abar, _MAX_BETA)[:-1]))


def pw_lin(num_steps: int) -> np.ndarray:
    """Piecewise linear (DiffuRec): ten falling betas, then a linear rise; needs T > 10."""
    scale = 1000.0 / _steps(num_steps, low=11)
    falling = np.linspace(scale * 1e-4 + 0.01, scale * 1e-4, 10)
    return validate(np.append(falling, np.linspace(scale * 1e-4, scale * 0.02, num_steps - 10)))


def binomial(num_steps: int) -> np.ndarray:
    """beta_t = 1 / (T - t + 1) (DiffRec)."""
    return validate(1.0 / (_steps(num_steps) - np.arange(num_steps) + 1.0))


NAMED: dict[str, Callable[..., np.ndarray]] = {
    schedule.__name__: schedule
    for schedule in (
        linear,
        linear_scaled,
        quad,
        sigmoid,
        linear_diffrec,
        linear_var,
        cosine,
        cosine_clip,
        sqrt,
        exp,
        trunc_lin,
        trunc_cos,
        pw_lin,
        binomial,
    )
}


def named(name: str, num_steps: int, **options: float) -> np.ndarray:
    """The schedule of that name.

    Raises:
      ValueError: on an unknown name, with the nearest known one.
    """
    if name not in NAMED:
        near = difflib.get_close_matches(name, NAMED, 1, 0.0)[0]
        raise ValueError(f"unknown schedule {name!r}; did you mean {near!r}?")
    return NAMED[name](num_steps, **options)


def fix_first(betas: np.ndarray, value: float = 1e-5) -> np.ndarray:
    """Overwrites the first beta (DiffRec, DDRM: `beta_fixed`); this rescales every abar."""
    chex.assert_rank(betas, 1)
    return np.append(value, betas[1:])


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Shifts and scales sqrt(abar) so that the last level is pure noise (last beta 1).

    Lin et al. 2023 (arXiv:2305.08891), Algorithm 1. Only for networks that predict x_0 or v.

    Raises:
      ValueError: if there is a single step, which cannot be both the first and pure noise.
    """
    chex.assert_rank(betas, 1)
    if len(betas) < 2:
        raise ValueError(f"a zero terminal snr needs at least 2 steps, got {len(betas)}")
    root = np.sqrt(np.cumprod(1.0 - betas))
    shifted = (root - root[-1]) * root[0] / (root[0] - root[-1])
    bar = shifted**2
    return validate(1.0 - bar / np.append(1.0, bar[:-1]))


def subset(num_steps: int, count: int, spacing: str = "trailing") -> np.ndarray:
    """`count` increasing step indices out of T.

    trailing round(T, T - T/S, ..) - 1; leading floor(T/S) * (0 .. S-1), which never visits the last
    step (DiffuASR); linspace; quad; trunc, as a re-write of DreamRec does: trunc of S equal parts
    of T, minus 1; strided, the first step and the ends of S - 1 equal parts (PreferDiff).

    Raises:
      ValueError: if `count` is not in [1, T], the spacing is unknown or it repeats an index.
    """
    _steps(num_steps)
    if not 1 <= count <= num_steps:
        near = min(max(count, 1), num_steps)
        raise ValueError(f"cannot take {count} of {num_steps} steps; the nearest is {near}")
    rules: dict[str, Callable[[], np.ndarray]] = {
        "trailing": lambda: np.round(num_steps - np.arange(count) * num_steps / count)[::-1] - 1,
        "leading": lambda: num_steps // count * np.arange(count),
        "linspace": lambda: np.round(np.linspace(0, num_steps - 1, count)),
        "quad": lambda: np.floor(np.linspace(0, math.sqrt(0.8 * num_steps), count) ** 2),
        "trunc": lambda: np.trunc(np.linspace(num_steps, 0, count + 1))[:-1][::-1] - 1,
        "strided": lambda: np.append(
            [0] * (count > 1), np.arange(1, max(count, 2)) * num_steps // max(count - 1, 1) - 1
        ),
    }
    if spacing not in rules:
        near_rule = difflib.get_close_matches(spacing, rules, 1, 0.0)[0]
        raise ValueError(f"unknown spacing {spacing!r}; did you mean {near_rule!r}?")
    ts = rules[spacing]().astype(np.int64)
    if len(np.unique(ts)) < count:
        raise ValueError(
            f"{spacing} spacing repeats a step for {count} of {num_steps}; try linspace"
        )
    return ts


def validate(betas: np.ndarray) -> np.ndarray:
    """Returns `betas` if every one lies in (0, 1].

    Raises:
      ValueError: naming the first one that does not and the nearest that would.
    """
    chex.assert_rank(betas, 1)
    bad = ~((betas > 0.0) & (betas <= 1.0))
    if bad.any():
        t = int(np.argmax(bad))
        near = 1.0 if betas[t] > 1.0 else 1e-5
        raise ValueError(
            f"beta {betas[t]:g} of step {t} lies outside (0, 1]; the nearest valid is {near:g}"
        )
    return betas


def _steps(num_steps: int, low: int = 1) -> int:
    if num_steps < low:
        raise ValueError(f"num_steps must be at least {low} for this schedule, got {num_steps}")
    return num_steps


def _cosine_abar(u: float) -> float:
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2


def _from_abar(num_steps: int, abar: Callable[[float], float], max_beta: float) -> np.ndarray:
    levels = np.array([abar(i / num_steps) for i in range(num_steps + 1)])
    return np.minimum(1.0 - levels[1:] / levels[:-1], max_beta)
