"""Models and networks with their functions compiled.

Run one operation at a time, each operation and shape would be a program of its own: a hundred for
the initial arrays of a small model.
"""

import flax.linen as nn
import jax

from jaxrec_diff.models.contract import Head, Model


def compiled(model: Model) -> Model:
    """The same functions, each one program a shape."""
    return model._replace(
        init=jax.jit(model.init),
        loss=jax.jit(model.loss),
        sample=jax.jit(model.sample),
        head=_compiled_head(model),
        variants={name: jax.jit(variant) for name, variant in model.variants.items()},
    )


def _compiled_head(model: Model):
    """Its arrays come from one program; where items stand among its rows is no array."""
    static = []

    @jax.jit
    def arrays(params, state):
        table, bias, *static[:] = model.head(params, state)
        return table, bias

    return lambda params, state: Head(*arrays(params, state), *static)


def applied(net: nn.Module):
    """`net.apply`, one program a method and shape."""
    return jax.jit(net.apply, static_argnames=("method", "deterministic"))
