"""Training rows as sets with weights, and the split that DiffRec's files were cut by."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.data import splits, user_items
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Sequences
from jaxrec_diff.data.load import load
from jaxrec_diff.ops.ragged import Ragged


def rows_of(*rows):
    bounds = np.cumsum([0, *map(len, rows)])
    flat = np.array([item for row in rows for item in row], np.int32)
    return Ragged(flat, bounds[:-1], bounds[1:], bounds[1:])


def test_a_repeated_item_stands_once_at_its_last_place():
    found = user_items.distinct(rows_of([3, 1, 3, 2, 1], [], [1], [2, 2]))
    rows = [found.items[a:b].tolist() for a, b in zip(found.start, found.end, strict=True)]
    assert rows == [[3, 2, 1], [], [1], [2]]


def test_only_the_given_part_of_the_flat_array_is_kept():
    rows = Ragged(np.arange(1, 9), np.array([0, 4]), np.array([2, 7]), np.array([2, 7]))
    found = user_items.distinct(rows)
    assert found.items.tolist() == [1, 2, 5, 6, 7]
    assert found.start.tolist() == [0, 2] and found.end.tolist() == [2, 5]


def test_weights_rise_in_equal_steps():
    row = rows_of(range(1, 33), [5], [1, 2, 3])
    got = user_items.time_weights(row, 0.1, 1.0)
    np.testing.assert_allclose(got[:2], [0.1, 0.129032258], rtol=1e-7)
    np.testing.assert_allclose(got[30:33], [0.970967742, 1.0, 0.1], rtol=1e-7)
    np.testing.assert_allclose(user_items.time_weights(row, 0.5, 1.0)[33:], [0.5, 0.75, 1.0])


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    lines = [f"1,{item},{item}" for item in (7, 8, 9, 7, 6, 5)]
    lines += [f"2,{item},{item}" for item in (5, 6, 7, 8)] + ["3,9,1", "3,8,2", "3,5,3"]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    return str(path)


def test_a_feed_hands_the_weights_over(ratings):
    config = DataConfig(time_weight_min=0.5)
    data = load(ratings, config)
    fed = INTERACTIONS.batcher(data, config)
    index = jnp.array([0, 1, 2, -1], jnp.int32)
    batch = fed.example(fed.train, index, jnp.arange(4), jax.random.key(0))
    raw = [[int(data.item_ids[i - 1]) for i in row if i > 0] for row in batch.items.tolist()]
    # by time and without the last two; user 1 rated item 7 twice
    assert raw == [[5, 6, 7], [5, 6], [9], []]
    assert batch.value.tolist() == [[0.5, 0.75, 1.0], [0.5, 1.0, 0], [0.5, 0, 0], [0, 0, 0]]
    asked = fed.query(fed.splits["test"], index)
    np.testing.assert_array_equal(asked.value, batch.value)
    plain = INTERACTIONS.batcher(data, dataclasses.replace(config, time_weight_min=1.0))
    batch = plain.example(plain.train, index, jnp.arange(4), jax.random.key(0))
    np.testing.assert_array_equal(batch.value, batch.items > 0)


def test_weights_that_fall_are_refused():
    with pytest.raises(ValueError, match="time-weight-max must be at least 0.5, got 0.2"):
        DataConfig(time_weight_min=0.5, time_weight_max=0.2)


def cut(*lengths):
    offsets = np.append(0, np.cumsum(lengths))
    none = np.zeros(offsets[-1], np.int32)
    return splits.diffrec(Sequences(none, none, none, offsets), DataConfig())[:4]


def test_split_of_the_released_files():
    lengths = {
        10: (8, 1, 1), 15: (11, 2, 2), 20: (15, 3, 2), 27: (19, 5, 3), 45: (32, 8, 5),
        50: (36, 9, 5), 51: (36, 10, 5),
    }  # fmt: skip
    found = cut(*lengths)
    got = zip(*(np.diff(np.stack(found), axis=0)), strict=True)
    assert list(got) == list(lengths.values())


def test_split_of_every_length_is_whole():
    lengths = range(1, 400)
    parts = np.diff(np.stack(cut(*lengths)), axis=0)
    assert (parts >= 0).all() and parts.sum(axis=0).tolist() == list(lengths)
    for n, (train, valid, _) in zip(lengths, parts.T.tolist(), strict=True):
        if n >= 10:
            assert (train, valid) == (int(0.7 * n) + 1, (n - 1) // 5)


@pytest.mark.parametrize("name", ["ml-1m-clean"])
def test_released_sizes_follow_the_rule(real_data, name):
    data = load(str(real_data / name), DataConfig())
    user = np.argsort(data.valid_users), np.argsort(data.test_users)
    train = (data.user_items.end - data.user_items.start)[data.valid_users[user[0]]]
    valid = (data.valid.stop - data.valid.end)[user[0]]
    test = (data.test.stop - data.test.end)[user[1]]
    parts = np.diff(np.stack(cut(*(train + valid + test))), axis=0)
    np.testing.assert_array_equal(parts, [train, valid, test])
    assert len(train) == 5949 and train.sum() == 403_277


def test_ratings_to_splits(tmp_path):
    # 12 users who like the same 12 items and dislike a thirteenth
    path = tmp_path / "ratings.csv"
    lines = [f"{u},{i},{5 if i < 12 else 3},{i}" for u in range(12) for i in range(13)]
    path.write_text("user_id,item_id,rating,timestamp\n" + "\n".join(lines))
    config = DataConfig(split="diffrec", min_rating=4, user_core=10, item_core=10)
    data = load(str(path), config)
    assert data.num_items == 12 and data.num_users == 12
    assert set(data.user_items.end - data.user_items.start) == {9}
    assert set(data.valid.stop - data.valid.end) == {2}
    assert set(data.test.stop - data.test.end) == {1}
