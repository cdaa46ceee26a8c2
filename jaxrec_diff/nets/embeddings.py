"""Step embeddings."""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dense import Dense


def sinusoidal(
    t: jax.Array, dim: int, *, variant: Literal["sin_cos", "cos_sin", "interleaved"] = "sin_cos"
) -> jax.Array:
    """Sinusoids of a step.

    Three incompatible forms are in use, with h = dim / 2 and k = 0 .. h - 1:

        sin_cos: [sin(t f_k) | cos(t f_k)], f_k = exp(-k ln(1e4) / (h - 1))   DreamRec, DiffuASR
        cos_sin: [cos(t f_k) | sin(t f_k)], f_k = exp(-k ln(1e4) / h)         DiffRec, DiffuRec
        interleaved: [sin(t f_0), cos(t f_0), sin(t f_1), ...], same f_k      DiffRec2

    Args:
      t: int or float[...] steps.
      dim: width; an odd one gets a last column of zeros.
      variant: which form.

    Returns:
      float[..., dim], of the dtype of `t` where that is a float.

    Raises:
      ValueError: on an unknown variant or a width below 1.
    """
    if variant not in ("sin_cos", "cos_sin", "interleaved"):
        raise ValueError(f"variant must be sin_cos, cos_sin or interleaved, got {variant!r}")
    if dim < 1:
        raise ValueError(f"sinusoids need a width of at least 1, got {dim}")
    half = dim // 2
    spread = half - 1 if variant == "sin_cos" else half
    float_dtype = t.dtype if jnp.issubdtype(t.dtype, jnp.floating) else jnp.result_type(float)
    k = jnp.arange(half, dtype=float_dtype)
    angle = t[..., None].astype(float_dtype) * jnp.exp(-math.log(1e4) * k / max(spread, 1))
    pair = (jnp.sin(angle), jnp.cos(angle))
    if variant == "interleaved":
        out = jnp.stack(pair, axis=-1).reshape(*t.shape, 2 * half)
    else:
        out = jnp.concatenate(pair if variant == "sin_cos" else pair[::-1], axis=-1)
    return jnp.pad(out, [(0, 0)] * t.ndim + [(0, dim % 2)])


class StepEmbedding(nn.Module):
    """Sinusoids, then D -> F -> D around an activation.

    DreamRec and DimeRec: F = 2 D (the default), the exact (erf) GELU, sines first.
    DiffuRec and DiQDiff: F = 4 D, SiLU, cosines first.
    """

    width: int
    hidden: int = 0
    """F; 0 is 2 D."""
    activation: Literal["gelu", "silu"] = "gelu"
    variant: Literal["sin_cos", "cos_sin"] = "sin_cos"

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        hidden = Dense(self.hidden or 2 * self.width, name="inner")(
            sinusoidal(t, self.width, variant=self.variant)
        )
        if self.activation == "silu":
            return Dense(self.width, name="outer")(nn.silu(hidden))
        return Dense(self.width, name="outer")(nn.gelu(hidden, approximate=False))
