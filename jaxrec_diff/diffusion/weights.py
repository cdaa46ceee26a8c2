"""Weights w(t) of E_t[w(t) |target - prediction|^2]: host tables, float64[T].

Conversions: |eps - eps_hat|^2 = snr |x0 - x0_hat|^2 and |v - v_hat|^2 = (1 + snr) |x0 - x0_hat|^2.
"""

from typing import Literal

import numpy as np

from jaxrec_diff.diffusion import forward
from jaxrec_diff.diffusion.forward import Levels


def diffrec_x0(levels: Levels) -> np.ndarray:
    """w_0 = 1, w_t = snr_{t-1} - snr_t (twice the weight of the bound); DiffRec, Eq. 10."""
    return np.append(1.0, -np.diff(forward.snr(levels)))


def diffrec_eps(levels: Levels) -> np.ndarray:
    """w_0 = 1, w_t = (1 - abar_t) / ((1 - abar_{t-1})^2 (1 - beta_t)); DiffRec's eps mode.

    At t = 0 the loss itself is (1/2) |x0 - x0_hat|^2 there.
    """
    rest, step = levels.noise**2, levels.signal[1:] / levels.signal[:-1]
    return np.append(1.0, rest[1:] / (rest[:-1] ** 2 * step**2))


def elbo_eps(levels: Levels) -> np.ndarray:
    """The exact bound's weight of eps, (1/2) expm1(logsnr_{t-1} - logsnr_t), t >= 1; row 0 is 0."""
    return np.append(0.0, 0.5 * np.expm1(-np.diff(forward.logsnr(levels))))


def min_snr(levels: Levels, gamma: float, kind: Literal["x0", "eps", "v"]) -> np.ndarray:
    """min(snr, gamma), over snr for eps and snr + 1 for v; Hang et al. 2023 (arXiv:2303.09556)."""
    snr = forward.snr(levels)
    return np.minimum(snr, gamma) / {"x0": 1.0, "eps": snr, "v": snr + 1.0}[kind]
