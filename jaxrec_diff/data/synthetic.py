"""Users whose next item follows a known process, so that the best reachable figures are exact.

Items fall into C groups, the interests. A user has two of them, z = {z1, z2}, drawn uniformly from
all pairs and kept for life. Given the history h with last item l, the next item is drawn from

    p(j | h, z)  ~  [ a T(l, j) + b (q_z1(j) + q_z2(j)) / 2 + c P(j) ]  1[j not in h]

with T a sparse graph of successors, q_g a skewed law over the items of group g and P a popularity
tail over all items. The first item is drawn without T. Nobody ever takes an item twice.

z is hidden, but it has few values, so Bayes' rule gives p(z | h) and with it p(j | h) exactly. No
ranker can beat the one that sorts items by p(j | h): its expected HR@k is the mean over users of
the k largest probabilities, its expected NDCG@k the same with gains, and so on (`bayes_optimal`).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import SyntheticConfig
from jaxrec_diff.ops.ragged import Ragged

_ROWS = 1024


class Process(NamedTuple):
    """The process's tables, float64; items count from 0 here."""

    successors: np.ndarray  # i64[I, S]
    successor_probs: np.ndarray  # [S]
    group: np.ndarray  # i64[I] interest of each item
    within: np.ndarray  # [I] q of the item's own group
    popularity: np.ndarray  # [I]
    pairs: np.ndarray  # bool[C, Z], whether a group is in a pair
    shares: tuple[float, float, float]  # a, b, c


def make_process(config: SyntheticConfig) -> Process:
    """A process from a seed."""
    rng = np.random.default_rng([config.seed, 0])
    items, groups = config.num_items, config.num_interests
    group = rng.permutation(items) % groups
    order = rng.permutation(items)
    within = np.zeros(items)
    for g in range(groups):
        members = order[group[order] == g]
        weights = (1.0 + np.arange(len(members))) ** -config.interest_skew
        within[members] = weights / weights.sum()
    popularity = (1.0 + rng.permutation(items)) ** -config.popularity_skew
    count = min(config.num_successors, items - 1)
    successors = np.stack([_successors(rng, j, group, count) for j in range(items)])
    weights = 0.5 ** np.arange(count)
    first, second = np.triu_indices(groups, k=1)
    pairs = np.zeros((groups, len(first)), bool)
    pairs[first, np.arange(len(first))] = pairs[second, np.arange(len(first))] = True
    a, b = config.transition_share, config.interest_share
    return Process(
        successors, weights / weights.sum(), group, within, popularity / popularity.sum(), pairs,
        (a, b, 1.0 - a - b),
    )  # fmt: skip


def generate(process: Process, config: SyntheticConfig) -> Columns:
    """Users' sequences, one after the other; the time is the place in the sequence."""
    rng = np.random.default_rng([config.seed, 1])
    lengths = rng.integers(config.min_length, config.max_length + 1, config.num_users)
    pair = rng.integers(0, process.pairs.shape[1], config.num_users)
    drawn = np.full((config.num_users, config.max_length), -1)
    first_popular, popular = (
        _popular_share(process, last) * process.popularity for last in (-1, 0)
    )
    for first in range(0, config.num_users, _ROWS):
        rows = np.arange(first, min(first + _ROWS, config.num_users))
        liked = np.take(process.pairs.T[pair[rows]], process.group, axis=1)
        own = 0.5 * liked * process.within
        # Only what follows the last item changes from place to place.
        liking = _interest_share(process, 0) * own
        general = liking + popular
        for place in range(config.max_length):
            uniform = rng.random(len(rows))  # also for those who are done: one stream for all
            going = np.flatnonzero(place < lengths[rows])
            if place:
                following = process.successors[drawn[rows[going], place - 1]]
                probs = general[going]
                probs[np.arange(len(going))[:, None], following] = liking[
                    going[:, None], following
                ] + (popular[following] + _successive(process))
            else:
                probs = _interest_share(process, -1) * own[going] + first_popular
            np.put_along_axis(probs, drawn[rows[going], :place], 0.0, axis=1)  # none is taken twice
            cumulative = np.cumsum(probs, axis=1, out=probs)
            at = uniform[going][:, None] * cumulative[:, -1:]
            # the first item whose cumulative mass exceeds the draw: never one of mass zero
            drawn[rows[going], place] = np.argmax(cumulative > at, axis=1)
    kept = np.arange(config.max_length) < lengths[:, None]
    users, places = np.nonzero(kept)
    return Columns(users, drawn[kept], None, places)


def predictive(process: Process, histories: np.ndarray) -> np.ndarray:
    """p(next = j | history), float64[n, I].

    Args:
      process: tables.
      histories: i64[n, L] items from 0, oldest first, right-padded with -1.
    """
    rows = np.arange(len(histories))
    log_post = np.zeros((len(histories), process.pairs.shape[1]))
    # Masses of what was seen, updated item by item.
    last = np.full(len(histories), -1)
    seen_within = np.zeros((len(histories), len(process.pairs)))
    seen_popular = np.zeros(len(histories))
    seen = np.zeros((len(histories), len(process.group)), bool)

    def unseen(last):
        """1 - the mass of what was seen, [n, Z]."""
        following = process.successors[last]  # before the first item nothing of them is seen
        followed = np.where(seen[rows[:, None], following], _successive(process), 0.0).sum(axis=1)
        interest = _interest_share(process, last)[:, None] / 2
        shared = _popular_share(process, last) * seen_popular + followed
        return 1.0 - shared[:, None] - interest * (seen_within @ process.pairs)

    for place in range(histories.shape[1]):
        item = histories[:, place]
        real = item >= 0
        x = np.where(real, item, 0)
        follows = (process.successors[last] == x[:, None]) & (last >= 0)[:, None]
        shared = _popular_share(process, last) * process.popularity[x]
        shared += np.where(follows, _successive(process), 0.0).sum(axis=1)
        interest = _interest_share(process, last)[:, None] / 2
        member = process.pairs[process.group[x]]
        numerator = shared[:, None] + interest * process.within[x][:, None] * member
        with np.errstate(divide="ignore"):
            log_post += np.where(real[:, None], np.log(numerator) - np.log(unseen(last)), 0.0)
        seen[rows[real], x[real]] = True
        seen_within[rows[real], process.group[x[real]]] += process.within[x[real]]
        seen_popular += np.where(real, process.popularity[x], 0.0)
        last = np.where(real, item, last)
    post = np.exp(log_post - log_post.max(axis=1, keepdims=True))
    post /= post.sum(axis=1, keepdims=True)
    interest = _interest_share(process, last)[:, None] / 2
    per_pair = post / unseen(last)
    per_group = per_pair @ process.pairs.T
    probs = (
        per_pair.sum(1)[:, None] * _general(process, last)
        + interest * per_group[:, process.group] * process.within
    )
    return np.where(seen, 0.0, probs)


def bayes_optimal(process: Process, rows: Ragged, ks: tuple[int, ...]) -> dict[str, float]:
    """The expected figures of the best possible ranker, given the whole history of each row.

    {} if a row has several answers: the process speaks of the next item only.
    """
    if len(rows.start) == 0 or (rows.stop - rows.end != 1).any():
        return {}
    largest = min(max(ks), len(process.group))
    place = 1.0 + np.arange(largest)
    gains = {"hr": np.ones(largest), "ndcg": 1.0 / np.log2(place + 1.0), "mrr": 1.0 / place}
    sums = {f"{name}@{k}": 0.0 for k in ks for name in gains}
    for histories in _histories(rows):
        probs = predictive(process, histories)
        best = -np.sort(-np.partition(probs, -largest, axis=1)[:, -largest:], axis=1)
        for k in ks:
            for name, gain in gains.items():
                sums[f"{name}@{k}"] += float((best[:, :k] * gain[:k]).sum())
    means = {name: total / len(rows.start) for name, total in sums.items()}
    for k in ks:
        means[f"recall@{k}"] = means[f"hr@{k}"]
        means[f"map@{k}"] = means[f"mrr@{k}"]
        means[f"precision@{k}"] = means[f"hr@{k}"] / k
    return means


def _histories(rows: Ragged) -> Iterator[np.ndarray]:
    """Chunks of whole histories, items from 0, right-padded with -1."""
    for first in range(0, len(rows.start), _ROWS):
        start, end = rows.start[first : first + _ROWS], rows.end[first : first + _ROWS]
        at = start[:, None] + np.arange(int((end - start).max()))
        inside = at < end[:, None]
        yield np.where(inside, rows.items[np.where(inside, at, 0)] - 1, -1)


def _general(process: Process, last: np.ndarray) -> np.ndarray:
    """What does not depend on the interests, float64[n, I]: a T(last, j) + c P(j)."""
    begun = last >= 0
    out = _popular_share(process, last)[:, None] * process.popularity
    # the successors of an item are distinct, so that nothing is added to one place twice
    out[np.flatnonzero(begun)[:, None], process.successors[last[begun]]] += _successive(process)
    return out


def _successive(process: Process) -> np.ndarray:
    """a T(last, j) of the successors j of any item, float64[S]."""
    return process.shares[0] * process.successor_probs


def _popular_share(process: Process, last: np.ndarray | int) -> np.ndarray:
    """c, or its share c / (b + c) of the first item."""
    _, b, c = process.shares
    return np.where(np.asarray(last) >= 0, c, c / (b + c))


def _interest_share(process: Process, last: np.ndarray | int) -> np.ndarray:
    """b, or its share b / (b + c) of the first item."""
    _, b, c = process.shares
    return np.where(np.asarray(last) >= 0, b, b / (b + c))


def _successors(rng: np.random.Generator, item: int, group: np.ndarray, count: int) -> np.ndarray:
    """Distinct successors of an item, its own group's first where there are enough."""
    own = np.flatnonzero((group == group[item]) & (np.arange(len(group)) != item))
    other = np.flatnonzero(group != group[item])
    mates = rng.permutation(own)[: count - 1]
    return np.append(mates, rng.permutation(other)[: count - len(mates)])
