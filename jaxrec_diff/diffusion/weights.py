"""Weights w(t) of E_t[w(t) |target - prediction|^2]: host tables, float64[T].

Conversions: |eps - eps_hat|^2 = snr |x0 - x0_hat|^2 and |v - v_hat|^2 = (1 + snr) |x0 - x0_hat|^2.
"""

from typing import Literal

import chex
import numpy as np

from jaxrec_diff.diffusion import forward
from jaxrec_diff.diffusion.forward import Levels


def diffrec_x0(levels: Levels) -> np.ndarray:
    """w_0 = 1, w_t = snr_{t-1} - snr_t (twice the weight of the bound); DiffRec, Eq. 10."""
    _check(levels)
    return np.append(1.0, -np.diff(forward.snr(levels)))


def diffrec_eps(levels: Levels) -> np.ndarray:
    """w_0 = 1, w_t = (1 - abar_t) / ((1 - abar_{t-1})^2 (1 - beta_t)); DiffRec's eps mode.

    At t = 0 the loss itself is (1/2) |x0 - x0_hat|^2 there.
    """
    _check(levels)
    rest, step = levels.noise**2, levels.signal[1:] / levels.signal[:-1]
    return np.append(1.0, rest[1:] / (rest[:-1] ** 2 * step**2))


def elbo_eps(levels: Levels) -> np.ndarray:
    """The exact bound's weight of eps, (1/2) expm1(logsnr_{t-1} - logsnr_t), t >= 1; row 0 is 0."""
    _check(levels)
    return np.append(0.0, 0.5 * np.expm1(-np.diff(forward.logsnr(levels))))


def min_snr(levels: Levels, gamma: float, kind: Literal["x0", "eps", "v"]) -> np.ndarray:
    """min(snr, gamma), over snr for eps and snr + 1 for v; Hang et al. 2023 (arXiv:2303.09556).

    Raises:
      ValueError: if `gamma` is not positive or `kind` unknown.

    >>> levels = forward.levels(np.array([0.1, 0.5]))
    >>> min_snr(levels, 5.0, "x0").round(4).tolist()
    [5.0, 0.8182]
    """
    _check(levels)
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0 (5.0 is the paper's), got {gamma}")
    snr = forward.snr(levels)
    scales = {"x0": 1.0, "eps": snr, "v": snr + 1.0}
    if kind not in scales:
        raise ValueError(f"kind must be one of {', '.join(scales)}, got {kind!r}")
    return np.minimum(snr, gamma) / scales[kind]


def _check(levels: Levels) -> None:
    chex.assert_rank(levels.signal, 1)
    chex.assert_equal_shape(levels)
