"""The affine layer with the initialisation that the released codes rely on."""

import math
from typing import Literal

import flax.linen as nn
import jax

Initial = Literal["fan_in", "xavier"]
"""fan_in: kernel and bias U(+-1 / sqrt(in)); xavier: kernel U(+-sqrt(6 / (in + out))), bias 0."""


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): PyTorch's default for weights and biases."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=jax.numpy.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Affine(nn.Module):
    """The parameters of an affine layer, (kernel f32[in, out], bias f32[out]), for a caller that
    multiplies by parts of them."""

    features: int
    initial: Initial = "fan_in"

    @nn.compact
    def __call__(self, fan_in: int) -> tuple[jax.Array, jax.Array]:
        of_kernel, of_bias = _initializers(self.initial, fan_in)
        kernel = self.param("kernel", of_kernel, (fan_in, self.features))
        return kernel, self.param("bias", of_bias, (self.features,))


class Dense(nn.Module):
    """`x @ kernel + bias`, f32[..., in] -> f32[..., features]."""

    features: int
    initial: Initial = "fan_in"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of_kernel, of_bias = _initializers(self.initial, x.shape[-1])
        kernel = self.param("kernel", of_kernel, (x.shape[-1], self.features))
        return x @ kernel + self.param("bias", of_bias, (self.features,))


def _initializers(initial: Initial, fan_in: int) -> tuple[nn.initializers.Initializer, ...]:
    """Of a kernel and of a bias."""
    if initial == "xavier":
        return nn.initializers.xavier_uniform(), nn.initializers.zeros
    return (uniform_fan_in(fan_in),) * 2
