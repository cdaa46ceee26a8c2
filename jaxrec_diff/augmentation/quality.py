"""What generated items are like: how popular, how varied, how many that truly came first."""

import numpy as np

from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


def quality(
    prefix: np.ndarray, user_items: Ragged, train_counts: np.ndarray, true: np.ndarray | None = None
) -> dict[str, float]:
    """What generated items look like.

    Args:
      prefix: i32[U, M].
      user_items: the users' own items.
      train_counts: i64[I].
      true: i32[U, R] items that really came first for these users, 0 where there are fewer.

    Returns:
      distinct_in_row: distinct items of a user over those given; coverage: share of the catalogue
      used; popularity_kl: divergence of the law of generated items from the training law, in
      nats, both with one count added to every item; in_history: share of items that the user has;
      recall: share of a user's true first items that were generated, mean over users, and
      recall_popular: the same of the M most popular items.
    """
    rows = prefix[(prefix > 0).any(axis=1)]
    length, count = prefix.shape[1], len(train_counts)
    ordered = np.sort(rows, axis=1)
    distinct = (ordered[:, 0] > 0) + (np.diff(ordered, axis=1) > 0).sum(axis=1)
    used = np.bincount(rows.reshape(-1), minlength=count + 1)[1:]
    p = (used + 1.0) / (used + 1.0).sum()
    q = (train_counts + 1.0) / (train_counts + 1.0).sum()
    place, owner = ragged.expand(user_items.start, user_items.end - user_items.start)
    own = owner * (count + 1) + user_items.items[place]
    given = np.arange(len(prefix))[:, None] * (count + 1) + prefix
    real = prefix > 0
    out = {
        "distinct_in_row": float(np.mean(distinct / (rows > 0).sum(axis=1))),
        "coverage": float((used > 0).mean()),
        "popularity_kl": float(np.sum(p * np.log(p / q))),
        "in_history": float(np.isin(given, own)[real].mean()),
    }
    if true is not None:
        popular = np.argsort(-train_counts, kind="stable")[:length] + 1
        out["recall"] = _recall(true, prefix)
        out["recall_popular"] = _recall(true, np.broadcast_to(popular, prefix.shape))
    return out


def _recall(true: np.ndarray, found: np.ndarray) -> float:
    """Mean over rows of the share of distinct true items among those found."""
    ordered = np.sort(true, axis=1)
    fresh = np.append(np.ones((len(ordered), 1), bool), np.diff(ordered, axis=1) > 0, axis=1)
    wanted = fresh & (ordered > 0)
    hit = wanted & (ordered[:, :, None] == found[:, None, :]).any(axis=2)
    return float(np.mean(hit.sum(axis=1) / np.maximum(wanted.sum(axis=1), 1)))
