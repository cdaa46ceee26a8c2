"""Cuts of users' sequences: items[start:a] train, [a:b] validation, [b:stop] test."""

from typing import NamedTuple

import numpy as np

from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Sequences
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged

_TARGETS = {
    "all": "",
    "first": ", the first item after a cut asked for",
    "last": ", the last item after a cut asked for",
    "random": ", a random item after a cut asked for",
    "successive": ", each item after a cut asked for in turn",
}

_HISTORIES = {"to_target": "", "to_cut": ", from the history up to that cut"}


class Cuts(NamedTuple):
    """Positions in the flat array, i64[U] each."""

    start: np.ndarray
    train_end: np.ndarray
    valid_end: np.ndarray
    stop: np.ndarray
    trains: np.ndarray | bool = True  # bool[U], whose train part is trained on

    def trained(self) -> np.ndarray:
        """Ends of what is trained on, i64[U]."""
        return np.where(self.trains, self.train_end, self.start)


def cut(sequences: Sequences, config: DataConfig) -> tuple[Cuts, str]:
    """The cuts of the rule that the settings name, and the rule in words."""
    rules = {
        "leave_one_out": leave_one_out,
        "ratio": ratio,
        "global_time": global_time,
        "diffrec": diffrec,
    }
    shares = "/".join(f"{share:g}" for share in config.ratio)
    words = {
        "leave_one_out": "leave-one-out (last item test, the one before validation)",
        "ratio": f"{shares} of each user's sequence in time order",
        "global_time": f"{shares} of all interactions in time order{_TARGETS[config.target]}"
        f"{_HISTORIES[config.history]}",
        "diffrec": "int(0.7 n) + 1 / (n - 1) // 5 / rest of each user's sequence in time order",
    }
    return rules[config.split](sequences, config), words[config.split]


def leave_one_out(sequences: Sequences, config: DataConfig) -> Cuts:
    """Last item test, last but one validation; users with fewer than 3 items only train."""
    start, stop = sequences.offsets[:-1], sequences.offsets[1:]
    enough = stop - start >= 3
    return Cuts(start, stop - 2 * enough, stop - enough, stop)


def ratio(sequences: Sequences, config: DataConfig) -> Cuts:
    """Shares of every user's sequence, rounded down for validation and test.

    A user of at least 3 items gives at least one to each split that has a share.
    """
    start, stop = sequences.offsets[:-1], sequences.offsets[1:]
    length = stop - start
    sizes = []
    for share in config.ratio[1:]:
        size = np.floor(length * share + 1e-9).astype(np.int64)
        sizes.append(np.where((length >= 3) & (share > 0), np.maximum(size, 1), 0))
    return Cuts(start, stop - sizes[0] - sizes[1], stop - sizes[1], stop)


def global_time(sequences: Sequences, config: DataConfig) -> Cuts:
    """Two points in time that cut all interactions into the shares; no split sees the future.

    Interactions at the very moment of a cut belong to the later split. Users with fewer than
    `min_train` interactions before the first cut are not trained on ("Time to Split",
    arXiv:2507.16289, trains on those with two).
    """
    times = np.sort(sequences.times)
    bounds = np.cumsum(config.ratio[:2]) * len(times)
    first, second = (times[min(int(round(bound)), len(times) - 1)] for bound in bounds)
    before_first = np.append(0, np.cumsum(sequences.times < first))
    before_second = np.append(0, np.cumsum(sequences.times < second))
    start, stop = sequences.offsets[:-1], sequences.offsets[1:]
    trained = before_first[stop] - before_first[start]
    return Cuts(
        start,
        start + trained,
        start + before_second[stop] - before_second[start],
        stop,
        trained >= config.min_train,
    )


def diffrec(sequences: Sequences, config: DataConfig) -> Cuts:
    """The rule behind the files that DiffRec (arXiv:2304.04971) was released with.

    Of n interactions int(0.7 n) + 1 are for training, (n - 1) // 5 for validation and the rest is
    test, in floating point as in Python: about 7 : 2 : 1, where the paper says 7 : 1 : 2. The files
    hold ratings of 4 and 5 (`min_rating`) of a 10-core (`user_core`, `item_core`).
    """
    start, stop = sequences.offsets[:-1], sequences.offsets[1:]
    length = stop - start
    train = np.minimum(np.floor(0.7 * length).astype(np.int64) + 1, length)
    valid = np.minimum(np.maximum(length - 1, 0) // 5, length - train)
    return Cuts(start, start + train, start + train + valid, stop)


def examples(items: np.ndarray, cuts: Cuts, min_history: int) -> Ragged:
    """A training example for every item of a train part with enough history before it."""
    sizes = np.maximum(cuts.trained() - cuts.start - min_history, 0)
    end, user = ragged.expand(cuts.start + min_history, sizes)
    return ragged.make(items, cuts.start[user], end, end + 1)


def queries(
    items: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    stop: np.ndarray,
    target: str = "all",
    seed: tuple[int, int] = (0, 0),
) -> tuple[Ragged, np.ndarray]:
    """Rows with a history and something to find, and which users they are.

    Args:
      items: flat.
      start: i64[U] where users begin.
      end: i64[U] where what follows a cut begins.
      stop: i64[U] where it ends.
      target: `data.target`, what of it is asked for.
      seed: of random targets.
    """
    if target == "all":
        kept = np.flatnonzero((stop > end) & (end > start))
        return ragged.make(items, start[kept], end[kept], stop[kept]), kept.astype(np.int32)
    first = np.maximum(end, start + 1)  # of nothing before the cut, an item becomes the history
    sizes = np.maximum(stop - first, 0)
    kept = np.flatnonzero(sizes)
    draws = np.random.default_rng(seed).random(len(sizes))
    if target == "successive":
        at, kept = ragged.expand(first, sizes)
    else:
        shift = {"first": 0 * sizes, "last": sizes - 1, "random": (draws * sizes).astype(np.int64)}
        at = (first + shift[target])[kept]
    return ragged.make(items, start[kept], at, at + 1), kept.astype(np.int32)


def shown_until(rows: Ragged, end: np.ndarray) -> Ragged:
    """Rows whose histories stop earlier, in a flat array of their own.

    Args:
      rows: whose answers may lie anywhere behind their histories.
      end: i64[N] where histories end now, above their start.

    >>> rows = ragged.make(np.arange(10, 20), *(np.array([part]) for part in (1, 6, 7)))
    >>> found = shown_until(rows, np.array([3]))
    >>> found.items.tolist(), found.end.tolist(), found.stop.tolist()
    ([11, 12, 16], [2], [3])
    """
    seen, answers = end - rows.start, rows.stop - rows.end
    stop = np.cumsum(seen + answers)
    start = stop - seen - answers
    items = np.empty(stop[-1] if len(stop) else 0, rows.items.dtype)
    for first, sizes, at in ((rows.start, seen, start), (rows.end, answers, start + seen)):
        source, _ = ragged.expand(first, sizes)
        place, _ = ragged.expand(at, sizes)
        items[place] = rows.items[source]
    return ragged.make(items, start, start + seen, stop)
