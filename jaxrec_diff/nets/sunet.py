"""SU-Net: a U-Net over the embeddings of M items, each read as a square picture (DiffuASR).

An embedding of d numbers is a picture of side r = sqrt(d), the M items are its channels, so that
convolutions mix items. Widths that are no even square are padded with zeros: the side is the
smallest even r with r^2 >= d, and it is halved as often as it divides by two, three times at most.

Liu et al. 2023 (arXiv:2309.12858), Section 3.3; wiring and initialisation of the released code.

On pictures of one or two pixels a 3x3 convolution is a small matrix, with the taps that can never
meet a pixel left out; that is exact, and on a CPU 20 to 40 times as fast as the convolution. At
one pixel only the centre of a kernel acts: a quarter of the released network's weights are dead.
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.nets.dense import Dense, uniform_fan_in
from jaxrec_diff.nets.dropout import keep_mask
from jaxrec_diff.nets.embeddings import sinusoidal

_MULTIPLES = (1, 2, 2, 2)  # of the channels, a level
_GROUPS = 8


def side(width: int) -> int:
    """Side r of the picture that holds `width` numbers.

    >>> [side(d) for d in (16, 50, 64, 100, 128, 256)]
    [4, 8, 8, 10, 12, 16]
    """
    r = math.isqrt(width - 1) + 1
    return r + r % 2


def levels(width: int) -> int:
    """Resolutions of the network: r, r / 2, ...

    >>> [levels(d) for d in (16, 50, 64, 100, 128, 256)]
    [3, 4, 4, 2, 3, 4]
    """
    r = side(width)
    return min(4, (r & -r).bit_length())


class SUNet(nn.Module):
    """f(x, t, c): f32[B, M, d] noisy items, i32[B] steps, f32[B, D] conditions -> f32[B, M, d]."""

    channels: int = 32
    """Channels of the first level, a multiple of 8. The released 8 are fewer than M = 10 items, so
    that the first convolution loses M - 8 of every M numbers of x."""
    num_blocks: int = 2
    """Blocks a level on the way down; one more on the way up."""
    dropout_rate: float = 0.1
    attention_sides: tuple[int, ...] = (16,)
    """Sides of pictures with attention after every block."""
    guided: bool = True
    """Whether there is a condition."""
    input_skip: bool = False
    """Adds x to the output."""
    dense_side: int = 2
    """Largest picture whose convolutions are taken as matrices; 0 takes none."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        cond: jax.Array | None = None,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """`keys`, a key a row, turn dropout on."""
        size, items, width = x.shape
        r, depth, ch = side(width), levels(width), self.channels
        hidden = 4 * ch
        z = Embed(hidden, name="time")(sinusoidal(t, ch))
        if self.guided:
            assert cond is not None, "a guided network needs a condition"
            z = z + Embed(hidden, name="guide")(cond)
        count = iter(range(1000))

        def block(features, name, h):
            row_keys = None
            index = next(count)
            if keys is not None:
                row_keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
            h = ResBlock(features, self.dropout_rate, self.dense_side, name=name)(h, z, row_keys)
            if h.shape[1] in self.attention_sides and not name.startswith("mid"):
                h = Attention(name=name + "_attention")(h)
            return h

        def conv(features, name, h, move="same"):
            return Conv(features, move, self.dense_side, name=name)(h)

        picture = jnp.pad(x, ((0, 0), (0, 0), (0, r * r - width)))
        picture = picture.reshape(size, items, r, r).transpose(0, 2, 3, 1)
        h = conv(ch, "conv_in", picture)
        stack = [h]
        for level in range(depth):
            features = ch * _MULTIPLES[level]
            for j in range(self.num_blocks):
                h = block(features, f"down_{level}_{j}", h)
                stack.append(h)
            if level < depth - 1:
                h = conv(features, f"down_{level}_sample", h, "down")
                stack.append(h)
        h = block(h.shape[-1], "mid_0", h)
        h = Attention(name="mid_attention")(h)
        h = block(h.shape[-1], "mid_1", h)
        for level in reversed(range(depth)):
            features = ch * _MULTIPLES[level]
            for j in range(self.num_blocks + 1):
                h = jnp.concatenate([h, stack.pop()], axis=-1)
                h = block(features, f"up_{level}_{j}", h)
            if level > 0:
                h = conv(features, f"up_{level}_sample", h, "up")
        h = conv(items, "conv_out", nn.silu(GroupNorm(name="norm_out")(h)))
        out = h.transpose(0, 3, 1, 2).reshape(size, items, r * r)[..., :width]
        return out + x if self.input_skip else out


class Embed(nn.Module):
    """Two affine layers with a silu between them."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Dense(self.features, name="outer")(nn.silu(Dense(self.features, name="inner")(x)))


class ResBlock(nn.Module):
    """Norm, silu and convolution twice, z added in between, and a shortcut."""

    features: int
    dropout_rate: float
    dense_side: int

    @nn.compact
    def __call__(self, x: jax.Array, z: jax.Array, keys: jax.Array | None) -> jax.Array:
        """f32[B, r, r, C], f32[B, Z], key[B] or None -> f32[B, r, r, features]."""
        h = nn.silu(GroupNorm(name="norm_in")(x))
        h = Conv(self.features, "same", self.dense_side, name="conv_in")(h)
        h = h + Dense(self.features, name="embed")(nn.silu(z))[:, None, None, :]
        h = nn.silu(GroupNorm(name="norm_out")(h))
        if keys is not None and self.dropout_rate > 0:
            keep = jax.vmap(lambda key: keep_mask(key, h.shape[1:], self.dropout_rate))(keys)
            h = jnp.where(keep, h / (1.0 - self.dropout_rate), 0.0)
        h = Conv(self.features, "same", self.dense_side, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Dense(self.features, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """One head over the pixels, residual. On a single pixel it is an affine map."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        flat = GroupNorm(name="norm")(x).reshape(x.shape[0], -1, features)
        query, key, value = (Dense(features, name=n)(flat) for n in ("query", "key", "value"))
        scores = jnp.einsum("bpc,bqc->bpq", query, key) / features**0.5
        mixed = jnp.einsum("bpq,bqc->bpc", jax.nn.softmax(scores, axis=-1), value)
        return x + Dense(features, name="out")(mixed).reshape(x.shape)


class GroupNorm(nn.Module):
    """Eight groups of neighbouring channels; variance in two passes.

    On a single pixel of 16 channels a group is a pair of numbers, which become about +-1.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.GroupNorm(num_groups=_GROUPS, epsilon=1e-6, use_fast_variance=False, name="norm")(
            x
        )


class Conv(nn.Module):
    """A 3x3 convolution with bias on pictures f32[B, r, r, C] -> f32[B, r', r', features].

    same: zeros around, r' = r; down: zeros below and right, stride 2, r' = r / 2; up: every pixel
    doubled both ways first, r' = 2 r.
    """

    features: int
    move: Literal["same", "down", "up"]
    dense_side: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, r, _, channels = x.shape
        init = uniform_fan_in(9 * channels)
        kernel = self.param("kernel", init, (3, 3, channels, self.features))
        bias = self.param("bias", init, (self.features,))
        if min(r, r // 2 if self.move == "down" else r) <= self.dense_side:
            taps = taps_of(r, self.move)
            matrix = jnp.einsum(
                "pqk,kio->piqo", taps, kernel.reshape(9, channels, self.features)
            ).reshape(taps.shape[0] * channels, -1)
            out = x.reshape(size, -1) @ matrix
            to = math.isqrt(taps.shape[1])
            return out.reshape(size, to, to, self.features) + bias
        if self.move == "up":
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        stride, padding = (2, (0, 1)) if self.move == "down" else (1, (1, 1))
        out = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [padding, padding],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return out + bias


def taps_of(r: int, move: Literal["same", "down", "up"]) -> np.ndarray:
    """f32[r^2, r'^2, 9]: 1 where a tap of the kernel carries a pixel to a pixel.

    >>> taps_of(1, "same")[0, 0].tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    to = {"same": r, "down": r // 2, "up": 2 * r}[move]
    stride, shift, grain = {"same": (1, 1, 1), "down": (2, 0, 1), "up": (1, 1, 2)}[move]
    reach = np.zeros((r, to, 3), np.float32)  # of one axis
    for q in range(to):
        for k in range(3):
            source = stride * q + k - shift
            if 0 <= source < grain * r:
                reach[source // grain, q, k] = 1.0
    both = np.einsum("aci,bdj->abcdij", reach, reach)
    return both.reshape(r * r, to * to, 9)
