"""Heat instead of noise: a forward process that blurs x by an operator S, and its reverse paths.

    F_t(x) = (1 - a_t) x + a_t x S,    a_t = alpha t / T

is the heat equation on a graph by Euler's rule; GiffCF (arXiv:2311.08744). Steps count from 0,
as everywhere here: entry t is the paper's step t + 1. Tables are numpy in float64.
"""

from typing import NamedTuple

import numpy as np


class Moves(NamedTuple):
    """A reverse path; row i, N in all, is z_s = p x0_hat + q x0_hat S + b z_t."""

    t: np.ndarray  # i64[N], falling
    p: np.ndarray  # f64[N], as are q and b
    q: np.ndarray
    b: np.ndarray


def blur(num_steps: int, alpha: float) -> np.ndarray:
    """a_t of every step, f64[T].

    >>> blur(3, 1.5).tolist()
    [0.5, 1.0, 1.5]
    """
    return alpha * np.arange(1, num_steps + 1) / num_steps


def moves(levels: np.ndarray, t: np.ndarray, decay: float) -> Moves:
    """The released sampler, z_s = F_s(x0_hat) + delta^(t - s) (z_t - F_t(x0_hat)).

        b = delta^(t - s),    q = a_s - b a_t,    p = 1 - b - q

    Args:
      levels: f64[T] a_t.
      t: i[N] falling steps that are visited; the last one moves to clean data.
      decay: delta, 0 to 1.

    >>> table = moves(blur(3, 1.5), np.array([2, 1, 0]), 0.5)
    >>> table.p.tolist(), table.q.tolist(), table.b.tolist()
    ([0.25, 0.5, 0.75], [0.25, 0.0, -0.25], [0.5, 0.5, 0.5])
    """
    if (np.diff(t) >= 0).any() or t[0] >= len(levels) or t[-1] < 0:
        raise ValueError(f"steps must fall from below {len(levels)} to 0 or above, got {t}")
    known = np.append(0.0, levels)  # of the paper's steps 0 to T
    here, there = t + 1, np.append(t[1:] + 1, 0)
    b = decay ** (here - there).astype(np.float64)
    q = known[there] - b * known[here]
    return Moves(np.asarray(t), 1.0 - b - q, q, b)


def one_call(levels: np.ndarray) -> Moves:
    """The estimate at step T for the answer."""
    return Moves(np.array([len(levels) - 1]), *np.array([[1.0], [0.0], [0.0]]))
