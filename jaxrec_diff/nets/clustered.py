"""Networks of rows whose columns are grouped into clusters."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.nets.mlp import glorot_normal
from jaxrec_diff.ops import sparse


class Layout(NamedTuple):
    """Sizes that follow from the clusters."""

    sizes: tuple[int, ...]  # items of each
    widths: tuple[tuple[int, ...], ...]  # of each, by layer from the items to the latent

    @property
    def latent(self) -> int:
        return sum(widths[-1] for widths in self.widths)


class ClusterEncoder(nn.Module):
    """Items of a cluster -> l_1 -> ... -> 2 l_m, tanh after every layer."""

    size: int
    widths: tuple[int, ...]
    bounded: bool

    @nn.compact
    def __call__(self, items: jax.Array, value: jax.Array) -> jax.Array:
        """Rows in the ids of the cluster -> f32[B, 2 l_m], mean and log variance."""
        widths = (*self.widths[:-1], 2 * self.widths[-1])
        table = self.param("table", glorot_normal(self.size, widths[0]), (self.size, widths[0]))
        x = sparse.project(items, value, table)
        x = x + self.param("bias", nn.initializers.zeros, (widths[0],))
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            x = nn.Dense(after, kernel_init=glorot_normal(before, after))(jnp.tanh(x))
        return jnp.tanh(x) if self.bounded else x


class ClusterDecoder(nn.Module):
    """l_m -> ... -> l_1, tanh after every layer, and the linear rows l_1 -> items."""

    size: int
    widths: tuple[int, ...]

    def setup(self) -> None:
        inward = self.widths[::-1]
        self.layers = [
            nn.Dense(after, kernel_init=glorot_normal(before, after))
            for before, after in zip(inward[:-1], inward[1:], strict=True)
        ]
        edge = self.widths[0]
        self.table = self.param("table", glorot_normal(edge, self.size), (self.size, edge))
        self.bias = self.param("bias", nn.initializers.zeros, (self.size,))

    def __call__(self, z: jax.Array) -> jax.Array:
        """f32[B, l_m] -> f32[B, l_1]"""
        for layer in self.layers:
            z = jnp.tanh(layer(z))
        return z


def arrange(sizes: np.ndarray, encoder_dims: tuple[int, ...]) -> Layout:
    """Shares of every layer by the sizes of clusters.

    A cluster but the last gets max(1, floor(n_c / I r)) of a layer of r units and the last what is
    left, as released. Where that is nothing, because many clusters are tiny, the widest gives one.
    """
    total, layers = int(np.sum(sizes)), []
    for width in encoder_dims[::-1]:
        parts = [max(1, int(int(size) / total * width)) for size in sizes[:-1]]
        parts.append(width - sum(parts))
        while parts[-1] < 1:
            parts[int(np.argmax(parts[:-1]))] -= 1
            parts[-1] += 1
        layers.append(parts)
    return Layout(tuple(int(size) for size in sizes), tuple(zip(*layers, strict=True)))


def places(cluster: jax.Array, num_clusters: int) -> jax.Array:
    """i32[I]: how many items of its cluster stand before each item of the catalogue."""
    member = cluster[:, None] == jnp.arange(num_clusters)
    before = jnp.cumsum(member, axis=0, dtype=jnp.int32) - 1
    return jnp.take_along_axis(before, cluster[:, None], axis=1)[:, 0]
