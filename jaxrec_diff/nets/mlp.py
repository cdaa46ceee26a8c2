"""The bottleneck network that DiffRec denoises with."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.embeddings import sinusoidal
from jaxrec_diff.ops import filled


def glorot_normal(fan_in: int, fan_out: int) -> nn.initializers.Initializer:
    """N(0, 2 / (fan_in + fan_out)), for a kernel stored in parts or transposed."""
    return nn.initializers.normal(math.sqrt(2.0 / (fan_in + fan_out)))


class StepMLP(nn.Module):
    """f(x, t) of DiffRec (arXiv:2304.04971): tanh layers around a bottleneck, linear at the end.

        [x ; e(t)] -> d_k -> ... -> d_1 -> ... -> d_k -> x_0

    where e(t) is an affine map of the sinusoids of t, without an activation. The first kernel is
    stored by its rows for x (`table_in`) and for e, the last as a row an output (`table_out`), so
    that a catalogue of items has one row in each.
    """

    width: int  # I, of input and output
    dims: tuple[int, ...]  # d_1 .. d_k, from the bottleneck outwards
    step_width: int = 10
    bias_std: float = 0.0
    catalogue: bool = False  # whether x is a row of items, whose tables are filled up

    def setup(self) -> None:
        inward, outward = self.dims[::-1], self.dims
        bias = nn.initializers.normal(self.bias_std) if self.bias_std else nn.initializers.zeros
        edge, steps = self.dims[-1], self.step_width
        first = glorot_normal(self.width + steps, edge)
        table = filled.drawn if self.catalogue else lambda initial: initial
        self.table_in = self.param("table_in", table(first), (self.width, edge))
        self.step_in = self.param("step_in", first, (steps, edge))
        self.bias_in = self.param("bias_in", bias, (edge,))
        self.step = nn.Dense(steps, kernel_init=glorot_normal(steps, steps), bias_init=bias)
        self.layers = [
            nn.Dense(after, kernel_init=glorot_normal(before, after), bias_init=bias)
            for before, after in zip(
                (*inward, *outward[1:]), (*inward[1:], *outward[1:]), strict=False
            )
        ]
        self.table_out = self.param(
            "table_out", table(glorot_normal(edge, self.width)), (self.width, edge)
        )
        self.bias_out = self.param("bias_out", table(bias), (self.width,))

    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        """f32[B, I], i32[B] or i32[] -> f32[B, I]; of a catalogue x may be filled up with zeros."""
        return self.outer(self.hidden(x, t))

    def hidden(self, x: jax.Array, t: jax.Array) -> jax.Array:
        """f32[B, d_k] the last hidden layer."""
        if self.catalogue:
            x = jnp.pad(x, ((0, 0), (0, len(self.table_in) - x.shape[1])))
        return self.inner(x @ self.table_in, t)

    def inner(self, projected: jax.Array, t: jax.Array) -> jax.Array:
        """f32[B, d_k] the last hidden layer from x @ table_in, f32[B, d_k]."""
        code = self.step(sinusoidal(t, self.step_width, variant="cos_sin"))
        z = jnp.tanh(projected + code @ self.step_in + self.bias_in)
        for layer in self.layers:
            z = jnp.tanh(layer(z))
        return z

    def outer(self, z: jax.Array) -> jax.Array:
        """f32[B, d_k] -> f32[B, I]"""
        return (z @ self.table_out.T + self.bias_out)[:, : self.width]
