"""Standard normals for every row of a reverse path, cheaper than those of `jax.random.normal`.

A stochastic sampler with a small denoiser is bound by its noise. Threefry makes two words a block:
here the first is the noise of an even row of the path and the second that of the odd row after it.

On CPU two things matter that have to do with how XLA compiles and not with what is drawn. The
rounds are written out (`threefry`), those of the keys too. And a scan carries the uniforms of its
next row, so that the rounds and the inverse distribution function are two kernels: in one, they
take half as long again. A block is made twice, once for each of its words: carrying it from an even
row to the odd one takes longer than making it anew.

>>> import jax, jax.numpy as jnp
>>> path = whole(jax.random.key(0), (2, 3))
>>> path(jnp.int32(4)).shape
(2, 3)
"""

from collections.abc import Callable
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.ops import rng, threefry


@dataclass(frozen=True)
class Normals:
    """Row i32[] of a path -> z, f32, the same whichever rows were asked for before."""

    uniforms: Callable[[jax.Array], jax.Array]
    """A row's number -> its uniforms, f32, shaped like z."""

    def __call__(self, i: jax.Array) -> jax.Array:
        return from_uniform(self.uniforms(i))

    def following(self, uniforms: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The uniforms of row `i + 1`, for a scan to carry, and z of row `i` from its own."""
        return self.uniforms(i + 1), from_uniform(uniforms)


def whole(key: jax.Array, shape: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    """Noise for a whole batch under one key a pair of rows: i32[] -> f32[*shape]."""
    if not threefry.is_threefry(key):
        return lambda i: jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float32)
    words = threefry.words(key)
    return Normals(lambda i: _row(threefry.fold_in(words, i // 2), i, shape))


def by_row(
    key: jax.Array, row_id: jax.Array, shape: tuple[int, ...]
) -> Callable[[jax.Array], jax.Array]:
    """Noise keyed by place in the global batch, `row_id` i32[B]: i32[] -> f32[B, *shape].

    A row of the batch draws the same whatever batch or device it is in.
    """
    chex.assert_rank(row_id, 1)
    chex.assert_type(row_id, int)
    if not threefry.is_threefry(key):
        return lambda i: rng.normal(jax.random.fold_in(key, i), row_id, shape)

    words, rows = threefry.words(key), row_id.astype(jnp.uint32)

    def uniforms(i: jax.Array) -> jax.Array:
        keys = threefry.fold_in(threefry.fold_in(words, i // 2), rows)
        return jax.vmap(lambda *key: _row(key, i, shape))(*keys)

    return Normals(uniforms)


def uniform(words: jax.Array) -> jax.Array:
    """u32[...] -> f32[...] in (-1, 1): the middles of 2^23 equal cells, symmetric about 0."""
    chex.assert_type(words, jnp.uint32)
    cell = (words >> np.uint32(9)).astype(jnp.int32).astype(jnp.float32)
    return (cell + np.float32(0.5)) * np.float32(2.0**-22) - np.float32(1.0)  # all exact


def from_uniform(u: jax.Array) -> jax.Array:
    """sqrt(2) erfinv(u), f32[...] -> f32[...]: standard normals of `uniform`, at most 5.29.

    The relative error is below 1e-6.
    """
    chex.assert_type(u, jnp.float32)  # the polynomial is of that precision
    w = -jnp.log((1.0 - u) * (1.0 + u))  # Giles's variable ("Approximating the erfinv function")
    x = w * np.float32(1.0 / 7.625) - np.float32(1.0)  # in [-1, 1]
    value = jnp.full_like(x, _RATIO[0])
    for coefficient in _RATIO[1:]:
        value = value * x + np.float32(coefficient)
    return value * u


# sqrt(2) erfinv(u) / u as a polynomial in x, highest power first: the least largest relative error
# (2.4e-7) over the cells. One polynomial has no branch to select, unlike `jax.lax.erf_inv`.
_RATIO = (
    -0.011820768006145954, 0.0068276310339570045, 0.04335542768239975, -0.04235024005174637,
    -0.030304409563541412, 0.05934486910700798, -0.050800152122974396, 0.055235669016838074,
    -0.03542462736368179, -0.03521846979856491, 0.16201628744602203, -0.4390529692173004,
    1.9437426328659058, 3.6692917346954346,
)  # fmt: skip


def _row(key: threefry.Words, i: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniforms of row `i`, f32[*shape], from its pair's key."""
    even, odd = threefry.counted(key, shape)
    return uniform(jnp.where(i % 2 == 0, even, odd))
