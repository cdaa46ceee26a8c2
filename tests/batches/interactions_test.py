"""Training rows against plain Python over the same flat arrays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.batches.triplets import TRIPLETS, TRIPLETS_BY_USER
from jaxrec_diff.data import views
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.ops import ragged

KINDS = (INTERACTIONS, TRIPLETS, TRIPLETS_BY_USER)


def test_interactions_are_the_training_rows(dataset, settings, training):
    fed, rows = INTERACTIONS.batcher(dataset, settings), training
    assert fed.num_examples == len(rows)
    index = jnp.array([3, -1, 0], jnp.int32)
    batch = fed.example(fed.train, index, jnp.arange(3), jax.random.key(0))
    for at in (0, 2):
        items = np.asarray(batch.items[at])
        assert items[items > 0].tolist() == rows[int(batch.user[at])]
        assert np.asarray(batch.value[at]).tolist() == (items > 0).tolist()
    assert batch.weight.tolist() == [1, 0, 1] and not batch.items[1].any()


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_queries_hold_training_items_only(dataset, settings, training, kind, split):
    fed, rows = kind.batcher(dataset, settings), training
    asked = fed.query(fed.splits[split], jnp.array([5, 7, -1], jnp.int32))
    for at in (0, 1):
        items = np.asarray(asked.items[at])
        assert int(asked.user[at]) == dataset.test_users[[5, 7][at]]
        assert items[items > 0].tolist() == rows[int(asked.user[at])]
    assert not asked.items[2].any() and asked.row_id.tolist() == [5, 7, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_shared_queries_are_those_of_each_split(dataset, settings, kind):
    kept = np.array([4, 1, 7])  # a user or two of only one split, in another order
    dataset = dataset._replace(
        valid=ragged.pick(dataset.valid, kept), valid_users=dataset.valid_users[kept]
    )
    fed = kind.batcher(dataset, settings)
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
    assert kind.batcher(twice, settings).shared is None


@pytest.mark.parametrize("low", [1.0, 0.25])
@pytest.mark.parametrize("target", ["all", "last", "successive"])
def test_behind_a_cut_in_time_a_row_is_asked_by_its_history(tmp_path, target, low):
    """Those who came later have no training row; models of known users read the one they have."""
    rng = np.random.default_rng(5)
    rows = [(u, int(rng.integers(1, 9)), 10 * u + 8 * n) for u in range(12) for n in range(9)]
    lines = ["user,item,time", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    config = DataConfig(
        split="global_time", ratio=(0.5, 0.2, 0.3), target=target, time_weight_min=low
    )
    data = load(str(tmp_path / "a.csv"), config)
    fed, known = INTERACTIONS.batcher(data, config), data.user_items
    assert fed.shared is None and len(fed.train.user) < 12
    for split, asking in (("valid", data.valid_users), ("test", data.test_users)):
        own = {"valid": data.valid, "test": data.test}[split]
        asked = fed.query(fed.splits[split], jnp.arange(-1, len(own.start)))
        assert not asked.items[0].any() and asked.row_id.tolist()[:2] == [-1, 0]
        for row, (start, end) in enumerate(zip(own.start, own.end, strict=True)):
            items, values = (np.asarray(part[row + 1]) for part in (asked.items, asked.value))
            want = expected(own.items[start:end].tolist(), low, 1.0)
            got = list(zip(items[items > 0].tolist(), values[items > 0].tolist(), strict=True))
            np.testing.assert_allclose(np.reshape(got, (-1, 2)), np.reshape(want, (-1, 2)), 1e-6)
        found = INTERACTIONS.reads(data, split)
        np.testing.assert_array_equal(found.end - found.start, own.end - own.start)
        found = TRIPLETS.reads(data, split)
        np.testing.assert_array_equal(found.end - found.start, (known.end - known.start)[asking])
        part = fed.alone(fed.splits[split], np.array([2, 0]))
        few = fed.query(part, jnp.arange(2))
        np.testing.assert_array_equal(few.items, np.asarray(asked.items)[[3, 1]])


@pytest.mark.parametrize("kind", KINDS)
def test_data_without_users_is_refused(dataset, settings, kind):
    with pytest.raises(ValueError, match="histories without users"):
        kind.batcher(dataset._replace(user_items=None), settings)


@pytest.mark.parametrize("kind", KINDS)
def test_generated_items_mean_nothing_to_a_model_of_a_table(dataset, settings, kind):
    made = views.longer(dataset, np.ones((dataset.num_users, 1), np.int32))
    with pytest.raises(ValueError, match="has generated items ahead of its sequences"):
        kind.batcher(made, settings)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_scored_by_the_training_items_of_its_user(dataset, training, kind, split):
    kept = np.array([4, 1, 7])
    dataset = dataset._replace(
        valid=ragged.pick(dataset.valid, kept), valid_users=dataset.valid_users[kept]
    )
    found = kind.reads(dataset, split)
    users = {"valid": dataset.valid_users, "test": dataset.test_users}[split]
    for row, user in enumerate(users.tolist()):
        assert found.items[found.start[row] : found.end[row]].tolist() == training[user]


def expected(history, low, high):
    """(item, weight) of a history's distinct items, each at its last place."""
    kept = [item for at, item in enumerate(history) if item not in history[at + 1 :]]
    steps = max(len(kept) - 1, 1)
    return [(item, low + at / steps * (high - low)) for at, item in enumerate(kept)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("low", [1.0, 0.25])
def test_a_history_becomes_a_row_of_distinct_items(settings, kind, low):
    settings = dataclasses.replace(settings, time_weight_min=low)
    rng = np.random.default_rng(2)
    histories = [rng.integers(1, 8, size).tolist() for size in (0, 1, 4, 7, 12)]
    padded = np.array([row + [0] * (12 - len(row)) for row in histories], np.int32)
    row_id, user = jnp.arange(10, 15), jnp.array([3, 1, 4, 1, 5])
    ask = jax.jit(lambda history: kind.from_history(history, row_id, user, settings))
    query = ask(padded)
    assert query.user.tolist() == user.tolist() and query.row_id.tolist() == row_id.tolist()
    for history, items, values in zip(histories, query.items, query.value, strict=True):
        real = np.flatnonzero(items)
        assert not np.asarray(values)[items == 0].any()
        got = zip(np.asarray(items)[real].tolist(), np.asarray(values)[real].tolist(), strict=True)
        want = expected(history, low, 1.0)
        np.testing.assert_allclose(list(got) or want, want, rtol=1e-6)
        assert real.tolist() == list(range(len(want)))  # from the left, as `ops.sparse` asks
