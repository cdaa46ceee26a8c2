"""Networks of rows whose columns are grouped into clusters."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.nets.mlp import StepMLP, glorot_normal
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


class LatentNet(nn.Module):
    """Encoders, decoder and denoiser of L-DiffRec (arXiv:2304.04971)."""

    layout: Layout
    denoiser_dims: tuple[int, ...]  # from the bottleneck outwards
    step_width: int
    bounded: bool  # whether codes end in tanh
    joint: bool  # one linear decoder, or one a cluster

    def setup(self) -> None:
        self.encoder = [
            ClusterEncoder(size, widths, self.bounded)
            for size, widths in zip(*self.layout, strict=True)
        ]
        latent, items = self.layout.latent, sum(self.layout.sizes)
        if self.joint:
            self.decoder = [ClusterDecoder(items, (latent,))]
        else:
            self.decoder = [
                ClusterDecoder(size, widths) for size, widths in zip(*self.layout, strict=True)
            ]
        self.denoiser = StepMLP(latent, self.denoiser_dims, self.step_width)

    def __call__(self, items: jax.Array, value: jax.Array, cluster: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        mean, _ = self.encode(items, value, cluster)
        return self.hidden(self.denoiser(mean, jnp.zeros(items.shape[0], jnp.int32)))

    def encode(
        self, items: jax.Array, value: jax.Array, cluster: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Rows i32[B, P], f32[B, P] and clusters i32[I] -> mean and log variance, f32[B, Z]."""
        place = jnp.maximum(items - 1, 0)
        mine, inner = cluster[place], places(cluster, len(self.encoder))[place]
        codes = []
        for c, encoder in enumerate(self.encoder):
            # A place of another cluster stays filled, with value 0.
            ids = jnp.where(items > 0, jnp.where(mine == c, inner, 0) + 1, 0)
            codes.append(jnp.split(encoder(ids, jnp.where(mine == c, value, 0.0)), 2, axis=-1))
        mean, logvar = (jnp.concatenate(part, axis=-1) for part in zip(*codes, strict=True))
        return mean, logvar

    def denoise(self, z: jax.Array, t: jax.Array) -> jax.Array:
        """f32[B, Z] -> f32[B, Z]"""
        return self.denoiser(z, t)

    def hidden(self, z: jax.Array) -> jax.Array:
        """f32[B, Z] -> f32[B, D]: the latent as the rows of `table` see it."""
        if len(self.decoder) == 1:
            return self.decoder[0](z)
        stops = np.cumsum([widths[-1] for widths in self.layout.widths])[:-1]
        parts = jnp.split(z, stops, axis=-1)
        return jnp.concatenate(
            [decoder(part) for decoder, part in zip(self.decoder, parts, strict=True)], axis=-1
        )

    def table(self, cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        """f32[I, D] and f32[I]: the decoder's last layer, in the order of the catalogue."""
        if len(self.decoder) == 1:
            return self.decoder[0].table, self.decoder[0].bias
        widths = [widths[0] for widths in self.layout.widths]
        table = jnp.zeros((sum(self.layout.sizes), sum(widths)))
        bias, first = jnp.zeros(len(table)), 0
        for c, decoder in enumerate(self.decoder):
            rows = jnp.flatnonzero(cluster == c, size=self.layout.sizes[c])
            table = table.at[rows, first : first + widths[c]].set(decoder.table)
            bias, first = bias.at[rows].set(decoder.bias), first + widths[c]
        return table, bias


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
