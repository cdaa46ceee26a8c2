"""Draws outside a set: their law, and the items that a list of all the others gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import negatives

ITEMS = 12
KEY = jax.random.key(0)


def outsiders(key, row, seq):
    """For every place an item that is not in the history, from the list of all of those."""
    free = [item for item in range(1, ITEMS + 1) if item not in seq]
    drawn = jax.random.randint(jax.random.fold_in(key, row), (len(seq),), 0, len(free))
    return [free[i] for i in drawn]


COUNTS = np.array([5, 1, 9, 2, 2, 0, 1])
LAWS = {
    "uniform": (negatives.uniform(7), np.ones(7)),
    # ranks by falling count, ties by id
    "log_uniform": (
        negatives.log_uniform(COUNTS),
        np.log(np.array([3 / 2, 6 / 5, 2, 4 / 3, 5 / 4, 8 / 7, 7 / 6])),
    ),
    "popularity": (negatives.popularity(COUNTS), COUNTS),
    "flattened": (negatives.popularity(COUNTS, power=0.5), COUNTS**0.5),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_law_draws_what_its_log_q_says(name):
    law, weights = LAWS[name]
    share, count = weights / weights.sum(), 40_000
    drawn = np.bincount(np.asarray(law.draw(KEY, count)), minlength=8)[1:] / count
    np.testing.assert_allclose(drawn, share, atol=4 * np.sqrt(0.25 / count))
    assert (drawn[share == 0] == 0).all()
    log_q = np.asarray(law.log_q(jnp.arange(1, 8)))
    some = share > 0
    np.testing.assert_allclose((log_q - log_q[0])[some], np.log(share[some] / share[0]), atol=1e-6)
    assert np.isfinite(log_q).all()


def test_unowned_items_are_uniform_over_what_is_left():
    owned = jnp.array([2, 3, 7, 1, 2, 3], jnp.int32)
    count = 30_000
    for start, stop in ((0, 3), (3, 6), (3, 3)):
        drawn = np.asarray(
            negatives.unowned(
                jax.random.key(4),
                jnp.arange(count),
                owned,
                jnp.full(count, start),
                jnp.full(count, stop),
                8,
            )
        )
        left = sorted(set(range(1, 9)) - set(np.asarray(owned)[start:stop].tolist()))
        ids, times = np.unique(drawn, return_counts=True)
        assert ids.tolist() == left
        share = 1 / len(left)
        np.testing.assert_allclose(times / count, share, atol=5 * np.sqrt(share / count))
    everything = jnp.arange(1, 9, dtype=jnp.int32)
    one = negatives.unowned(
        jax.random.key(0), jnp.arange(1), everything, jnp.zeros(1, int), jnp.full(1, 8), 8
    )
    assert one.tolist() == [9]


def test_strangers_are_drawn_evenly_from_what_a_history_lacks():
    seq = jnp.array([[3, 4, 3, 0], [1, 12, 0, 0], [0, 0, 0, 0]])
    found = negatives.strangers(KEY, jnp.array([7, 2, 9]), seq, ITEMS)
    for b, row in enumerate((7, 2, 9)):
        assert found[b].tolist() == outsiders(KEY, row, seq[b].tolist())
    many = np.asarray(
        negatives.strangers(KEY, jnp.arange(2000), jnp.tile(seq[:1], (2000, 1)), ITEMS)
    )
    counts = np.bincount(many.reshape(-1), minlength=ITEMS + 1)
    assert counts[[0, 3, 4]].sum() == 0
    np.testing.assert_allclose(counts[[1, 2, *range(5, 13)]] / 8000, 0.1, atol=0.015)
    # a history with everything leaves nothing to compare with
    everything = jnp.arange(1, 4)[None]
    assert (np.asarray(negatives.strangers(KEY, jnp.arange(1), everything, 3)) > 3).all()


def test_absent_items_are_uniform_outside_the_window():
    seq, target = jnp.array([3, 9, 3, 1, 0, 0]), jnp.array(7)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.vmap(lambda k: negatives.absent(k, seq, target, 10))(keys)).ravel()
    share = np.bincount(drawn, minlength=11) / drawn.size
    np.testing.assert_allclose(share[[2, 4, 5, 6, 8, 10]], 1 / 6, atol=0.01)
    assert not share[[0, 1, 3, 7, 9]].any()
    everything = negatives.absent(keys[0], jnp.arange(1, 10), jnp.array(10), 10)
    assert (everything == 10).all()
