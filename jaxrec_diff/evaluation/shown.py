"""What a network does with its x_t: the same chain, shown something else in its place.

Each change is a function of the denoiser alone, so every model with a chain has all of them. Where
lists stay whatever the network is shown, its diffusion is no part of what it recommends.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import cut
from jaxrec_diff.diffusion import process
from jaxrec_diff.evaluation.types import Split
from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import ragged

_NOISE = 1 << 20  # folded into a draw's key: the noise of what is shown is not that of the chain

View = Callable[[jax.Array, Any], jax.Array]
"""(x_t [B, ...], t i32[]) -> what the network is shown instead of it."""


class Asked(NamedTuple):
    """A query, and the row whose x_0 may be shown."""

    query: Any
    of: Any  # what that row asks
    relevant: jax.Array  # i32[B, R] its answers, 0 for none
    row_id: jax.Array  # i32[B], of the row that asks; keys the noise of both


Seen = Callable[[Model, Any, Any, jax.Array, Asked], View]
"""model, params, state, key, asked -> view."""


def itself(model: Model, params: Any, state: Any, key: jax.Array, asked: Asked) -> View:
    """x_t as it is."""
    del model, params, state, key, asked
    return lambda xt, t: xt


def nothing(model: Model, params: Any, state: Any, key: jax.Array, asked: Asked) -> View:
    """Zeros."""
    del model, params, state, key, asked
    return lambda xt, t: jnp.zeros_like(xt)


def the_answer(model: Model, params: Any, state: Any, key: jax.Array, asked: Asked) -> View:
    """x_t of the true x_0 of the row `asked` names, noised afresh at every step."""
    noised = model.noised
    assert noised is not None  # `seen_through` looked
    key, of = jax.random.fold_in(key, _NOISE), asked.of._replace(row_id=asked.row_id)
    return lambda xt, t: noised(params, state, key, of, asked.relevant, t).astype(xt.dtype)


def seen_through(model: Model, seen: Seen) -> Model:
    """The model whose network sees its x_t through a view; its queries are `Asked`.

    Raises:
      ValueError: if the model has no chain, or does not say what a true x_0 is.
    """
    chain = model.chain
    if chain is None or model.noised is None:
        raise ValueError("the network of a model without a chain is shown no x_t")

    def sample(params: Any, state: Any, key: jax.Array, asked: Asked) -> jax.Array:
        walk = chain(params, state, key, asked.query._replace(row_id=asked.row_id))
        view = seen(model, params, state, key, asked)
        end = process.run(walk._replace(denoise=lambda xt, t: walk.denoise(view(xt, t), t)))
        if model.finish_step is not None:
            end = view(end, jnp.asarray(model.finish_step))
        return model.finish(params, state, end)

    return model._replace(sample=sample, variants={})


def beside(split: Split, query: Callable[[Any, jax.Array], Any], other: np.ndarray) -> Split:
    """The split whose queries are `Asked`: row n is shown row `other[n]`, i32[N].

    Args:
      split: from `evaluator.split_of`.
      query: `Batcher.query`, which cuts any row of it.
      other: a row for each row.
    """

    def alone(parts: Any, index: np.ndarray) -> Any:
        rows, histories, other = parts
        of = other[index]
        return split.alone(rows, index), split.alone(rows, of), ragged.alone(histories, of)

    def asking(own: Callable[[Any, jax.Array], Any]) -> Callable[[Any, jax.Array], Asked]:
        def ask(parts, place):
            rows, of, histories = parts
            answer = cut.answers(histories, place, max_seen=0, max_relevant=split.max_relevant)
            return Asked(own(rows, place), query(of, place), answer.relevant, place)

        return ask

    groups = tuple(group._replace(query=asking(group.query)) for group in split.groups)
    return split._replace(rows=(split.rows, split.histories, other), alone=alone, groups=groups)


def strangers(users: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each row a row of another user, i32[N]; each row is shown once.

    Raises:
      ValueError: if one user has more than half of the rows.

    >>> users = np.array([3, 3, 5, 8])
    >>> other = strangers(users, np.random.default_rng(0))
    >>> bool((users[other] != users).all()), sorted(other.tolist())
    (True, [0, 1, 2, 3])
    """
    _, user, counts = np.unique(users, return_inverse=True, return_counts=True)
    most = int(counts.max())
    if 2 * most > len(users):
        raise ValueError(f"one user has {most} of {len(users)} rows, so not all have a stranger")
    # Rows user by user, users at random: as many places on as the largest user has, nobody is left.
    by_user = np.lexsort((random.random(len(users)), random.permutation(len(counts))[user]))
    other = np.empty(len(users), np.int32)
    other[by_user] = np.roll(by_user, -most)
    return other
