"""Whether two runs differ: paired tests and bootstrap intervals."""

from collections.abc import Sequence

import numpy as np

_FLAT = 2**23  # weights of resamples that exist at once


def bootstrap(values: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Means over users drawn with replacement, the same users for every column.

    Args:
      values: f64[N, M].
      resamples: R.
      seed: of the draws.

    Returns:
      f64[R, M].
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    out = np.empty((resamples, values.shape[1]))
    step = max(1, _FLAT // count)
    for begin in range(0, resamples, step):
        rows = min(step, resamples - begin)
        draws = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        weights = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count)
        out[begin : begin + rows] = weights @ values / count
    return out


def paired_t(differences: np.ndarray) -> float:
    """Two-sided p of Student's paired t-test, f64[N] -> p.

    t = mean / (s / sqrt(N)); p = I_{df / (df + t^2)}(df / 2, 1 / 2), the incomplete beta function.
    """
    from scipy.special import betainc

    count = len(differences)
    deviation = differences.std(ddof=1) if count > 1 else 0.0
    if deviation == 0:
        return 1.0 if differences.mean() == 0 else 0.0
    t = differences.mean() / (deviation / np.sqrt(count))
    return float(betainc((count - 1) / 2, 0.5, (count - 1) / (count - 1 + t * t)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: the i-th smallest of m is multiplied by m - i, and none falls again."""
    out = [0.0] * len(ps)
    largest = 0.0
    for rank, place in enumerate(np.argsort(ps, kind="stable")):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        out[place] = largest
    return out


def quarters(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A group from 0 of every value, and the ranges of the groups that are not empty."""
    cuts = np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf"))
    raw = np.searchsorted(cuts, values, side="left")
    _, groups = np.unique(raw, return_inverse=True)
    names = []
    for group in range(groups.max() + 1):
        low, high = values[groups == group].min(), values[groups == group].max()
        names.append(f"{low:,.0f}" if low == high else f"{low:,.0f}-{high:,.0f}")
    return groups, names
