"""Rules of sequences against loops and counted figures; histories out of order."""

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxrec_diff.data import order
from jaxrec_diff.ops.ragged import Ragged


def sample(seed=0, rows=90):
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 9, rows)
    stop = np.cumsum(sizes + 2)
    start = stop - sizes - 2
    items = random.integers(1, 5, stop[-1]).astype(np.int32)
    return Ragged(items, start, stop - 2, stop)


@pytest.mark.parametrize(("support", "confidence"), [(1, 0.0), (3, 0.2), (5, 0.25)])
def test_rules_are_those_of_a_loop(support, confidence):
    rows = sample()
    pairs, triples, first, two = Counter(), Counter(), Counter(), Counter()
    for start, end in zip(rows.start, rows.end, strict=True):
        row = rows.items[start:end].tolist()
        for a, b in zip(row, row[1:], strict=False):
            pairs[a, b] += 1
            first[a] += 1
        for a, b, c in zip(row, row[1:], row[2:], strict=False):
            triples[a, b, c] += 1
            two[a, b] += 1
    want = (
        sum(n >= support and n >= confidence * first[a] for (a, _), n in pairs.items()),
        sum(n >= support and n >= confidence * two[a, b] for (a, b, _), n in triples.items()),
    )
    assert order.rules(rows, support=support, confidence=confidence) == want and min(want) > 0


def test_sequences_without_an_item_hold_no_rule():
    nothing = np.zeros(0, np.int32)
    assert order.rules(Ragged(nothing, nothing, nothing, nothing)) == (0, 0)


@pytest.mark.parametrize(
    ("folder", "pairs", "triples", "mixed"),
    [("amazon-beauty", 595, 199, [20, 25, 22, 22, 28]), ("ml-1m", 53, 988, [0])],
)
def test_rules_of_real_data(folder, pairs, triples, mixed, real_data):
    table = pq.read_table(real_data / folder / "interactions.parquet")
    users, items, times = (table[c].to_numpy() for c in ("user_id", "item_id", "timestamp"))
    by_user = np.lexsort((times, users))
    users, items = users[by_user], items[by_user]
    start = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
    end = np.append(start[1:], len(users))
    rows = Ragged(items, start, end, end)
    assert order.rules(rows) == (pairs, triples)
    draws = [order.shuffled(rows, np.random.default_rng(seed)) for seed in range(len(mixed))]
    assert [order.rules(draw).pairs for draw in draws] == mixed


@pytest.mark.parametrize("keep_last", [False, True])
def test_histories_are_shuffled_and_answers_stay(keep_last):
    rows = sample(1)
    found = order.shuffled(rows, np.random.default_rng(0), keep_last=keep_last)
    moved = 0
    for row in range(len(rows.start)):
        old, new = (
            (r.items[r.start[row] : r.end[row]], r.items[r.end[row] : r.stop[row]])
            for r in (rows, found)
        )
        assert sorted(old[0]) == sorted(new[0]) and old[1].tolist() == new[1].tolist()
        if keep_last and len(old[0]):
            assert old[0][-1] == new[0][-1]
        moved += old[0].tolist() != new[0].tolist()
    assert moved > 15


def test_every_order_is_as_likely():
    """Six orders of three items, 600 rows: 100 each, to within four deviations."""
    rows = 600
    items = np.tile([1, 2, 3, 9], rows)
    start = 4 * np.arange(rows)
    found = order.shuffled(Ragged(items, start, start + 3, start + 4), np.random.default_rng(0))
    counts = Counter(map(tuple, found.items.reshape(rows, 4)[:, :3].tolist()))
    assert len(counts) == 6 and max(abs(n - 100) for n in counts.values()) < 37
