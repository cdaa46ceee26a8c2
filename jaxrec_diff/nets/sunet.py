"""SU-Net: a U-Net over the embeddings of M items, each read as a square picture (DiffuASR).

An embedding of d numbers is a picture of side r = sqrt(d), the M items are its channels, so that
convolutions mix items. Widths that are no even square are padded with zeros: the side is the
smallest even r with r^2 >= d, and it is halved as often as it divides by two, three times at most.

Liu et al. 2023 (arXiv:2309.12858), Section 3.3; wiring and initialisation of the released code.

On pictures of one or two pixels a 3x3 convolution is a small matrix, with the taps that can never
meet a pixel left out; that is exact, and on a CPU 20 to 40 times as fast as the convolution. At
one pixel only the centre of a kernel acts: a quarter of the released network's weights are dead.
On wider pictures a CPU convolves in Winograd's tiles of 4x4 pixels, with a quarter of the products.
Parameters are the same whatever form a convolution takes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.nets.dense import Dense, uniform_fan_in
from jaxrec_diff.nets.dropout import drop_rows
from jaxrec_diff.nets.embeddings import sinusoidal

_MULTIPLES = (1, 2, 2, 2)  # of the channels, a level
_GROUPS = 8
_TILE_CHANNELS = 32  # from so many on, tiles pay off on a CPU


def side(width: int) -> int:
    """Side r of the picture that holds `width` numbers.

    >>> [side(d) for d in (16, 50, 64, 100, 128, 256)]
    [4, 8, 8, 10, 12, 16]
    """
    if width < 1:
        raise ValueError(f"a picture holds at least 1 number, got {width}")
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
    tile_channels: int | None = None
    """Fewest channels, in and out, of a convolution taken in tiles where the side divides by four;
    0 takes none. None: 32 on a CPU without dropout, else 0."""

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
        # A train step gains nothing from tiles and compiles for longer.
        training = self.tile_channels is None and keys is not None
        forms = (self.dense_side, 0 if training else self.tile_channels)
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
            h = ResBlock(features, self.dropout_rate, *forms, name=name)(h, z, row_keys)
            if h.shape[1] in self.attention_sides and not name.startswith("mid"):
                h = Attention(name=name + "_attention")(h)
            return h

        def conv(features, name, h, move="same"):
            return Conv(features, move, *forms, name=name)(h)

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
    tile_channels: int | None

    @nn.compact
    def __call__(self, x: jax.Array, z: jax.Array, keys: jax.Array | None) -> jax.Array:
        """f32[B, r, r, C], f32[B, Z], key[B] or None -> f32[B, r, r, features]."""
        h = nn.silu(GroupNorm(name="norm_in")(x))
        h = Conv(self.features, "same", self.dense_side, self.tile_channels, name="conv_in")(h)
        h = h + Dense(self.features, name="embed")(nn.silu(z))[:, None, None, :]
        h = nn.silu(GroupNorm(name="norm_out")(h))
        if keys is not None:
            h = drop_rows(keys, h, self.dropout_rate)
        h = Conv(self.features, "same", self.dense_side, self.tile_channels, name="conv_out")(h)
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
        """f32[B, r, r, C] -> f32[B, r, r, C]."""
        size, r, _, channels = x.shape
        scale, bias = _Affine(name="norm")(channels)
        each = channels // _GROUPS
        # Sums over pixels, then over a group's channels, by a matrix that leaves them in place.
        group = np.kron(np.eye(_GROUPS), np.full((each, each), 1.0 / (r * r * each)))
        group = group.astype(x.dtype)

        def mean_of(flat):
            sums = flat.sum(axis=1)
            return jnp.matmul(sums, group, precision=jax.lax.Precision.HIGHEST)[:, None]

        flat = x.reshape(size, r * r, channels)
        flat = flat - mean_of(flat)
        variance = mean_of(flat**2)
        return (flat * (jax.lax.rsqrt(variance + 1e-6) * scale) + bias).reshape(x.shape)


class _Affine(nn.Module):
    """(scale f32[C], bias f32[C]) of a norm."""

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        scale = self.param("scale", nn.initializers.ones, (channels,))
        return scale, self.param("bias", nn.initializers.zeros, (channels,))


class Conv(nn.Module):
    """A 3x3 convolution with bias on pictures f32[B, r, r, C] -> f32[B, r', r', features].

    same: zeros around, r' = r; down: zeros below and right, stride 2, r' = r / 2; up: every pixel
    doubled both ways first, r' = 2 r.
    """

    features: int
    move: Literal["same", "down", "up"]
    dense_side: int
    tile_channels: int | None
    """None: as many as pay off on a CPU, and no tiles elsewhere: accelerators multiply float32 in
    fewer bits, which tiles would magnify."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, r, _, channels = x.shape
        init = uniform_fan_in(9 * channels)
        kernel = self.param("kernel", init, (3, 3, channels, self.features))
        bias = self.param("bias", init, (self.features,))
        if min(r, r // 2 if self.move == "down" else r) <= self.dense_side:
            out = x.reshape(size, -1) @ _as_matrix(kernel, taps_of(r, self.move))
            to = {"same": r, "down": r // 2, "up": 2 * r}[self.move]
            return out.reshape(size, to, to, self.features) + bias
        if self.move == "down":
            return halved(x, kernel) + bias
        fewest = _TILE_CHANNELS if self.tile_channels is None else self.tile_channels
        whole: Callable[..., jax.Array] = _doubled if self.move == "up" else convolved
        if not (0 < fewest <= min(channels, self.features) and r % 4 == 0):
            return whole(x, kernel) + bias
        tiles = doubled_in_tiles if self.move == "up" else partial(convolved, tiles=True)
        if self.tile_channels is not None:
            return tiles(x, kernel) + bias
        return jax.lax.platform_dependent(x, kernel, cpu=tiles, default=whole) + bias


def _plain(x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [padding, padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def _patches(x: jax.Array, stride: int, padding: tuple[int, int]) -> jax.Array:
    """f32[B, r, r, C] -> f32[B, r', r', 9 C], what a kernel meets at each of its places."""
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    ends = x.shape[1] - 2
    shifts = [(slice(i, i + ends, stride), slice(j, j + ends, stride)) for i, j in np.ndindex(3, 3)]
    return jnp.concatenate([x[:, down, across] for down, across in shifts], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolved(x: jax.Array, kernel: jax.Array, tiles: bool = False) -> jax.Array:
    """A 3x3 convolution between zeros, f32[B, r, r, C], f32[3, 3, C, O] -> f32[B, r, r, O].

    Its gradient is written out, for tiles and on a CPU: that of `tiled` is a convolution again and
    not what its sums become, and those of a plain one that XLA derives run 15 (of x) to 50 times
    (of the kernel) slower inside a loop such as the scan of an epoch than outside.
    """
    _check(x, kernel)
    return tiled(x, kernel) if tiles else _plain(x, kernel, 1, (1, 1))


def _convolved_forward(x, kernel, tiles):
    return convolved(x, kernel, tiles), (x, kernel)


def _convolved_backward(tiles, kept, gradient):
    x, kernel = kept

    def written_out(x, kernel, gradient):
        # of x: the turned kernel, from outputs to inputs; of the kernel: one product of all patches
        of_x = convolved(gradient, kernel[::-1, ::-1].swapaxes(2, 3), tiles)
        patches = _patches(x, 1, (1, 1)).reshape(-1, 9 * x.shape[-1])
        of_kernel = patches.T @ gradient.reshape(-1, gradient.shape[-1])
        return of_x, of_kernel.reshape(kernel.shape)

    def derived(x, kernel, gradient):
        return jax.vjp(lambda x, kernel: _plain(x, kernel, 1, (1, 1)), x, kernel)[1](gradient)

    if tiles:
        return written_out(x, kernel, gradient)
    return jax.lax.platform_dependent(x, kernel, gradient, cpu=written_out, default=derived)


convolved.defvjp(_convolved_forward, _convolved_backward)


def halved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Stride 2, zeros below and right, f32[B, r, r, C], f32[3, 3, C, O] -> f32[B, r/2, r/2, O].

    On a CPU one product of all patches, whose gradients XLA runs at full speed in a loop.
    """
    _check(x, kernel, divides=2)

    def product(x, kernel):
        return _patches(x, 2, (0, 1)) @ kernel.reshape(-1, kernel.shape[-1])

    def convolution(x, kernel):
        return _plain(x, kernel, 2, (0, 1))

    return jax.lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def _doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolved` of a picture of twice the side, f32[B, r, r, C] -> f32[B, 2 r, 2 r, O]."""
    _check(x, kernel)
    return convolved(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2), kernel)


def _as_matrix(kernel: jax.Array, taps: np.ndarray) -> jax.Array:
    """f32[3, 3, C, O], f32[P, Q, 9] -> f32[P C, Q O]."""
    parts = [*kernel.reshape(9, *kernel.shape[2:])]
    rows = [jnp.concatenate(_combinations(row, parts), axis=1) for row in taps]
    return jnp.concatenate(rows)


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


# Winograd's F(4, 3) with the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016,
# arXiv:1509.09308): what is multiplied is made of six pixels and of three taps, and four pixels are
# made of the products.
_FROM_PIXELS = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
                (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))  # fmt: skip
_FROM_TAPS = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
              (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
_FROM_PRODUCTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0),
                  (0, 1, -1, 8, -8, 1))  # fmt: skip


def tiled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution between zeros by tiles of 4x4 pixels, 36 products a tile in place of 144.

    f32[B, r, r, C], f32[3, 3, C, O] -> f32[B, r, r, O], where r divides by four. Exact but for
    rounding: in float32 it is off by up to 6e-5 of the output's deviation (128 channels of normal
    numbers), a convolution by 2e-6.
    """
    _check(x, kernel, divides=4)
    size, r, _, channels = x.shape
    count, features = r // 4, kernel.shape[-1]

    def windows(x, axis):  # every fourth window of six pixels
        ends = 4 * count - 3
        pixels = [jax.lax.slice_in_dim(x, i, i + ends, 4, axis) for i in range(6)]
        return jnp.stack(_combinations(_FROM_PIXELS, pixels))

    weights = jnp.stack(_combinations(_FROM_TAPS, list(kernel)))
    weights = jnp.stack(_combinations(_FROM_TAPS, [weights[:, j] for j in range(3)]), axis=1)
    x = windows(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 2)  # [6, B, r + 2, n, C]
    x = windows(x, 2)  # [6 down, 6 across, B, n down, n across, C]
    out = jnp.einsum(
        "nbc,nco->nbo",
        x.reshape(36, size * count * count, channels),
        weights.reshape(36, channels, features),
    ).reshape(6, 6, size, count, count, features)
    across = _combinations(_FROM_PRODUCTS, [out[:, j] for j in range(6)])
    out = jnp.stack(across, axis=4)  # [6, B, n, n, 4, O]
    out = jnp.stack(_combinations(_FROM_PRODUCTS, list(out)), axis=2)  # [B, n, 4, n, 4, O]
    return out.reshape(size, r, r, features)


def doubled_in_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`tiled` on every pixel doubled both ways, f32[B, r, r, C] -> f32[B, 2 r, 2 r, O].

    Of two pixels that were one, the first meets taps (k0, k1 + k2) of its left neighbour and
    itself, the second (k0 + k1, k2) of itself and its right neighbour: four convolutions of x.
    """
    _check(x, kernel, divides=4)
    size, r = x.shape[:2]
    for axis in (0, 1):
        k0, k1, k2 = (jax.lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3))
        none = jnp.zeros_like(k1)
        first = jnp.stack([k0, k1 + k2, none], axis=axis)
        second = jnp.stack([none, k0 + k1, k2], axis=axis)
        kernel = jnp.stack([first, second], axis=3 + axis)
    features = kernel.shape[-1]
    out = convolved(x, kernel.reshape(*kernel.shape[:3], 4 * features), True)
    out = out.reshape(size, r, r, 2, 2, features).swapaxes(2, 3)
    return out.reshape(size, 2 * r, 2 * r, features)


def _check(x: jax.Array, kernel: jax.Array, divides: int = 1) -> None:
    chex.assert_rank(x, 4)
    chex.assert_shape(x, (None, x.shape[2], x.shape[1], None))
    chex.assert_shape(kernel, (3, 3, x.shape[3], None))
    chex.assert_type([x, kernel], float)
    chex.assert_is_divisible(x.shape[1], divides)


def _combinations(table, parts: list[jax.Array]) -> list[jax.Array]:
    """Rows of sum_i table[., i] parts[i], without the zeros of a constant table."""
    out = []
    for row in table:
        terms = [float(w) * part for w, part in zip(row, parts, strict=True) if w]
        out.append(sum(terms[1:], terms[0]) if terms else jnp.zeros_like(parts[0]))
    return out
