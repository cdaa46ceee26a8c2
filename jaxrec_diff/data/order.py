"""How much of sequences is order: items that follow others, and histories out of order.

"Does It Look Sequential?" (RecSys 2024, arXiv:2408.12008): where shuffling leaves as many rules, or
as good lists, a data set is no test of a model of sequences.
"""

from typing import NamedTuple

import chex
import numpy as np

from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


class Rules(NamedTuple):
    """Items that follow others directly, often and as a rule."""

    pairs: int  # a, then b
    triples: int  # a, b, then c


def rules(rows: Ragged, *, support: int = 5, confidence: float = 0.1) -> Rules:
    """How many rules sequences hold.

    Args:
      rows: sequences, `items[start:end]`, oldest first.
      support: times that a rule holds at least.
      confidence: share at least of all times that its first item, or first two, are followed.

    >>> items = np.array([1, 2, 1, 2, 1, 3])
    >>> row = Ragged(items, np.array([0]), np.array([6]), np.array([6]))
    >>> rules(row, support=2, confidence=0.5)
    Rules(pairs=2, triples=1)
    >>> rules(row, support=1, confidence=0.5)
    Rules(pairs=2, triples=3)
    """
    chex.assert_equal_shape([rows.start, rows.end])
    place, row = ragged.expand(rows.start, rows.end - rows.start)
    items = rows.items[place].astype(np.int64)
    span = int(items.max(initial=0)) + 1
    together = row[1:] == row[:-1]
    first, pair = items[:-1][together], (items[:-1] * span + items[1:])[together]
    pairs, which, times = np.unique(pair, return_inverse=True, return_counts=True)
    followed = np.bincount(first, minlength=span)
    of_first = np.zeros(len(pairs), np.int64)
    of_first[which] = followed[first]
    # a pair is known by its number, so that three items fit in one
    number = np.full(len(together), -1, np.int64)
    number[together] = which
    thrice = together[1:] & together[:-1]
    triple = (number[:-1] * span + items[2:])[thrice]
    triples, held = np.unique(triple, return_counts=True)
    of_pair = np.bincount(number[:-1][thrice], minlength=len(pairs))[triples // span]
    return Rules(
        int(np.sum((times >= support) & (times >= confidence * of_first))),
        int(np.sum((held >= support) & (held >= confidence * of_pair))),
    )


def shuffled(rows: Ragged, random: np.random.Generator, *, keep_last: bool = False) -> Ragged:
    """Rows with their histories in a random order and their answers as they are, on a new array.

    Args:
      rows: histories `items[start:end]`, answers `items[end:stop]`.
      random: draws one number an item of a history.
      keep_last: the newest item stays where it is.

    >>> row = Ragged(np.arange(1, 7), np.array([0, 1]), np.array([5, 1]), np.array([6, 2]))
    >>> found = shuffled(row, np.random.default_rng(0), keep_last=True)
    >>> found.items.tolist(), found.start.tolist(), found.end.tolist(), found.stop.tolist()
    ([4, 3, 2, 1, 5, 6, 2], [0, 6], [5, 6], [6, 7])
    """
    chex.assert_equal_shape([rows.start, rows.end, rows.stop])
    place, row = ragged.expand(rows.start, rows.stop - rows.start)
    draw = random.random(len(place))
    fixed = place >= rows.end[row] - keep_last
    # what is fixed comes last, in its own order
    key = np.where(fixed, 1.0 + place - rows.start[row], draw)
    order = np.lexsort((key, row))
    stop = np.cumsum(rows.stop - rows.start)
    start = stop - (rows.stop - rows.start)
    return ragged.make(rows.items[place[order]], start, start + (rows.end - rows.start), stop)
