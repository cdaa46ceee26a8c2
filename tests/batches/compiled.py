"""A batcher with its functions compiled: run one operation at a time, each would be a program."""

import jax

from jaxrec_diff.batches.batcher import Batcher


def compiled(batcher: Batcher) -> Batcher:
    """The same functions, each one program a shape."""
    order = batcher.order and jax.jit(batcher.order)
    example, query = jax.jit(batcher.example), jax.jit(batcher.query)
    return batcher._replace(example=example, query=query, order=order)
