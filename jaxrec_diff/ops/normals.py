"""Standard normals for every row of a reverse path, at half the price of `jax.random.normal`.

A stochastic sampler with a small denoiser is bound by its noise. Threefry (Salmon et al. 2011,
doi:10.1145/2063384.2063405) makes two words a block, of which `jax.random` keeps one, their
exclusive or. Here the first is the noise of an even row of the path and the second that of the odd
row after it.

On CPU more things matter that have to do with how XLA compiles and not with what is drawn. The
rounds are written out, where `jax.random` loops over them in memory. A scan carries the pair of
which it is using a half, so that the rounds and the inverse distribution function are two kernels:
in one, they are half as fast. And a pair is one complex array: two arrays would be two kernels with
the rounds in both.

>>> import jax, jax.numpy as jnp
>>> path = whole(jax.random.key(0), (2, 3))
>>> path(jnp.int32(4)).shape
(2, 3)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.ops import rng

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_GENERATOR = "threefry2x32"


@dataclass(frozen=True)
class Normals:
    """Row i32[] of a path -> z, f32, the same whichever rows were asked for before."""

    pair: Callable[[jax.Array], jax.Array]
    """Half the row's number i32[] -> uniforms of an even row and, imaginary, of the odd one after
    it: c64, shaped like z."""

    def __call__(self, i: jax.Array) -> jax.Array:
        return _half(self.pair(i // 2), i)

    def nothing(self) -> jax.Array:
        """What a scan carries before its first row."""
        like = jax.eval_shape(self.pair, jnp.int32(0))
        return jnp.zeros(like.shape, like.dtype)

    def following(self, pair: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The pair of row `i` and z of that row, for rows in turn from 0: every pair made once."""
        pair = jax.lax.cond(i % 2 == 0, lambda: self.pair(i // 2), lambda: pair)
        return pair, _half(pair, i)


def whole(key: jax.Array, shape: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    """Noise for a whole batch under one key a pair of rows: i32[] -> f32[*shape]."""
    if not _is_threefry(key):
        return lambda i: jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float32)
    return Normals(lambda half: _pair(jax.random.fold_in(key, half), shape))


def by_row(
    key: jax.Array, row_id: jax.Array, shape: tuple[int, ...]
) -> Callable[[jax.Array], jax.Array]:
    """Noise keyed by place in the global batch, `row_id` i32[B]: i32[] -> f32[B, *shape].

    A row of the batch draws the same whatever batch or device it is in.
    """
    chex.assert_rank(row_id, 1)
    chex.assert_type(row_id, int)
    if not _is_threefry(key):
        return lambda i: rng.normal(jax.random.fold_in(key, i), row_id, shape)

    def pair(half: jax.Array) -> jax.Array:
        keys = rng.row_keys(jax.random.fold_in(key, half), row_id)
        return jax.vmap(lambda k: _pair(k, shape))(keys)

    return Normals(pair)


def threefry(key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds: a key and a counter of two u32 each -> two words."""
    chex.assert_type([*key, *counter], jnp.uint32)
    chex.assert_equal_shape(list(counter))
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    first, second = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            first = first + second
            second = first ^ (second << np.uint32(distance) | second >> np.uint32(32 - distance))
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return first, second


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


def _pair(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """c64[*shape] of the blocks counted from 0 in the order of memory."""
    words = jax.random.key_data(key)
    count = jax.lax.iota(jnp.uint32, int(np.prod(shape, dtype=np.int64)))
    even, odd = threefry((words[0], words[1]), (jnp.zeros_like(count), count))
    return jax.lax.complex(uniform(even), uniform(odd)).reshape(shape)


def _half(pair: jax.Array, i: jax.Array) -> jax.Array:
    return from_uniform(jnp.where(i % 2 == 0, jnp.real(pair), jnp.imag(pair)))


def _is_threefry(key: jax.Array) -> bool:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.shape[-1:] == (2,)  # raw words, which are the default generator's
    return str(jax.random.key_impl(key)) == _GENERATOR
