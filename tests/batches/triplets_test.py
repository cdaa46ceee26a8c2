"""Triplets against plain Python over the same flat arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches.triplets import TRIPLETS, TRIPLETS_BY_USER


def test_positives_are_all_training_pairs_and_negatives_are_not_the_users(
    dataset, settings, training
):
    fed, rows = TRIPLETS.batcher(dataset, settings), training
    assert fed.num_examples == sum(map(len, rows.values()))
    index = jnp.arange(fed.num_examples, dtype=jnp.int32)
    batch = fed.example(fed.train, index, index, jax.random.key(1))
    got = sorted(zip(batch.user.tolist(), batch.positive.tolist(), strict=True))
    assert got == sorted((user, item) for user, items in rows.items() for item in items)
    for user, negative in zip(batch.user.tolist(), batch.negative.tolist(), strict=True):
        assert 1 <= negative <= 20 and negative not in rows[user]


def test_triplets_by_user_are_uniform_over_users_and_each_users_items(dataset, settings, training):
    fed, rows = TRIPLETS_BY_USER.batcher(dataset, settings), training
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
