"""The same sampler as people write it otherwise: what `lax.scan` and `jit` are worth.

`loop` is a Python loop over a jitted step, as most JAX samplers are written; `eager` the same with
nothing jitted. Both take a model's own `Chain`, so that they walk the same path with the same
noise, and their numbers can be held against those of the compiled scan. PyTorch ports stand in
`benchmarks/torch_*.py` of a checkout.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxrec_diff.diffusion.process import Chain

JAX = ("loop", "eager-jax")
TORCH = ("torch", "torch-compile")
PEERS = JAX + TORCH

_PORTS = Path(__file__).parents[2] / "benchmarks"


def loop(chain_of: Callable[..., Chain], *args: Any) -> Callable[[], jax.Array]:
    """A jitted beginning, and a call of a jitted step for every row of the path.

    Args:
      chain_of: (params, state, key, query) -> the reverse process.
      args: its arguments.

    Returns:
      A function that walks the whole path and returns its end.
    """
    traced: list[Any] = []

    @jax.jit
    def begin(*args):
        """The start, and all arrays that a step reads, among them what the condition was made
        into."""
        chain = chain_of(*args)
        first = chain.start, jnp.zeros_like(chain.start)
        made = jax.make_jaxpr(lambda *at: _move(chain, *at))(*first, jnp.int32(0))
        traced[:] = [made.jaxpr, len(chain.steps.t)]
        return first, made.consts

    jax.eval_shape(begin, *args)  # fills `traced`
    jaxpr, rows = traced

    @jax.jit
    def step(reads, xt, before, i):
        return tuple(core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, reads))(xt, before, i))

    def run():
        (xt, before), reads = begin(*args)
        for i in range(rows):
            xt, before = step(reads, xt, before, np.int32(i))
        return xt

    return run


def eager(chain_of: Callable[..., Chain], *args: Any) -> Callable[[], jax.Array]:
    """Every operation dispatched by itself; arguments as of `loop`."""

    def run():
        chain = chain_of(*args)
        xt, before = chain.start, jnp.zeros_like(chain.start)
        for i in range(len(chain.steps.t)):
            xt, before = _move(chain, xt, before, jnp.int32(i))
        return xt

    return run


def _move(
    chain: Chain, xt: jax.Array, before: jax.Array, i: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Row i of the path: the point after it, and the estimate it was made of."""
    t, a, b, c, e = jax.tree.map(lambda column: column[i], chain.steps)
    x0_hat = chain.denoise(xt, t)
    xs = a * x0_hat + b * xt + e * before
    if chain.draw is not None:
        xs = xs + c * chain.draw(i)
    return chain.project(xs).astype(xt.dtype), x0_hat.astype(xt.dtype)


def difference(found: Any, wanted: Any) -> float:
    """The largest difference, as a share of the largest number.

    >>> difference(np.array([1.0, -3.5]), np.array([1.0, -4.0]))
    0.125
    """
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))


def port(settings: Any, question: str) -> Callable[..., Callable[[], Any]]:
    """The PyTorch port of a system: (settings, spec, params, asked, compiled=) -> what is timed.

    Args:
      settings: of the model. Presets of the same model share a port.
      question: "sampler", which is asked with queries, or "train", which is with examples.

    Raises:
      ValueError: if there is none, or no PyTorch.
    """
    name = type(settings).__module__.rsplit(".", 1)[-1]
    path = _PORTS / f"torch_{name}.py"
    if not path.is_file():
        known = sorted(p.stem.removeprefix("torch_") for p in _PORTS.glob("torch_*.py"))
        there = f"there are {', '.join(known)}" if known else "a checkout of this project has some"
        raise ValueError(f"{name} has no PyTorch port in benchmarks/; {there}")
    if importlib.util.find_spec("torch") is None:
        raise ValueError("a PyTorch peer needs PyTorch: pip install 'jaxrec-diff[benchmark]'")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = getattr(module, f"peer_{question}", None)
    if made is None:
        raise ValueError(f"the PyTorch port of {name} has no {question}")
    return made
