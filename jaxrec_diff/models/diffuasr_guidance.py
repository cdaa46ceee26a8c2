"""Guidance of DiffuASR: a condition extrapolated, or a trained recommender that is asked."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses
from jaxrec_diff.batches.types import Prefixes, SequenceQuery
from jaxrec_diff.models.diffuasr_rows import Affine, pooled
from jaxrec_diff.ops import negatives

LogProb = Callable[[jax.Array], jax.Array]  # points f32[B, M, D] -> f32[B]

Predict = Callable[..., jax.Array]
"""x f32[B, M, D], t i32[B] or i32[], cond f32[B, D], key[B] of dropout or None -> f32[B, M, D]."""

Question = Literal["item", "softmax", "all", "bpr", "cond"]
_OFFICIAL_SCALE = 0.01  # sqrt(1 - abar_0), which the released code takes at every step


class Classifier(NamedTuple):
    """A recommender and what it is asked."""

    read: Callable[[Any, jax.Array], jax.Array]  # of `Reader`
    back: Affine  # from points to what it reads
    question: Question  # see `DiffuASRConfig.classifier_target`
    pool: Literal["mean", "sum"]
    num_items: int


def log_prob(
    classifier: Classifier,
    params: Any,
    rows: jax.Array,
    key: jax.Array,
    asked: SequenceQuery | Prefixes,
    *,
    last: bool = False,
) -> LogProb:
    """What the recommender thinks of histories behind points, as a function of the points.

    Args:
      classifier: with its question.
      params: of the recommender.
      rows: f32[R, D] of items, row j item j, in the space of the points.
      key: of the negatives of question "bpr", each row's own.
      asked: B histories.
      last: ask about a history's last item instead of its first.

    Returns:
      f32[B, M, D] -> f32[B]
    """
    kind, back, seq = classifier.question, classifier.back, asked.seq
    target = seq if kind in ("all", "bpr") else one(seq, last)
    real, wanted = target > 0, back(rows[target])
    if kind == "bpr":
        other = negatives.strangers(key, asked.row_id, seq, classifier.num_items)
        real = real & (other <= classifier.num_items)
        wanted = wanted - back(rows[jnp.minimum(other, classifier.num_items)])

    def of(x):
        found = classifier.read(params, back(x))
        if kind == "cond":
            return -losses.mse(found, pooled(classifier.pool, back(rows[seq]), seq))
        logits = jnp.einsum("bd,bnd->bn", found, wanted)
        if kind == "softmax":
            classes = 1, classifier.num_items + 1
            return logits[:, 0] - losses.log_normaliser(found, back(rows), classes=classes)
        each = jnp.where(real, jax.nn.log_sigmoid(logits), 0.0)
        return each.sum(axis=-1) / jnp.maximum(real.sum(axis=-1), 1)

    return of


def extrapolated(
    predict: Predict,
    null: jax.Array,
    weight: float,
    x: jax.Array,
    t: jax.Array,
    cond: jax.Array,
    keys: jax.Array | None = None,
) -> jax.Array:
    """(1 + gamma) f(c) - gamma f(null), one call on a doubled batch.

    Args:
      predict: the network.
      null: f32[D], what nobody is told.
      weight: gamma.
      x: as are `t`, `cond` and `keys`, what `predict` is called with.
    """
    null = jnp.broadcast_to(null, cond.shape)
    keys = None if keys is None else jnp.concatenate([keys, keys])
    t = jnp.broadcast_to(t, x.shape[:1])
    x, t, cond = (jnp.concatenate(pair) for pair in ((x, x), (t, t), (cond, null)))
    with_cond, without = jnp.split(predict(x, t, cond, keys), 2)
    return (1.0 + weight) * with_cond - weight * without


def released(
    predict: Predict,
    asked: LogProb | None,
    null: jax.Array | None,
    weight: float,
    x: jax.Array,
    t: jax.Array,
    cond: jax.Array,
    keys: jax.Array | None = None,
) -> jax.Array:
    """The noise as the released code has it, in training and in sampling.

    Arguments as of `extrapolated`, which it is where there is a `null`; `asked` is the classifier,
    if there is one.
    """
    if null is not None:
        return extrapolated(predict, null, weight, x, t, cond, keys)
    out = predict(x, t, cond, keys)
    return out if asked is None else out + released_correction(asked, x, weight)


def released_correction(log_prob: LogProb, xt: jax.Array, weight: float) -> jax.Array:
    """What the released code adds to eps, shaped like x_t: 0.01 w grad log p, a constant.

    The paper adds -w sqrt(1 - abar_t) grad log p: the released loss is -log p, and its gradient is
    subtracted.
    """
    gradient = jax.grad(lambda x: log_prob(x).sum())(xt)
    return jax.lax.stop_gradient(_OFFICIAL_SCALE * weight * gradient)


def one(seq: jax.Array, last: bool) -> jax.Array:
    """The first or the last item of a history, i32[B, 1]."""
    place = jnp.maximum((seq > 0).sum(axis=-1, keepdims=True) - 1, 0) if last else 0
    return jnp.take_along_axis(seq, jnp.broadcast_to(place, (len(seq), 1)), axis=1)
