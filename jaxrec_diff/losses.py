"""Losses of each example, float[B]; means are taken by `weighted_mean`."""

import jax
import jax.numpy as jnp


def mse(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over features of (target - estimate)^2: float[B, ...] -> float[B]."""
    return _over_features(jnp.square(target - estimate))


def l1(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over features of |target - estimate|."""
    return _over_features(jnp.abs(target - estimate))


def huber(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over features of r^2 / 2 where |r| < 1 and |r| - 1/2 elsewhere (smooth L1)."""
    size = jnp.abs(target - estimate)
    return _over_features(jnp.where(size < 1.0, 0.5 * size**2, size - 0.5))


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-log softmax(logits)[target]: float[B, C], i32[B] class indices -> float[B]."""
    picked = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def sampled_softmax(positive: jax.Array, negatives: jax.Array) -> jax.Array:
    """-log [exp(p) / (exp(p) + sum exp(n))]: float[B], float[B, n] logits -> float[B].

    Corrections and masks (accidental hits) are added to the logits by the caller.
    """
    logits = jnp.concatenate([positive[:, None], negatives], axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - positive


def bpr(positive: jax.Array, negative: jax.Array) -> jax.Array:
    """-log sigmoid(p - n); Rendle et al. 2009 (arXiv:1205.2618)."""
    return jax.nn.softplus(negative - positive)


def weighted_mean(each: jax.Array, weight: jax.Array, axis_name: str | None = None) -> jax.Array:
    """sum(weight each) / sum(weight), 0 if all weights are.

    Under `axis_name` the denominator is the mean over devices, so that the mean over devices of
    what this returns is the mean over the global batch, however weights are spread.
    """
    total = jnp.sum(weight)
    if axis_name is not None:
        total = jax.lax.pmean(total, axis_name)
    return jnp.sum(weight * each) / jnp.maximum(total, 1e-12)


def _over_features(values: jax.Array) -> jax.Array:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))
