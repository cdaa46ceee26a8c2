"""What the lists of a split are like beside how many answers they hold."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches.types import Answer
from jaxrec_diff.evaluation import metrics
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.evaluation.types import LIST


def sums(top: Top, answer: Answer, known: jax.Array) -> dict[str, jax.Array]:
    """What the lists of a batch add up to: how often items are shown, what was never trained.

    Args:
      top: lists of at least `LIST` entries.
      answer: of the same rows; those of weight 0 do not count.
      known: bool[I], items that training met.
    """
    first = Top(top.scores[:, :LIST], top.items[:, :LIST])
    untrained = jnp.concatenate([jnp.zeros(1, bool), ~known])[first.items]
    hit = metrics.hits(first, answer.relevant)
    weight = answer.weight[:, None]
    return {
        "exposure": metrics.exposure(top.items, LIST, len(known), answer.weight),
        "untrained_slots": (untrained * weight).sum(),
        "hits": (hit * weight).sum(),
        "untrained_hits": (hit * untrained * weight).sum(),
    }


def diagnostics(
    summed: dict[str, np.ndarray],
    table: np.ndarray | None,
    train_counts: np.ndarray,
    num_rows: int,
) -> dict[str, Any]:
    """The diagnostics of a split from the sums of its batches.

    Args:
      summed: `sums` of all batches.
      table: f32[J, D] rows of the head, the catalogue's first; None where it has none.
      train_counts: i64[I], how often item j + 1 occurs in training.
      num_rows: lists in all.
    """
    exposure = summed["exposure"]
    popularity = np.pad(train_counts, (0, len(exposure) - len(train_counts)))
    known = popularity > 0
    counts = {
        "untrained_top20": float(summed["untrained_slots"] / (num_rows * LIST)),
        "hits_untrained": float(summed["untrained_hits"] / max(summed["hits"], 1.0)),
        "untrained_items": int((train_counts == 0).sum()),
        "distinct_items": int((exposure > 0).sum()),
        "coverage@20": float(metrics.coverage(exposure)),
        "gini@20": float(metrics.gini(exposure)),
        "average_popularity@20": metrics.average_popularity(exposure, popularity),
    }
    if table is None:
        return counts
    return counts | {k: float(v) for k, v in metrics.table_spread(table, known).items()}
