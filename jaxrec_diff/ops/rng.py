"""Random numbers keyed by row: a row draws the same whatever batch or device it is in.

>>> import jax, jax.numpy as jnp
>>> key = jax.random.key(0)
>>> whole = normal(key, jnp.arange(4), (3,))
>>> bool((whole[2:] == normal(key, jnp.array([2, 3]), (3,))).all())
True
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxrec_diff.ops import threefry


def row_keys(key: jax.Array, row_id: jax.Array) -> jax.Array:
    """A key for each row: i32[B] places in the global batch -> key[B].

    They draw what `jax.random.fold_in(key, row)` draws, with Threefry's rounds written out: random
    words are what dropout and noise cost on a CPU.
    """
    chex.assert_rank(row_id, 1)
    chex.assert_type(row_id, int)
    key = threefry.written_out(key)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(row_id)


def split(keys: jax.Array, num: int = 2) -> jax.Array:
    """`num` keys of each row's: key[B] -> key[num, B]."""
    chex.assert_rank(keys, {1, 2})  # keys, or their raw words
    return jax.vmap(lambda key: jax.random.split(key, num), out_axes=1)(keys)


def normal(key: jax.Array, row_id: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Standard normals, float[B, *shape]."""
    return _by_row(lambda k: jax.random.normal(k, shape), key, row_id)


def uniform(key: jax.Array, row_id: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniforms in [0, 1), float[B, *shape]."""
    return _by_row(lambda k: jax.random.uniform(k, shape), key, row_id)


def gumbel(key: jax.Array, row_id: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Standard Gumbels, float[B, *shape]."""
    return _by_row(lambda k: jax.random.gumbel(k, shape), key, row_id)


def bernoulli(
    key: jax.Array, row_id: jax.Array, p: float, shape: tuple[int, ...] = ()
) -> jax.Array:
    """True with probability `p`, bool[B, *shape]."""
    return _by_row(lambda k: jax.random.bernoulli(k, p, shape), key, row_id)


def randint(
    key: jax.Array, row_id: jax.Array, low: int, high: int, shape: tuple[int, ...] = ()
) -> jax.Array:
    """Integers in [low, high), i32[B, *shape]."""
    return _by_row(lambda k: jax.random.randint(k, shape, low, high, jnp.int32), key, row_id)


def _by_row(draw: Callable[[jax.Array], jax.Array], key: jax.Array, row_id: jax.Array) -> jax.Array:
    return jax.vmap(draw)(row_keys(key, row_id))
