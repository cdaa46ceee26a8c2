"""Filters on interactions. Each takes and gives columns in the order of time."""

import numpy as np

from jaxrec_diff.data import ids
from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import DataConfig


def counts(columns: Columns) -> dict[str, int]:
    """Users, items and interactions."""
    return {
        "users": _distinct(columns.users),
        "items": _distinct(columns.items),
        "interactions": len(columns.users),
    }


def _distinct(values: np.ndarray) -> int:
    """How many different values there are; places in a vocabulary are counted without sorting."""
    if values.dtype.kind != "i" or not len(values) or values.min() < 0:
        return len(ids.unique(values)[0])
    if values.max() > 2 * len(values):
        return len(ids.unique(values)[0])
    return int(np.count_nonzero(np.bincount(values)))


def take(columns: Columns, keep: np.ndarray) -> Columns:
    """Rows by mask or by index."""
    return Columns(*(None if part is None else part[keep] for part in columns))  # type: ignore[arg-type]


def apply(columns: Columns, config: DataConfig) -> tuple[Columns, list[dict]]:
    """All filters in turn, and the counts after each.

    Raises:
      ValueError: naming the filter that left nothing.
    """
    log = [{"filter": "read", **counts(columns)}]

    def step(name: str, after: Columns, hint: str) -> Columns:
        if not len(after.users):
            before = log[-1]["interactions"]
            raise ValueError(f"{name} removed all {before} interactions; {hint}")
        log.append({"filter": name, **counts(after)})
        return after

    if config.min_rating is not None and columns.ratings is not None:
        best = columns.ratings.max()
        kept = take(columns, columns.ratings >= config.min_rating)
        columns = step(
            f"data.min-rating={config.min_rating:g}", kept, f"the largest rating is {best:g}"
        )
    if config.dedup != "none":
        columns = step(
            f"data.dedup={config.dedup}", _dedup(columns, config.dedup), "nothing is left"
        )
    if config.dedup_adjacent:
        columns = step("data.dedup-adjacent", _dedup_adjacent(columns), "nothing is left")
    if config.user_core > 1 or config.item_core > 1:
        name = f"the core filter (user-core {config.user_core}, item-core {config.item_core})"
        columns = step(name, k_core(columns, config.user_core, config.item_core), "lower it")
    if config.recent:
        name = f"data.recent={config.recent}"
        if config.recent_min:
            name += f" data.recent-min={config.recent_min}"
        columns = step(name, _recent(columns, config.recent, config.recent_min), "")
    return columns, log


def k_core(columns: Columns, user_core: int, item_core: int) -> Columns:
    """Drops users and items with too few interactions until nothing changes."""
    while True:
        _, user, per_user = np.unique(columns.users, return_inverse=True, return_counts=True)
        _, item, per_item = np.unique(columns.items, return_inverse=True, return_counts=True)
        keep = (per_user[user] >= user_core) & (per_item[item] >= item_core)
        if keep.all():
            return columns
        columns = take(columns, keep)
        if not len(columns.users):
            return columns


def _recent(columns: Columns, most: int, least: int) -> Columns:
    """The last `most` rows of every user, or of its own number down to `least` > 0."""
    users, user = np.unique(columns.users, return_inverse=True)
    count = np.full(len(users), most)
    if least:
        # log-uniform over the integers: k has a chance near log((k + 1) / k)
        drawn = np.random.default_rng(0).uniform(np.log(least), np.log(most + 1), len(users))
        count = np.clip(np.exp(drawn).astype(np.int64), least, most)
    order = np.argsort(user, kind="stable")
    ends = np.cumsum(np.bincount(user))
    keep = np.empty(len(order), bool)
    keep[order] = np.arange(len(order)) >= (ends - count)[user[order]]
    return take(columns, keep)


def _dedup(columns: Columns, which: str) -> Columns:
    _, user = np.unique(columns.users, return_inverse=True)
    _, item = np.unique(columns.items, return_inverse=True)
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    if which == "last":
        _, first = np.unique(pair[::-1], return_index=True)
        return take(columns, np.sort(len(pair) - 1 - first))
    _, first = np.unique(pair, return_index=True)
    return take(columns, np.sort(first))


def _dedup_adjacent(columns: Columns) -> Columns:
    _, user = np.unique(columns.users, return_inverse=True)
    order = np.argsort(user, kind="stable")
    user, items = user[order], columns.items[order]
    again = np.append(False, (user[1:] == user[:-1]) & (items[1:] == items[:-1]))
    keep = np.empty(len(order), bool)
    keep[order] = ~again
    return take(columns, keep)
