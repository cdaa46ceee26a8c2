"""Floating-point operations and unfused traffic of a program, counted in its jaxpr.

A jaxpr says how often a loop runs before any compiler has changed it, so that the count is the same
on every platform: the length of a `scan` multiplies what stands inside. Branches of a `cond` count
as if each were taken equally often; of those that are a platform's own, that platform's counts. A
`while` whose end is not known before it runs counts `unknown` turns. What no result needs is left
out.

>>> import jax, jax.numpy as jnp
>>> chained = lambda x: jax.lax.fori_loop(0, 10, lambda i, x: x @ x, x)
>>> of(jax.make_jaxpr(chained)(jnp.ones((8, 8)))).products == 10 * 2 * 8**3
True
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

# One operation for every number that comes out.
_EACH = frozenset(
    "acos acosh add add_any asin asinh atan atan2 atanh cbrt ceil clamp cos cosh digamma div erf "
    "erf_inv erfc exp exp2 expm1 floor integer_pow lgamma log log1p logistic max min mul neg pow "
    "rem round rsqrt sign sin sinh sqrt square sub tan tanh".split()
)
# One for every number that goes in.
_FOLDS = frozenset(
    "argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce_max reduce_min reduce_prod "
    "reduce_sum reduce_window_sum".split()
)
# One for every number that is added to a place; their `update_jaxpr` is that addition.
_SCATTERS = frozenset(
    ("scatter-add", "scatter_add", "scatter_mul", "scatter_min", "scatter_max", "scatter-mul")
)
# Nothing is moved by them once a program is compiled.
_VIEWS = frozenset(("reshape", "squeeze", "expand_dims", "stop_gradient", "copy_p", "pvary"))


class Work(NamedTuple):
    """What one run computes, all devices together."""

    products: float  # operations of matrix products and convolutions, two a multiplication
    elementwise: float  # of everything else on floats
    traffic: float  # bytes that its operations read and write where nothing is fused
    unknown_loops: int  # loops that were counted with `unknown` turns

    @property
    def flops(self) -> float:
        return self.products + self.elementwise


def of(jaxpr: Any, unknown: int = 1, platform: str = "") -> Work:
    """The work of a jaxpr.

    Args:
      jaxpr: `jax.make_jaxpr(f)(...)` or `jax.jit(f).trace(...).jaxpr`.
      unknown: turns of a loop that ends by what it computes.
      platform: whose branches count, by default that of JAX's default backend.
    """
    inner = _opened(jaxpr)
    # without what no result needs, as a compiler drops it
    inner, _ = partial_eval.dce_jaxpr(inner, [True] * len(inner.outvars))
    products = elementwise = traffic = 0.0
    counted = _Counted(unknown, platform or jax.default_backend())
    for equation, times in _equations(inner, 1.0, counted):
        multiplied, single = _operations(equation)
        products += times * multiplied
        elementwise += times * single
        if equation.primitive.name not in _VIEWS:
            traffic += times * sum(map(_bytes, (*equation.invars, *equation.outvars)))
    loops = sum(1 for _ in _unknown_loops(inner, counted))
    return Work(products, elementwise, traffic, loops)


class _Counted(NamedTuple):
    unknown: int  # turns of a loop that ends by what it computes
    platform: str


def _equations(jaxpr: core.Jaxpr, times: float, counted: _Counted) -> Iterator[tuple[Any, float]]:
    """Every equation that computes itself, and how often it runs."""
    for equation in jaxpr.eqns:
        parts = _parts(equation, counted)
        if not parts:
            yield equation, times
        for part, turns in parts:
            yield from _equations(part, times * turns, counted)


def _parts(equation: Any, counted: _Counted) -> list[tuple[core.Jaxpr, float]]:
    """Programs inside an equation, and how often it runs each."""
    name, params = equation.primitive.name, equation.params
    if name in _EACH or name in _FOLDS or name in _SCATTERS or name.startswith("reduce"):
        return []
    if name == "scan":
        return [(_opened(params["jaxpr"]), params["length"])]
    if name == "while":
        return [(_opened(params[part]), counted.unknown) for part in ("cond_jaxpr", "body_jaxpr")]
    if name == "cond":
        branches = _taken(params, counted.platform)
        return [(branch, 1.0 / len(branches)) for branch in branches]
    inside = [
        value for value in params.values() if isinstance(value, core.Jaxpr | core.ClosedJaxpr)
    ]
    copies = 1
    if name == "shard_map":  # written for one of the devices
        axes = params.get("manual_axes", params["mesh"].axis_names)
        copies = math.prod(dict(params["mesh"].shape)[axis] for axis in axes)
    if name == "xla_pmap":
        copies = params["global_axis_size"]
    return [(_opened(value), copies) for value in inside]


def _taken(params: dict[str, Any], platform: str) -> list[core.Jaxpr]:
    """Branches that may be taken on a platform, each equally often."""
    branches = [_opened(branch) for branch in params["branches"]]
    named = params.get("branches_platforms")
    if named is None:
        return branches
    words = {platform, *({"cuda", "gpu"} if platform in ("cuda", "gpu") else ())}
    own = [i for i, of in enumerate(named) if of is not None and words & set(of)]
    default = [i for i, of in enumerate(named) if of is None]
    return [branches[(own + default)[0]]]


def _unknown_loops(jaxpr: core.Jaxpr, counted: _Counted) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation
        for part, _ in _parts(equation, counted):
            yield from _unknown_loops(part, counted)


def _operations(equation: Any) -> tuple[float, float]:
    """(operations of products, of the rest) of one equation."""
    name, out = equation.primitive.name, equation.outvars
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * _size(out[0]) * math.prod(left[axis] for axis in contracted), 0.0
    if name == "ragged_dot":
        return 2.0 * _size(out[0]) * equation.invars[0].aval.shape[-1], 0.0
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * _size(out[0]) * math.prod(kernel) / features, 0.0
    counted = None
    if name in _EACH:
        counted = out[0]
    elif name in _FOLDS:
        counted = equation.invars[0]
    elif name in _SCATTERS:
        counted = equation.invars[2]
    if counted is None or not jnp.issubdtype(counted.aval.dtype, jnp.inexact):
        return 0.0, 0.0
    return 0.0, float(_size(counted))


def _opened(jaxpr: Any) -> core.Jaxpr:
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr


def _size(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _bytes(var: Any) -> float:
    aval = var.aval
    if not hasattr(aval, "dtype"):  # a token
        return 0.0
    return float(_size(var) * aval.dtype.itemsize)
