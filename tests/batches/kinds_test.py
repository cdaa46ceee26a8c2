"""Feeds against plain Python over the same flat arrays."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches import by_length, kinds
from jaxrec_diff.batches import lengths as batches_lengths
from jaxrec_diff.data.config import DataConfig, SyntheticConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged

DATA = DataConfig(
    max_len=5,
    synthetic=SyntheticConfig(
        num_users=40, num_items=20, num_interests=4, min_length=3, max_length=9
    ),
)


@pytest.fixture(scope="module")
def dataset():
    return load("synthetic", DATA)


def training_rows(dataset):
    """user -> items, from the sequences: everything but a user's last two."""
    rows = {}
    for user, start, valid in zip(
        dataset.test_users, dataset.test.start, dataset.valid.end, strict=True
    ):
        rows[int(user)] = dataset.test.items[start:valid].tolist()
    return rows


def test_interactions_are_the_training_rows(dataset):
    fed, rows = kinds.feed("interactions", dataset, DATA), training_rows(dataset)
    assert fed.num_examples == len(rows)
    index = jnp.array([3, -1, 0], jnp.int32)
    batch = fed.example(fed.train, index, jnp.arange(3), jax.random.key(0))
    for at in (0, 2):
        items = np.asarray(batch.items[at])
        assert items[items > 0].tolist() == rows[int(batch.user[at])]
        assert np.asarray(batch.value[at]).tolist() == (items > 0).tolist()
    assert batch.weight.tolist() == [1, 0, 1] and not batch.items[1].any()


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("kind", ["interactions", "pairs"])
def test_queries_hold_training_items_only(dataset, kind, split):
    fed, rows = kinds.feed(kind, dataset, DATA), training_rows(dataset)
    asked = fed.query(fed.splits[split], jnp.array([5, 7, -1], jnp.int32))
    for at in (0, 1):
        items = np.asarray(asked.items[at])
        assert int(asked.user[at]) == dataset.test_users[[5, 7][at]]
        assert items[items > 0].tolist() == rows[int(asked.user[at])]
    assert not asked.items[2].any() and asked.row.tolist() == [5, 7, -1]


def test_pairs_are_all_training_pairs_and_negatives_are_not_the_users(dataset):
    fed, rows = kinds.feed("pairs", dataset, DATA), training_rows(dataset)
    assert fed.num_examples == sum(map(len, rows.values()))
    index = jnp.arange(fed.num_examples, dtype=jnp.int32)
    batch = fed.example(fed.train, index, index, jax.random.key(1))
    got = sorted(zip(batch.user.tolist(), batch.positive.tolist(), strict=True))
    assert got == sorted((user, item) for user, items in rows.items() for item in items)
    for user, negative in zip(batch.user.tolist(), batch.negative.tolist(), strict=True):
        assert 1 <= negative <= 20 and negative not in rows[user]


def test_pairs_by_user_are_uniform_over_users_and_each_users_items(dataset):
    fed, rows = kinds.feed("user_pairs", dataset, DATA), training_rows(dataset)
    assert fed.num_examples == sum(map(len, rows.values()))
    count = 60_000
    row = jnp.arange(count, dtype=jnp.int32)
    batch = jax.jit(fed.example)(fed.train, row.at[7].set(-1), row, jax.random.key(3))
    assert float(batch.weight.sum()) == count - 1 and batch.weight[7] == 0
    found = {}
    for user, positive, negative in zip(
        batch.user.tolist(), batch.positive.tolist(), batch.negative.tolist(), strict=True
    ):
        assert negative not in rows[user]
        found.setdefault(user, []).append(positive)
    assert found.keys() == rows.keys()
    expected = count / len(rows)
    square = sum((len(drawn) - expected) ** 2 / expected for drawn in found.values())
    freedom = len(rows) - 1
    assert abs(square - freedom) < 5 * np.sqrt(2 * freedom)  # five deviations of chi^2
    longest = max(rows, key=lambda user: len(rows[user]))
    items, times = np.unique(found[longest], return_counts=True)
    assert items.tolist() == sorted(set(rows[longest]))
    share = 1 / len(items)
    tolerance = 5 * np.sqrt(share / len(found[longest]))
    np.testing.assert_allclose(times / times.sum(), share, atol=tolerance)


@pytest.mark.parametrize("kind", ["interactions", "pairs", "user_pairs"])
def test_shared_queries_are_those_of_each_split(dataset, kind):
    kept = np.array([4, 1, 7])  # a user or two of only one split, in another order
    dataset = dataset._replace(
        valid=ragged.pick(dataset.valid, kept), valid_users=dataset.valid_users[kept]
    )
    fed = kinds.feed(kind, dataset, DATA)
    for split, users in (("valid", dataset.valid_users), ("test", dataset.test_users)):
        place = fed.shared.place[split]
        asked = np.flatnonzero(place >= 0)
        assert sorted(place[asked]) == list(range(len(users)))
        own = fed.query(fed.splits[split], jnp.asarray(place[asked]))
        got = fed.query(fed.shared.rows, jnp.asarray(asked, jnp.int32))
        assert got.user.tolist() == users[place[asked]].tolist()
        for mine, theirs in zip(got[:-1], own[:-1], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    twice = dataset._replace(valid_users=dataset.valid_users[[0, 0, 1]])
    assert kinds.feed(kind, twice, DATA).shared is None


def test_data_without_users_is_refused(dataset):
    with pytest.raises(ValueError, match="histories without users"):
        kinds.feed("pairs", dataset._replace(profiles=None), DATA)


def histories(lengths):
    end = np.cumsum(lengths)
    return Ragged(np.ones(end[-1] + 1, np.int32), end - lengths, end, end + 1)


@pytest.mark.parametrize("seed", range(4))
def test_chosen_lengths_pad_least_of_all(seed):
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.25, 200), 14)  # some are longer than max_len
    config = DataConfig(max_len=10)
    clipped = np.minimum(lengths, 10)

    def places(cuts):
        return sum(min(c for c in cuts if c >= length) for length in clipped)

    longest = clipped.max()
    best = min(places((*cuts, longest)) for cuts in itertools.combinations(range(1, longest), 3))
    chosen = batches_lengths.bucket_lengths(histories(lengths), config)
    assert len(chosen) <= 4 and chosen[-1] == 10 and list(chosen) == sorted(set(chosen))
    assert places(chosen) == best


def test_few_lengths_need_few_buckets_and_set_ones_are_kept():
    three = histories(np.array([3] * 5 + [7] * 2))
    assert batches_lengths.bucket_lengths(three, DataConfig(max_len=7)) == (3, 7)
    assert batches_lengths.bucket_lengths(three, DataConfig(max_len=7, buckets=(2, 4))) == (2, 4, 7)
    assert batches_lengths.bucket_lengths(three, DataConfig(max_len=7, buckets=(7,))) == (7,)


def test_batches_by_length_hold_the_same_examples(dataset):
    config = replace(DATA, buckets=(2, 3))
    fed, plain = (
        by_length.by_length("sequences", dataset, config, 16, 2),
        kinds.feed("sequences", dataset, DATA),
    )
    index = fed.order(jax.random.key(1))[1]
    row = jnp.arange(index.shape[0], dtype=jnp.int32)
    batch = fed.example(fed.train, index, row, jax.random.key(0))
    assert [part.shape[1] for part in batch.seq] == [2, 3, 5]
    assert sum(part.shape[0] for part in batch.seq) == index.shape[0]
    real = np.asarray(batch.row)[np.asarray(batch.weight) > 0].tolist()
    assert len(set(real)) == len(real)
    everything = plain.example(
        plain.train, jnp.arange(plain.num_examples), jnp.arange(plain.num_examples), None
    )
    known = {
        (*map(int, seq), int(target))
        for seq, target in zip(everything.seq, everything.target, strict=True)
    }
    padded = np.concatenate([np.pad(part, ((0, 0), (0, 5 - part.shape[1]))) for part in batch.seq])
    for seq, target, weight in zip(padded, batch.target, batch.weight, strict=True):
        assert weight == 0 or (*map(int, seq), int(target)) in known
    assert 13 <= batch.weight.sum() <= 18
    # rows of the two halves come from the two devices' shares
    half = index.shape[0] // 2
    one = fed.example(fed.train, index[:half], row[:half], jax.random.key(0))
    for part, share in zip(batch.seq, one.seq, strict=True):
        np.testing.assert_array_equal(part[: share.shape[0]], share)


def test_walks_by_length_are_the_walks(dataset):
    config = replace(DATA, buckets=(2, 3))
    fed = by_length.by_length("walks", dataset, config, 8, 2)
    rows, found = training_rows(dataset), []
    for index in fed.order(jax.random.key(1)):
        row = jnp.arange(index.shape[0], dtype=jnp.int32)
        batch = fed.example(fed.train, index, row, jax.random.key(0))
        assert [part.shape[1] for part in batch.seq] == [2, 3, 5]
        used = np.asarray(batch.row)[np.asarray(batch.weight) > 0].tolist()
        assert len(set(used)) == len(used)
        at = 0
        for seq, negative in zip(batch.seq, batch.negative, strict=True):
            assert seq.shape == negative.shape
            for items, others in zip(seq.tolist(), negative.tolist(), strict=True):
                if batch.weight[at] > 0:
                    items = [item for item in items if item]
                    found.append(items)
                    owners = [own for own in rows.values() if own[-len(items) :] == items]
                    assert any(not set(own) & set(others) for own in owners)
                at += 1
    want = [items[-5:] for items in rows.values() if len(items) >= 2]
    # a batch has fixed slots for a length, so the last few may not be dealt out in an epoch
    assert 0 <= len(want) - len(found) < 8
    for items in found:
        want.remove(items)


def test_grouped_queries_are_the_queries(dataset):
    config = replace(DATA, buckets=(3, 4))
    fed, plain = (
        by_length.by_length("sequences", dataset, config, 16, 1),
        kinds.feed("sequences", dataset, DATA),
    )
    for split in ("valid", "test"):
        rows = np.concatenate([group.rows for group in fed.groups[split]])
        assert sorted(rows) == list(range(len(dataset.valid.start)))
        for group in fed.groups[split]:
            got = group.query(fed.splits[split], jnp.asarray(group.rows))
            want = plain.query(plain.splits[split], jnp.asarray(group.rows))
            np.testing.assert_array_equal(got.row, want.row)
            np.testing.assert_array_equal(got.seq, want.seq[:, : got.seq.shape[1]])
            assert not want.seq[:, got.seq.shape[1] :].any()


def test_bad_buckets():
    for buckets, said in (((8, 4), "4,8"), ((0, 3), "such as 3"), ((8, 99), "exceed")):
        with pytest.raises(ValueError, match=said):
            DataConfig(max_len=50, buckets=buckets)


def test_windows_make_every_training_item_a_target_once(dataset):
    length, fed = 2, kinds.feed("windows", dataset, replace(DATA, max_len=2))
    index = jnp.arange(fed.num_examples, dtype=jnp.int32)
    batch = fed.example(fed.train, index, index, jax.random.key(0))
    got = []
    for seq, target in zip(batch.seq.tolist(), batch.target.tolist(), strict=True):
        seen = [item for item in seq if item]
        got += [(a, b) for a, b in zip(seen, [*seen[1:], target], strict=True)]
    want = [pair for items in training_rows(dataset).values() for pair in itertools.pairwise(items)]
    assert sorted(got) == sorted(want) and length == batch.seq.shape[1]


@pytest.mark.parametrize("devices", [2, 4])
def test_rows_of_batches_by_length_do_not_depend_on_the_devices(dataset, devices):
    # What keys the noise of an example: the same numbers however the batch is dealt out.
    config, found = replace(DATA, buckets=(2, 3)), []
    for count in (1, devices):
        fed = by_length.by_length("sequences", dataset, config, 16, count)
        for index in fed.order(jax.random.key(1)):
            row = jnp.arange(index.shape[0], dtype=jnp.int32)
            batch = fed.example(fed.train, index, row, jax.random.key(0))
            flat = [tuple(map(int, seq)) for part in batch.seq for seq in part]
            columns = zip(flat, batch.target, batch.row, batch.weight, strict=True)
            found.append({(seq, int(t), int(r)) for seq, t, r, weight in columns if weight > 0})
    half = len(found) // 2
    assert found[:half] == found[half:]
