"""What a model samples and how the catalogue is ranked by it, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.evaluation import rank, sampled
from jaxrec_diff.models.contract import Head, Model

ROWS, ITEMS, WIDTH = 4, 23, 3


def problem(pool="best", spread=None, bias=True, rows=False):
    """A model of whole numbers whose points depend on params, state, key and query.

    With `rows` its points are their scores, behind a column of no item and before three more.
    """
    rng = np.random.default_rng(0)
    table = rng.integers(-2, 3, (ITEMS, WIDTH)).astype(np.float32)
    extra = jnp.asarray(rng.integers(-1, 2, ITEMS), jnp.float32) if bias else None
    shape = (ROWS, WIDTH) if spread is None else (ROWS, spread, WIDTH)

    def sample(params, state, key, query):
        return query + params + state + jax.random.randint(key, shape, -2, 3)

    if rows:
        width = np.pad(table.T, ((0, 0), (1, 3)), constant_values=99.0)
        model = Model(
            init=None, loss=None, score_pooling=pool,
            sample=lambda params, *given: sample(params, *given) @ width * params,
            head=lambda params, state: Head(None, jnp.pad(extra, (1, 3)), first=1, items=ITEMS),
        )  # fmt: skip
        return model, jnp.asarray(rng.integers(-1, 2, shape), jnp.float32)
    model = Model(
        init=None, loss=None, sample=sample, score_pooling=pool,
        head=lambda params, state: Head(jnp.asarray(table) * params, extra),
        precompute=lambda params, state: state + params,
    )  # fmt: skip
    query = jnp.asarray(rng.integers(-1, 2, shape), jnp.float32)
    return model, query


def scores_of(points, head, pool):
    """f64[B, I] by loops."""
    points = np.asarray(points, np.float64).reshape(ROWS, -1, WIDTH)
    table, out = np.asarray(head.table, np.float64), np.zeros((ROWS, ITEMS))
    for row in range(ROWS):
        for item in range(ITEMS):
            each = [float(point @ table[item]) for point in points[row]]
            out[row, item] = max(each) if pool == "best" else np.log(np.sum(np.exp(each)))
            out[row, item] += 0.0 if head.bias is None else float(head.bias[item])
    return out


def listed(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    return np.where(found > -np.inf, order + 1, 0), found


@pytest.mark.parametrize("pool", ["best", "mixture"])
@pytest.mark.parametrize("spread", [None, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_sampled_list_is_a_sort_of_all_scores(pool, spread, bias):
    model, query = problem(pool, spread, bias)
    params, state, key = jnp.float32(2.0), jnp.float32(1.0), jax.random.key(3)
    drawn = rank.sample(model, params, state, key, query)
    np.testing.assert_array_equal(drawn.points, model.sample(params, state, key, query))
    rng = np.random.default_rng(1)
    seen = rng.integers(0, ITEMS + 1, (ROWS, 5)).astype(np.int32)
    allowed = rng.random(ITEMS) < 0.7
    top = rank.top(drawn, k=9, seen=jnp.asarray(seen), allowed=jnp.asarray(allowed), chunk=10)
    scores = scores_of(drawn.points, model.head(params, state), pool)
    scores[:, ~allowed] = -np.inf
    for row, items in enumerate(seen):
        scores[row, items[items > 0] - 1] = -np.inf
    items, values = listed(scores, 9)
    np.testing.assert_allclose(top.scores, values, rtol=1e-6, atol=1e-6)
    if pool == "best" or spread is None:  # whole numbers are exact
        np.testing.assert_array_equal(top.items, items)


@pytest.mark.parametrize("pool", ["best", "mixture"])
@pytest.mark.parametrize("spread", [None, 2])
def test_points_that_are_scores_are_listed_as_by_a_table(pool, spread):
    allowed = jnp.arange(ITEMS) % 4 > 0
    seen = jnp.asarray(np.random.default_rng(1).integers(0, ITEMS + 1, (ROWS, 5)), jnp.int32)
    given = 2.0, 1.0, jax.random.key(3)
    by_table, by_rows = (
        rank.sample(model, *given, query)
        for model, query in (problem(pool, spread), problem(pool, spread, rows=True))
    )
    assert by_rows.points.shape[-1] == rank.num_rows(by_rows) == ITEMS + 4
    assert rank.num_items(by_rows.head) == ITEMS and rank.item_rows(by_rows.head) is None
    for options in ({}, {"seen": seen}, {"seen": seen, "allowed": allowed}):
        found, wanted = (rank.top(each, k=9, **options) for each in (by_rows, by_table))
        np.testing.assert_array_equal(found.items, wanted.items)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-6)
    answer = jnp.arange(ROWS, dtype=jnp.int32) + 1
    found, wanted = (
        sampled.ranks(each, answer, jnp.maximum(seen, 1)) for each in (by_rows, by_table)
    )
    np.testing.assert_array_equal(found, wanted)
    if spread is not None:
        found, wanted = (rank.nearest(each, distinct=True) for each in (by_rows, by_table))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("pool", ["best", "mixture"])
@pytest.mark.parametrize("spread", [None, 2])
def test_several_draws_are_pooled_as_points_of_one(pool, spread):
    model, query = problem(pool, spread)
    keys = [jax.random.key(seed) for seed in (0, 5, 6)]
    draws = [rank.sample(model, 1.0, 0.0, key, query) for key in keys]
    joined = rank.joined(draws)
    assert joined.points.shape == (ROWS, 3 * (spread or 1), WIDTH) and joined.score_pooling == pool
    each = np.stack([scores_of(drawn.points, drawn.head, pool) for drawn in draws])
    bias = np.asarray(draws[0].head.bias)
    wanted = each.max(0) if pool == "best" else np.log(np.exp(each - bias).sum(0)) + bias
    np.testing.assert_allclose(
        rank.top(joined, k=6).scores, listed(wanted, 6)[1], rtol=1e-6, atol=1e-6
    )
    assert (listed(wanted, 6)[1] > listed(each[0], 6)[1]).any()


def test_places_take_the_nearest_item_that_is_left():
    model, query = problem(spread=3, bias=False)
    drawn = rank.sample(model, 1.0, 0.0, jax.random.key(0), query)
    seen = np.tile(np.arange(1, 13, dtype=np.int32), (ROWS, 1))
    found = np.asarray(rank.nearest(drawn, seen=jnp.asarray(seen), distinct=True))
    for row, points in enumerate(np.asarray(drawn.points, np.float64)):
        scores = points @ np.asarray(drawn.head.table, np.float64).T
        scores[:, :12] = -np.inf
        for place in range(3):
            item = int(np.argmax(scores[place])) + 1
            assert found[row, place] == item
            scores[:, item - 1] = -np.inf
    free = np.asarray(rank.nearest(drawn))
    assert (free != found).any() and free.min() >= 1


def test_what_is_precomputed_reaches_the_draw():
    model, query = problem()
    state = rank.precompute(model, 2.0, 1.0)
    assert float(state) == 3.0
    key = jax.random.key(1)
    before, after = (rank.sample(model, 2.0, each, key, query).points for each in (1.0, state))
    np.testing.assert_array_equal(after - before, np.full((ROWS, WIDTH), 2.0))


def test_batches_hold_every_row_once_in_order():
    rows = np.array([7, 3, 9, 4, 8])
    got = list(rank.batches(rows, 2))
    assert [batch.tolist() for batch in got] == [[7, 3], [9, 4], [8, -1]]
    assert all(batch.dtype == np.int32 for batch in got)
    assert [batch.tolist() for batch in rank.batches(rows, 5)] == [rows.tolist()]
    assert list(rank.batches(rows[:0], 3)) == []
