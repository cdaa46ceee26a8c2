"""Which examples an update sees: a pure function of (key, epoch)."""

import jax
import jax.numpy as jnp
import numpy as np


def permutation(key: jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """i32[steps, B]: a fresh permutation cut into full batches; the rest waits for its turn."""
    steps = num_examples // batch_size
    order = jax.random.permutation(key, num_examples)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def whole(key: jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """i32[steps, B]: a fresh permutation of everything; the last batch is filled up with -1."""
    steps = -(-num_examples // batch_size)
    order = jax.random.permutation(key, num_examples).astype(jnp.int32)
    padding = steps * batch_size - num_examples
    return jnp.pad(order, (0, padding), constant_values=-1).reshape(steps, batch_size)


def iid(key: jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """i32[steps, B]: every batch drawn by itself, its B examples distinct."""
    steps = num_examples // batch_size
    return jax.lax.map(
        lambda k: distinct(k, num_examples, batch_size), jax.random.split(key, steps)
    )


def capacities(sizes: tuple[int, ...], batch_size: int, groups: int = 1) -> tuple[int, ...]:
    """Slots that every batch keeps for each bucket of `sizes` examples.

    A bucket's examples are spread evenly over the batches of an epoch, so a batch holds the floor
    or the ceiling of its share; slots are the ceiling, made divisible by `groups`.

    >>> capacities((70, 30), 10), capacities((71, 30), 10, groups=2)
    ((7, 3), (8, 4))
    """
    steps = sum(sizes) // batch_size
    return tuple(-(-m // (steps * groups)) * groups for m in _taken(sizes, steps * batch_size))


def stratified(
    key: jax.Array, sizes: tuple[int, ...], batch_size: int, groups: int = 1
) -> jax.Array:
    """An epoch of batches in which every bucket has a fixed number of slots.

    Examples are numbered bucket by bucket. Each is drawn at most once, as in `permutation`, the
    examples of all batches together number what full batches of `batch_size` would hold, and a
    batch differs from `batch_size` by less than the number of buckets.

    Args:
      key: of the epoch.
      sizes: examples in each bucket.
      batch_size: B, examples a batch holds on average.
      groups: devices; each gets the same slots.

    Returns:
      i32[steps, groups * slots], for each device its slots of the first bucket, of the second, ..;
      -1 in a slot that stays empty.
    """
    steps = sum(sizes) // batch_size
    taken = _taken(sizes, steps * batch_size)
    parts, offset = [], 0
    for bucket, (size, m, slots) in enumerate(
        zip(sizes, taken, capacities(sizes, batch_size, groups), strict=True)
    ):
        bounds = np.arange(steps + 1) * m // max(steps, 1)  # int64: steps * m exceeds 32 bits
        place = bounds[:-1, None] + np.arange(slots)
        real = place < bounds[1:, None]
        order = jax.random.permutation(jax.random.fold_in(key, bucket), size) + offset
        index = jnp.where(real, order[np.where(real, place, 0)], -1) if size else -1 + 0 * place
        # dealt like cards, so that no device gets all the empty slots
        parts.append(jnp.swapaxes(index.reshape(steps, slots // groups, groups), 1, 2))
        offset += size
    return jnp.concatenate(parts, axis=2).reshape(steps, -1).astype(jnp.int32)


def _taken(sizes: tuple[int, ...], total: int) -> list[int]:
    """How many of each bucket make `total`, in proportion to their sizes, by largest remainder."""
    exact = [size * total for size in sizes]
    taken = [value // sum(sizes) for value in exact]
    by_rest = sorted(range(len(sizes)), key=lambda k: -(exact[k] % sum(sizes)))
    for bucket in by_rest[: total - sum(taken)]:
        taken[bucket] += 1
    return taken


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
