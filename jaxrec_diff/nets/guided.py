"""A bottleneck network that restores a vector under the guidance of another."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.embeddings import sinusoidal

Activation = Literal["relu", "sigmoid", "tanh"]
_ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": jnp.tanh}
_WEIGHTS = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")  # N(0, 2 / (in + out))
_BIASES = nn.initializers.normal(1e-3)


class GuidedMLP(nn.Module):
    """f(x, t, c) of DDRM (arXiv:2401.06982): layers around a bottleneck, linear at the end.

        [x ; e(t) ; c] -> d_k -> ... -> d_1 -> ... -> d_k -> x_0

    e(t) is an affine map of the sinusoids of t, without an activation; every other layer but the
    last has one.
    """

    width: int  # of x, c and the output
    dims: tuple[int, ...]  # d_1 .. d_k, from the bottleneck outwards
    activation: Activation = "relu"
    step_width: int = 10

    def setup(self) -> None:
        shape = (2 * self.width + self.step_width, self.dims[-1])
        self.kernel_in = self.param("kernel_in", _WEIGHTS, shape)
        self.bias_in = self.param("bias_in", _BIASES, shape[1:])
        self.step = self._dense(self.step_width)
        self.inner = [self._dense(size) for size in (*self.dims[-2::-1], *self.dims[1:])]
        self.outer = self._dense(self.width)

    def _dense(self, size: int) -> nn.Dense:
        return nn.Dense(size, kernel_init=_WEIGHTS, bias_init=_BIASES)

    def __call__(self, x: jax.Array, t: jax.Array, cond: jax.Array) -> jax.Array:
        """f32[B, D], i32[B] or i32[], f32[B, D] -> f32[B, D] the clean vector."""
        return self.guided(x, t, self.guide(cond))

    def guide(self, cond: jax.Array) -> jax.Array:
        """f32[B, d_k]: what the guidance adds to the first layer; a chain needs it once."""
        return cond @ self.kernel_in[self.width + self.step_width :]

    def guided(self, x: jax.Array, t: jax.Array, guide: jax.Array) -> jax.Array:
        """The rest of `__call__`."""
        act = _ACTIVATIONS[self.activation]
        code = self.step(sinusoidal(t, self.step_width, variant="cos_sin"))
        from_x, from_t, _ = jnp.split(
            self.kernel_in, [self.width, self.width + self.step_width], axis=0
        )
        z = act(x @ from_x + code @ from_t + guide + self.bias_in)
        for layer in self.inner:
            z = act(layer(z))
        return self.outer(z)
