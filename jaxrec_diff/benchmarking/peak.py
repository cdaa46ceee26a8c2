"""What this machine can do at most, measured in the run that is compared with it.

A large matrix product and a copy of an array that no cache holds, both by JAX in float32 and at its
default precision, which on accelerators is what the models compute at.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff.benchmarking import timing

# Rows of the product, and bytes that are copied: large enough to be bound by what they measure.
_SIZES = {"cpu": (1024, 2**27), "gpu": (8192, 2**30), "tpu": (8192, 2**30)}


class Peak(NamedTuple):
    """Of one device."""

    flops: float  # operations a second, of a matrix product
    bytes: float  # bytes a second read and written, of a copy


@functools.cache
def measured(platform: str, processor_clock: bool = False, repeats: int = 5) -> Peak:
    """Measures the first device of a platform, once a process.

    Args:
      platform: as `jax.default_backend` says it.
      processor_clock: by processor seconds, as points are (`points.on_one_core`).
      repeats: measurements of each.
    """
    size, copied = _SIZES.get(platform, _SIZES["gpu"])
    square = jnp.ones((size, size), jnp.float32)
    flat = jnp.ones(copied // 4, jnp.float32)
    product, copy = jax.jit(jnp.matmul), jax.jit(jnp.negative)

    def seconds(run) -> float:
        found = timing.measured(run, repeats)
        return found.processor if processor_clock else found.seconds

    flops = 2.0 * size**3 / seconds(lambda: product(square, square))
    return Peak(flops, 2.0 * copied / seconds(lambda: copy(flat)))
