"""Negatives that the rows of a training batch share, as part of the example.

They are drawn before the loss and stand in the example with their log Q, so that a loss is a
function of the items its example names and of nothing else of the catalogue.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches import types
from jaxrec_diff.batches.types import Negatives, Sequences, Triplets
from jaxrec_diff.ops import negatives, rng
from jaxrec_diff.ops.negatives import Law

Source = Literal["uniform", "log_uniform", "popularity", "in_batch"]
_NEVER = -1e9  # added to the logit of a class that does not compete

Draw = Callable[[jax.Array, Sequences, Any], Negatives]  # key, example, targets asked about


def sampler(
    source: Source,
    count: int,
    num_items: int,
    item_counts: np.ndarray | None,
    *,
    power: float = 1.0,
    axis_name: str | None = None,
) -> Draw:
    """How a batch gets its negatives.

    Args:
      source: uniform over items, by popularity, log-uniform over popularity ranks, or the targets
        of the batch's rows, whose Q is the items' share of the training data (Yi et al. 2019,
        "Sampling-bias-corrected neural modeling for large corpus item recommendations", Eq. 3).
      count: of negatives, which in_batch ignores.
      num_items: I.
      item_counts: i64[I] how often each item occurs in training; uniform does without.
      power: of the counts, for popularity.
      axis_name: device axis of `pmap`, over which in_batch gathers the targets.

    Returns:
      (key, example, targets i32[...] or a tuple of them) -> negatives, ids i32[n], with the log Q
      of both.

    Raises:
      ValueError: if items are drawn by counts that are not known.
    """
    law = law_of(source, num_items, item_counts, power)

    def draw(key, example, targets):
        if source == "in_batch":
            ids = jnp.where(example.weight > 0, example.target, 0)
            if axis_name is not None:
                ids = jax.lax.all_gather(ids, axis_name, tiled=True)
        else:
            ids = law.draw(key, count)
        return Negatives(ids, law.log_q(ids), jax.tree.map(law.log_q, targets))

    return draw


def law_of(source: Source, num_items: int, item_counts: np.ndarray | None, power: float) -> Law:
    """The distribution of one negative, i32 ids in 1..I."""
    if source == "uniform":
        return negatives.uniform(num_items)
    if item_counts is None:
        raise ValueError(f"negatives {source!r} need item counts; 'uniform' does not")
    if source == "log_uniform":
        return negatives.log_uniform(item_counts)
    return negatives.popularity(item_counts, power=power if source == "popularity" else 1.0)


def corrections(negatives: Negatives, target: jax.Array) -> jax.Array:
    """What is added to the negatives' logits, f32[B, n], for targets i32[B].

    It is -log Q, and the end of all hope for a negative that is the row's own target, which
    competes once, or that is none (0). `-negatives.target_log_q` is added to the targets' logits.
    """
    ids = negatives.ids[None, :]
    absent = jnp.where((target[:, None] == ids) | (ids == 0), _NEVER, 0.0)
    return -negatives.log_q + absent


def own(
    share: Literal["sequence", "position"],
    key: jax.Array,
    example: Sequences,
    count: int,
    num_items: int,
) -> Any:
    """Uniform items that a sequence has to itself, i32[B, n], or each of its places, i32[B, L, n]
    (a tuple where histories come in several lengths)."""
    if share == "sequence":
        return negatives.uniform_rows(key, example.row_id, (count,), num_items)

    def apart(seq, row):
        return negatives.uniform_places(key, row, seq.shape[1], count, num_items)

    return types.at_lengths(apart, example.seq, example.row_id)


def own_logits(items: jax.Array, point: jax.Array, target: jax.Array, ids: jax.Array) -> jax.Array:
    """f32[B, L, n] logits of points f32[B, L, D] for `own` ids; no hope for a target i32[B, L]."""
    of_row = ids.ndim == 2
    rows = "bnd" if of_row else "blnd"
    found = jnp.einsum(f"bld,{rows}->bln", point, items[ids])
    itself = target[..., None] == (ids[:, None] if of_row else ids)
    return jnp.where(itself, _NEVER, found)


def by_law(law: Law, key: jax.Array, example: Triplets) -> Triplets:
    """Triplets against an item drawn for each row, which may be among the user's own.

    A pair is a softmax of two classes, so that `losses.bpr` takes the log Q of both as a sampled
    softmax does. A pair of an item with itself weighs nothing.
    """
    draw = jax.vmap(lambda key: law.draw(key, 1)[0])
    return _against(draw(rng.row_keys(key, example.row_id)), law, example)


def by_batch(
    law: Law, key: jax.Array, example: Triplets, *, axis_name: str | None = None
) -> Triplets:
    """Triplets against the item of a row of the batch that is drawn for each, as for `by_law`.

    A row of weight 0 has no item, and a pair that draws it weighs nothing.

    Args:
      law: the items' share of the training data.
      key: of the draws, each row's own.
      example: B triplets.
      axis_name: device axis of `pmap`, over which items are gathered.
    """
    items = jnp.where(example.weight > 0, example.positive, 0)
    if axis_name is not None:
        items = jax.lax.all_gather(items, axis_name, tiled=True)
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, items.shape[0]))
    other = items[draw(rng.row_keys(key, example.row_id))]
    return _against(jnp.where(other == 0, example.positive, other), law, example)


def _against(other: jax.Array, law: Law, example: Triplets) -> Triplets:
    return example._replace(
        negative=other,
        weight=jnp.where(other == example.positive, 0.0, example.weight),
        log_q=law.log_q(example.positive) - law.log_q(other),
    )
