"""Which examples an update sees: a pure function of (key, epoch)."""

import jax
import jax.numpy as jnp


def permutation(key: jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """i32[steps, B]: a fresh permutation cut into full batches; the rest waits for its turn."""
    steps = num_examples // batch_size
    order = jax.random.permutation(key, num_examples)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def iid(key: jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """i32[steps, B]: every batch drawn by itself, its B examples distinct."""
    steps = num_examples // batch_size
    return jax.lax.map(
        lambda k: distinct(k, num_examples, batch_size), jax.random.split(key, steps)
    )


def distinct(key: jax.Array, num_examples: int, count: int) -> jax.Array:
    """i32[count] drawn uniformly without replacement from `range(num_examples)`.

    The first `count` different values of a longer row of independent draws have that law and cost
    a sort of 2 `count` values, not of all examples. Where such a row holds too few, the start of a
    permutation, which has the same law, serves.
    """
    k_draw, k_fallback = jax.random.split(key)

    def permuted():
        return jax.random.permutation(k_fallback, num_examples)[:count].astype(jnp.int32)

    if num_examples < 4 * count:
        return permuted()
    drawn = jax.random.randint(k_draw, (2 * count,), 0, num_examples, jnp.int32)
    by_value = jnp.argsort(drawn, stable=True)
    ordered = drawn[by_value]
    repeats = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] == ordered[:-1]])
    first = jnp.zeros(2 * count, bool).at[by_value].set(~repeats)
    place = jnp.where(first, jnp.cumsum(first) - 1, count)
    picked = jnp.zeros(count, jnp.int32).at[place].set(drawn, mode="drop")
    return jax.lax.cond(first.sum() >= count, lambda: picked, permuted)
