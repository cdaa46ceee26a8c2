"""A reverse process as a value, and the one scan that runs any of them.

Every Gaussian reverse move is x_s = a x0_hat + b x_t + c z + e x0_hat_before. A `Chain` holds the
table of such moves, the denoiser, the start, the noise and what keeps points in their space;
`samplers` makes the tables. A table is an argument of the compiled scan: another eta or another
schedule does not compile again.

>>> import jax.numpy as jnp
>>> halve = Steps(t=jnp.arange(3)[::-1], a=jnp.zeros(3), b=jnp.full(3, 0.5), c=None, e=jnp.zeros(3))
>>> chain = Chain(halve, denoise=lambda xt, t: xt, start=jnp.array([[8.0]]))
>>> run(chain).tolist(), trajectory(chain).ravel().tolist()
([[1.0]], [8.0, 4.0, 2.0, 1.0])
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxrec_diff.ops import normals

Denoiser = Callable[[jax.Array, jax.Array], jax.Array]
"""(x_t [B, ...], t i32[]) -> x0_hat. One step serves the whole batch, so tables are sliced."""

Draw = Callable[[jax.Array], jax.Array]
"""Row i32[] of the path -> z, shaped like x_t."""


class Steps(NamedTuple):
    """A reverse path; row i, N in all, maps x_t to `a x0_hat + b x_t + c z + e x0_hat_before`."""

    t: Any  # i32[N], falling; a step may be visited twice
    a: Any  # float[N], as are b, c and e
    b: Any
    c: Any  # ends in 0, but where z is no noise that is drawn on the way
    e: Any  # weight of the estimate of the row before; zero but for multistep solvers


def _identity(x: jax.Array) -> jax.Array:
    return x


class Chain(NamedTuple):
    """A reverse process from its start to its end."""

    steps: Steps  # a traced table
    denoise: Denoiser  # guidance is wrapped around it beforehand
    start: jax.Array  # float[B, ...]; points keep its type
    draw: Draw | None = None  # None draws nothing and leaves the column `c` unused
    project: Callable[[jax.Array], jax.Array] = _identity
    """Maps each point back to its space, a sphere say."""


def run(chain: Chain, unroll: int = 1) -> jax.Array:
    """The end of a chain, float[B, ...], in one `lax.scan`.

    Args:
      chain: of N rows; 0 of them end where they start.
      unroll: rows a loop turn.
    """
    return _scan(chain, unroll, keep=False)[0]


def trajectory(chain: Chain) -> jax.Array:
    """The start and the point after every row, float[N + 1, B, ...]: N times `run`'s memory."""
    return jnp.concatenate([chain.start[None], _scan(chain, 1, keep=True)[1]])


def _scan(chain: Chain, unroll: int, *, keep: bool) -> tuple[jax.Array, Any]:
    steps, denoise, start, draw, project = chain
    chex.assert_rank(steps.t, 1)
    chex.assert_equal_shape([column for column in steps if column is not None])
    ahead = draw if isinstance(draw, normals.Normals) else None

    def move(carry, row):
        xt, before, uniforms = carry
        i, step = row
        x0_hat = denoise(xt, step.t)
        chex.assert_equal_shape([x0_hat, xt])
        xs = step.a * x0_hat + step.b * xt + step.e * before
        if ahead is not None:
            # On accelerators one kernel draws a row; what is carried would be memory traffic.
            uniforms, z = jax.lax.platform_dependent(
                uniforms, i, cpu=ahead.following, default=lambda uniforms, i: (uniforms, ahead(i))
            )
            xs = xs + step.c * z
        elif draw is not None:
            xs = xs + step.c * draw(i)
        # worked out in the widest of all types and carried in that of the start
        xs, x0_hat = project(xs).astype(xt.dtype), x0_hat.astype(xt.dtype)
        chex.assert_equal_shape([xs, xt])
        return (xs, x0_hat, uniforms), xs if keep else None

    index = jnp.arange(steps.t.shape[0])
    first = (start, jnp.zeros_like(start), () if ahead is None else ahead.uniforms(jnp.int32(0)))
    (last, _, _), path = jax.lax.scan(move, first, (index, steps), unroll=unroll)
    return last, path
