"""The reverse walk of a history, through what is nearest at its steps."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.diffusion import process
from jaxrec_diff.evaluation import rank
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.experiments.restore import Restored
from jaxrec_diff.inference import program
from jaxrec_diff.inference.program import Asked
from jaxrec_diff.models import registry


def nearest(
    restored: Restored, *, keys: Sequence[jax.Array], taken: np.ndarray, k: int
) -> Callable[[Any, Any, Asked], Top]:
    """(params, state, asked) -> the best candidates, were the walk to end there: [S, B, M, k].

    Of S draws, after each of M numbers of reverse steps. After all of them it is the list of that
    draw, unless the sampler draws from the law of the end (`ends_in_list`).

    Args:
      restored: as a user is served by it (`restore.honest`); its model has a `chain`.
      keys: of the draws.
      taken: i64[M] reverse steps, from 0, which is noise.
      k: items at a step.
    """
    phase, model, _, _ = restored
    kind, chain = registry.input_of(phase.settings.model), model.chain
    assert chain is not None, "a model without a reverse process"
    allowed = program.candidates(restored)

    def found(params: Any, state: Any, asked: Asked) -> Top:
        query = kind.from_history(asked.history, asked.row_id, asked.user, phase.settings.data)
        head = model.head(params, state)

        def one(key: jax.Array) -> Top:
            path = process.trajectory(chain(params, state, key, query))[taken]
            points = jnp.moveaxis(path, 1, 0).reshape(-1, *path.shape[2:])
            drawn = rank.Drawn(model.finish(params, state, points), head, model.score_pooling)
            # a row of `hidden` stands for all steps of its history
            top = rank.top(drawn, k=k, seen=asked.hidden, allowed=allowed)
            rows = len(asked.row_id), len(taken), k
            return Top(top.scores.reshape(rows), top.items.reshape(rows))

        return jax.lax.map(one, jnp.stack(keys))

    return found


def num_steps(restored: Restored) -> int | None:
    """Steps of a model's reverse process; None where it has none."""
    phase, model, params, state = restored
    kind, chain = registry.input_of(phase.settings.model), model.chain
    if chain is None:
        return None
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    history = jax.ShapeDtypeStruct((1, 16), jnp.int32)

    def steps(params, state, history, row_id, user):
        query = kind.from_history(history, row_id, user, phase.settings.data)
        return chain(params, state, jax.random.key(0), query).steps.t

    return jax.eval_shape(steps, params, state, history, number, number).shape[0]


def ends_in_list(restored: Restored) -> bool:
    """Whether a draw's list is that of its walk's end; not where a sampler draws from the end's law
    without walking."""
    sampler = getattr(restored.phase.settings.model, "sampler", None)
    return getattr(sampler, "kind", None) != "closed_form"
