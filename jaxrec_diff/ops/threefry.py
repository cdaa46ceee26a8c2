"""Threefry-2x32 with its rounds written out: the words of `jax.random`, cheaper on CPU.

Salmon et al. 2011 (doi:10.1145/2063384.2063405). `jax.random` lowers the twenty rounds to a loop
over arrays in memory on CPU, which no kernel around it can take in. Written out they are some sixty
operations on registers, inside the kernel that reads the words.

>>> import jax
>>> key = jax.random.key(0)
>>> bool((jax.random.bits(written_out(key), (3,)) == jax.random.bits(key, (3,))).all())
True
"""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extend_random

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_GENERATOR = "threefry2x32"

Words = tuple[Any, Any]  # u32[...] each: a key, a counter or a block


def block(key: Words, counter: Words) -> Words:
    """20 rounds: a key and a counter of two u32 each -> two words."""
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


def counted(key: Words, shape: tuple[int, ...]) -> Words:
    """Blocks counted from 0 in the order of memory, u32[*shape] each.

    The counter has the kernel's own shape: a reshaped iota takes XLA's CPU backend a fifth longer.
    """
    if math.prod(shape) >= 2**32:
        raise ValueError(f"one key counts 2**32 blocks, and {shape} are more")
    count = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(math.prod(shape[axis + 1 :]))
        count += stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return block(key, (jnp.zeros_like(count), count))


def fold_in(key: Words, data: Any) -> Words:
    """The words of `jax.random.fold_in`, for every number of `data`."""
    data = jnp.asarray(data).astype(jnp.uint32)
    return block(key, (jnp.zeros_like(data), data))


def words(key: jax.Array) -> Words:
    """Of a key, typed or raw."""
    both = jax.random.key_data(key)
    return both[0], both[1]


def is_threefry(key: jax.Array) -> bool:
    """Whether a key, typed or raw, is of this generator."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.shape[-1:] == (2,)  # raw words, which are the default generator's
    return str(jax.random.key_impl(key)) == _GENERATOR


def written_out(key: jax.Array) -> jax.Array:
    """The key as one that draws the same by rounds written out; of other generators itself.

    Only for use inside a function: its type is not that of `jax.random.key`.
    """
    if not is_threefry(key):
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_WRITTEN_OUT)


def _partitionable() -> bool:
    """Whether words are counted one by one; the older order is left to `jax.random`."""
    return jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    if bit_width == 64 or not _partitionable():
        own = jax.random.wrap_key_data(key, impl=_GENERATOR)
        return jax.random.bits(own, shape, f"uint{bit_width}")
    first, second = counted((key[0], key[1]), shape)
    return (first ^ second).astype(f"uint{bit_width}")


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if not _partitionable():
        own = jax.random.wrap_key_data(key, impl=_GENERATOR)
        return jax.random.key_data(jax.random.split(own, shape))
    return jnp.stack(counted((key[0], key[1]), shape), axis=-1)


def _fold_in(key: jax.Array, data: Any) -> jax.Array:
    return jnp.stack(fold_in((key[0], key[1]), data), axis=-1)


def _seed(seed: jax.Array) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed, impl=_GENERATOR))


_WRITTEN_OUT = extend_random.define_prng_impl(
    key_shape=(2,), seed=_seed, split=_split, random_bits=_random_bits, fold_in=_fold_in,
    name="threefry2x32_written_out", tag="wry",
)  # fmt: skip
