"""Which step each example is noised to."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.ops import rng

_UNIFORM_SHARE = 1e-3


class History(NamedTuple):
    """The last H losses of each step (DiffRec, DDRM): state of a model."""

    losses: jax.Array  # float[T, H], oldest first, the first `count` of a row are filled
    count: jax.Array  # type: ignore[assignment]  # i32[T]


def uniform(key: jax.Array, row_id: jax.Array, num_steps: int) -> jax.Array:
    """i32[B], each row's own draw from [0, T)."""
    chex.assert_rank(row_id, 1)
    return rng.randint(key, row_id, 0, num_steps).astype(jnp.int32)


def antithetic_rows(key: jax.Array, row_id: jax.Array, num_steps: int) -> jax.Array:
    """Rows 2k and 2k + 1 of the global batch get t and T - 1 - t, i32[B] (DiffuASR).

    What a row gets does not depend on the batch or on the device that it is in.
    """
    chex.assert_rank(row_id, 1)
    drawn = rng.randint(key, row_id // 2, 0, num_steps).astype(jnp.int32)
    return jnp.where(row_id % 2 == 0, drawn, num_steps - 1 - drawn)


def low_discrepancy(key: jax.Array, index: jax.Array) -> jax.Array:
    """Uniforms in [0, 1) that together fill it evenly, f32[N]: (u_0 + i / golden ratio) mod 1.

    u_0 is drawn once, so each of them is uniform. Unlike (u_0 + i / N) mod 1 (VDM,
    arXiv:2107.00630) no number depends on how many there are, so that a row has the same in any
    batch. The sum is one of 32-bit integers, exact for any i.

    Args:
      key: of u_0.
      index: i32[N], the places i.

    >>> u = low_discrepancy(jax.random.key(0), jnp.arange(5))
    >>> bool(jnp.all(jnp.diff(jnp.sort(u)) > 0.1))
    True
    """
    chex.assert_rank(index, 1)
    chex.assert_type(index, int)
    first = jax.random.bits(key, dtype=jnp.uint32)
    bits = first + index.astype(jnp.uint32) * np.uint32(0x9E3779B9)  # 2^32 / golden ratio
    return (bits >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def mode(u: jax.Array, scale: float = 1.0) -> jax.Array:
    """Times of a flow by the law "mode", decreasing in u: 1 - u - s (cos^2(pi u / 2) - 1 + u).

    Esser et al. 2024 (arXiv:2403.03206), Eq. 20. s > 0 favours the middle, s < 0 the ends; s = 0 is
    uniform. All of the three laws here take uniforms float[...] to times in [0, 1].

    Args:
      u: float[...] in [0, 1).
      scale: s, in [-1, 2 / (pi - 2)].
    """
    chex.assert_type(u, float)
    return 1.0 - u - scale * (jnp.cos(0.5 * jnp.pi * u) ** 2 - 1.0 + u)


def cosmap(u: jax.Array) -> jax.Array:
    """1 - 1 / (tan(pi u / 2) + 1), of density 2 / (pi - 2 pi t + 2 pi t^2); the same, Eq. 21."""
    chex.assert_type(u, float)
    return 1.0 - 1.0 / (jnp.tan(0.5 * jnp.pi * u) + 1.0)


def logit_normal(u: jax.Array, mean: float = 0.0, scale: float = 1.0) -> jax.Array:
    """sigmoid(mean + scale z), z the normal quantile of u; the same, Eq. 19."""
    chex.assert_type(u, float)
    return jax.nn.sigmoid(mean + scale * jax.scipy.special.ndtri(u))


def fixed_step_weights(num_steps: int) -> np.ndarray:
    """DiffuRec's "fixstep": the first half of the steps twice as likely, float64[T], sum 1."""
    weights = np.where(np.arange(num_steps) < num_steps // 2, 1.0, 0.5)
    return weights / weights.sum()


def categorical(key: jax.Array, row_id: jax.Array, probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(t, 1 / (T p_t)), i32[B] and float[B], from probabilities float[T]."""
    chex.assert_rank([row_id, probs], 1)
    cumulative = jnp.cumsum(probs)
    u = rng.uniform(key, row_id).astype(probs.dtype) * cumulative[-1]
    t = jnp.clip(jnp.searchsorted(cumulative, u, side="right"), 0, len(probs) - 1)
    return t.astype(jnp.int32), 1.0 / (len(probs) * probs[t])


def init_history(num_steps: int, length: int = 10) -> History:
    """An empty history."""
    return History(jnp.zeros((num_steps, length)), jnp.zeros(num_steps, jnp.int32))


def importance_probs(history: History) -> jax.Array:
    """float[T]: in proportion to the root mean square of each step's last losses.

    DiffRec (arXiv:2304.04971), Eq. 13 and the released code: uniform until every step has a full
    history, then mixed with a thousandth of uniform.
    """
    chex.assert_rank(history.losses, 2)
    num_steps, length = history.losses.shape
    rms = jnp.sqrt(jnp.mean(history.losses**2, axis=-1))
    p = rms / jnp.maximum(jnp.sum(rms), 1e-30)
    p = p * (1.0 - _UNIFORM_SHARE) + _UNIFORM_SHARE / num_steps
    return jnp.where(jnp.all(history.count == length), p, 1.0 / num_steps)


def importance(key: jax.Array, row_id: jax.Array, history: History) -> tuple[jax.Array, jax.Array]:
    """(t, loss weight), i32[B] and float[B]."""
    return categorical(key, row_id, importance_probs(history))


def update_history(
    history: History,
    t: jax.Array,
    losses: jax.Array,
    weight: jax.Array | None = None,
    axis_name: str | None = None,
) -> History:
    """Appends a batch of losses in batch order, each step keeping its last H.

    One sort of the batch instead of a loop over it: within a step the newest H survive, and old
    entries move up by the number of new ones.

    Args:
      history: state.
      t: i32[B] steps.
      losses: float[B], before the division by T p_t; no gradient flows.
      weight: float[B]; rows of weight 0 are padding and are left out.
      axis_name: device axis of `pmap`: all devices' rows are gathered, so the state stays the same
        everywhere.
    """
    weight = jnp.ones_like(losses) if weight is None else weight
    chex.assert_rank(losses, 1)
    chex.assert_equal_shape([t, losses, weight])
    losses = jax.lax.stop_gradient(losses).astype(history.losses.dtype)
    if axis_name is not None:
        t, losses, weight = (
            jax.lax.all_gather(part, axis_name, tiled=True) for part in (t, losses, weight)
        )
    num_steps, length = history.losses.shape
    t = jnp.where(weight > 0, t, num_steps)
    by_step = jnp.argsort(t, stable=True)
    t, losses = t[by_step], losses[by_step]
    start = jnp.searchsorted(t, jnp.arange(num_steps + 1), side="left")
    new = jnp.diff(jnp.append(start, t.shape[0]))[:num_steps]
    rank = jnp.arange(t.shape[0]) - start[t]
    drop = jnp.maximum(history.count + new - length, 0)  # entries that fall out at the old end
    place = jnp.append(history.count - drop, 0)[t] + rank
    place = jnp.where((t < num_steps) & (place >= 0), place, length)
    kept = jnp.arange(length)[None, :] + drop[:, None]
    old = jnp.take_along_axis(history.losses, jnp.minimum(kept, length - 1), axis=1)
    old = jnp.where(kept < history.count[:, None], old, 0.0)
    filled = old.at[jnp.minimum(t, num_steps - 1), place].set(losses, mode="drop")
    count = jnp.minimum(history.count + new, length)
    return History(filled, count.astype(history.count.dtype))
