"""What comes before histories, longer histories and reversed time, on rows worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.prefixes import PREFIXES
from jaxrec_diff.batches.sequences import WINDOWS
from jaxrec_diff.batches.whole_sequences import WHOLE_SEQUENCES
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.models import sasrec

# 0: the published example; 1: too short for M = 2 and a test item; 2 .. 5: long enough
ROWS = [
    [1, 2, 3, 4, 5, 6, 7], [8, 9], [2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4], [1, 3, 5, 7, 9, 2, 4],
    [5, 4, 3, 2, 1],
]  # fmt: skip
CONFIG = DataConfig(max_len=4, prefix_len=2)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("views") / "rows.npz"
    users = np.repeat(np.arange(len(ROWS)), [len(row) for row in ROWS])
    np.savez(path, user_id=users, item_id=np.concatenate(ROWS))
    return load(str(path), CONFIG)


def cut(part, name="history"):
    ends = (part.start, part.end) if name == "history" else (part.end, part.stop)
    return [part.items[a:b].tolist() for a, b in zip(*ends, strict=True)]


def test_first_items_are_found_from_the_rest_of_training_sequences(dataset):
    found = views.before(dataset, CONFIG)
    rows = {
        tuple(answer): history
        for part in (found.train, found.valid, found.test)
        for history, answer in zip(cut(part), cut(part, "answer"), strict=True)
    }
    # training items are all but the last two; [5, 4, 3] leaves one behind the first two
    assert rows == {
        (1, 2): [3, 4, 5], (2, 3): [4], (9, 8): [7, 6], (1, 3): [5, 7, 9], (5, 4): [3],
    }  # fmt: skip
    longer = views.before(dataset, DataConfig(prefix_len=2, prefix_rest=2))
    parts = [cut(p, "answer") for p in (longer.train, longer.valid, longer.test)]
    assert sorted(sum(parts, [])) == [[1, 2], [1, 3], [9, 8]]
    with pytest.raises(ValueError, match="lower data.prefix-len"):
        views.before(dataset, DataConfig(prefix_len=4))


def test_windows_follow_the_same_rule(dataset):
    found = views.before(dataset, DataConfig(prefix_len=2, prefix_stride=1))
    held = set(found.valid_users) | set(found.test_users)
    expected = []
    for user, row in enumerate(ROWS):
        items = row[:-2] if len(row) >= 3 else row
        if user not in held:
            expected += [(items[k : k + 2], items[k + 2 :]) for k in range(len(items) - 2)]
    got = list(zip(cut(found.train, "answer"), cut(found.train), strict=True))
    assert sorted(got) == sorted(expected)


def test_examples_hold_the_answer_and_the_newest_of_the_rest(dataset):
    config = DataConfig(max_len=2, prefix_len=2)
    found = views.before(dataset, config)
    fed = PREFIXES.batcher(found, config)
    index = jnp.arange(-1, fed.num_examples, dtype=jnp.int32)
    batch = fed.example(fed.train, index, jnp.arange(len(index)), KEY)
    assert batch.weight.tolist() == [0.0] + [1.0] * fed.num_examples
    for i in range(fed.num_examples):
        assert batch.prefix[i + 1].tolist() == cut(found.train, "answer")[i]
        newest = cut(found.train)[i][-2:]
        assert batch.seq[i + 1].tolist() == newest + [0] * (2 - len(newest))


PREFIX = np.array([[9, 8], [7, 0], [0, 0], [6, 6], [8, 1], [2, 9]], np.int32)


def test_generated_items_are_shown_and_nothing_else_changes(dataset):
    longer = views.longer(dataset, PREFIX)
    for before, after in ((dataset.train, longer.train), (dataset.user_items, longer.user_items)):
        assert cut(after, "answer") == cut(before, "answer")
    assert longer.test is dataset.test and longer.valid is dataset.valid
    assert longer.train_counts is dataset.train_counts
    raw = cut(dataset.user_items)
    ahead = [[item for item in row if item] for row in PREFIX.tolist()]
    assert cut(longer.user_items) == [a + b for a, b in zip(ahead, raw, strict=True)]
    tests = cut(dataset.test)
    shown = [ahead[u] + row for u, row in zip(dataset.test_users, tests, strict=True)]
    assert cut(longer.shown["test"]) == shown
    assert cut(longer.shown["test"], "answer") == cut(dataset.test, "answer")


def test_no_generated_items_give_the_same_arrays(dataset):
    same = views.longer(dataset, np.zeros((6, 3), np.int32))
    for name in ("train", "user_items"):
        for a, b in zip(getattr(dataset, name), getattr(same, name), strict=True):
            np.testing.assert_array_equal(a, b)
    for split, rows in same.shown.items():
        for a, b in zip(rows, getattr(dataset, split), strict=True):
            np.testing.assert_array_equal(a, b)
    # and so the batches: no flag of generated items is even there
    fed = WINDOWS.batcher(same, CONFIG)
    index = jnp.arange(3, dtype=jnp.int32)
    assert fed.example(fed.train, index, index, KEY).first is None


@pytest.mark.parametrize("max_len", [4, 8])
def test_only_chosen_items_are_targets(dataset, max_len):
    config = DataConfig(max_len=max_len, prefix_len=2)
    longer = views.longer(dataset, PREFIX)
    walks = WHOLE_SEQUENCES.batcher(longer, config)
    index = jnp.arange(walks.num_examples, dtype=jnp.int32)
    batch = walks.example(walks.train, index, index, KEY)
    users = [u for u, row in enumerate(cut(dataset.user_items)) if len(row) >= 2]
    for i, user in enumerate(users):
        ahead = [item for item in PREFIX[user].tolist() if item]
        whole = (ahead + cut(dataset.user_items)[user])[-max_len:]
        assert batch.seq[i].tolist() == whole + [0] * (max_len - len(whole))
        assert batch.first[i] == max(0, len(whole) - len(cut(dataset.user_items)[user]))
        own = set(cut(dataset.user_items)[user])
        assert not own & set(batch.negative[i].tolist())
    windows = WINDOWS.batcher(longer, config)
    index = jnp.arange(windows.num_examples, dtype=jnp.int32)
    batch = windows.example(windows.train, index, index, KEY)
    targets = []
    for seq, target, asked in zip(
        batch.seq, batch.target, sasrec.asks(batch.seq, batch.first), strict=True
    ):
        after = np.asarray(sasrec.next_items(seq[None], target[None]))[0]
        targets += after[np.asarray(asked)].tolist()
    if max_len == 8:  # one window a user
        assert sorted(targets) == sorted(sum((row[1:] for row in cut(dataset.user_items)), []))


def test_time_runs_backwards_over_training_items(dataset):
    found = views.backwards(dataset, CONFIG)
    raw = cut(dataset.user_items)
    turned = [row[::-1] for row in raw]
    assert cut(found.test, "answer") == [row[-1:] for row in turned if len(row) >= 3]
    assert cut(found.test) == [row[:-1] for row in turned if len(row) >= 3]
    assert cut(found.user_items) == [row[:-2] if len(row) >= 3 else row for row in turned]
