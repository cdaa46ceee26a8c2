"""The affine layer with the initialisation that the released codes rely on."""

import math

import flax.linen as nn
import jax


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): PyTorch's default for weights and biases."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype=jax.numpy.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Affine(nn.Module):
    """The parameters of an affine layer, (kernel f32[in, out], bias f32[out]), both
    U(+-1/sqrt(in)), for a caller that multiplies by parts of them."""

    features: int

    @nn.compact
    def __call__(self, fan_in: int) -> tuple[jax.Array, jax.Array]:
        init = uniform_fan_in(fan_in)
        kernel = self.param("kernel", init, (fan_in, self.features))
        return kernel, self.param("bias", init, (self.features,))


class Dense(nn.Module):
    """`x @ kernel + bias`, f32[..., in] -> f32[..., features]; bias and kernel U(+-1/sqrt(in))."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        return x @ kernel + self.param("bias", init, (self.features,))
