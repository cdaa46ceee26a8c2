"""Sampled ranks against a plain loop and the published example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import layout
from jaxrec_diff.batches.cut import queries
from jaxrec_diff.evaluation import evaluator, sampled
from jaxrec_diff.evaluation.rank import Drawn
from jaxrec_diff.models.contract import Head, Model
from jaxrec_diff.ops.ragged import Ragged

ROWS = Ragged(np.array([1, 2, 3, 4, 5, 6, 7, 8], np.int32),
              *(np.array(part, np.int32) for part in ([0, 3], [2, 7], [3, 8])))  # fmt: skip


def test_negatives_are_distinct_and_nobodys_own():
    drawn = sampled.draw(ROWS, 30, 20, seed=3)
    for row, own in zip(drawn.tolist(), ({1, 2, 3}, {4, 5, 6, 7, 8}), strict=True):
        assert len(set(row)) == 20 and not set(row) & own
        assert min(row) >= 1 and max(row) <= 30
    np.testing.assert_array_equal(drawn, sampled.draw(ROWS, 30, 20, seed=3))
    assert (drawn != sampled.draw(ROWS, 30, 20, seed=4)).any()
    many = [sampled.draw(ROWS, 12, 7, seed=s)[1] for s in range(200)]
    assert {tuple(sorted(row)) for row in many} == {(1, 2, 3, 9, 10, 11, 12)}
    with pytest.raises(ValueError, match="at most 7"):
        sampled.draw(ROWS, 12, 8)


def test_ranks_count_ties_against_the_answer():
    rng = np.random.default_rng(0)
    table, bias = rng.integers(-2, 3, (30, 2)), rng.integers(-1, 2, 30)
    points, answer = rng.integers(-2, 3, (6, 2)), rng.integers(1, 31, 6)
    negatives = rng.integers(1, 31, (6, 9))
    got = sampled.ranks(
        Drawn(
            jnp.asarray(points, jnp.float32),
            Head(jnp.asarray(table, jnp.float32), jnp.asarray(bias)),
        ),
        jnp.asarray(answer),
        jnp.asarray(negatives),
    )
    score = lambda p, j: float(p @ table[j - 1] + bias[j - 1])
    for b in range(6):
        beaten = [score(points[b], j) >= score(points[b], answer[b]) for j in negatives[b]]
        assert got[b] == 1 + sum(beaten)
    nothing = sampled.ranks(
        Drawn(jnp.full((1, 2), jnp.nan), Head(jnp.ones((30, 2)))),
        jnp.array([3]),
        jnp.array([[4, 5]]),
    )
    assert nothing.tolist() == [3]


def test_figures_of_the_published_ranks_and_groups():
    # 0-based ranks 0, 3, 9, 10, 57 -> HR@10 .6, NDCG@10 .3439482769
    rank = np.array([0, 3, 9, 10, 57])
    model = Model(
        init=None, loss=None,
        sample=lambda params, state, key, query: jnp.ones((query.row_id.shape[0], 1)),
        head=lambda params, state: Head(jnp.linspace(1.0, 0.0, 200)[:, None]),
    )  # fmt: skip
    answer = rank + 1  # item j scores in place j of the catalogue
    negatives = np.stack([np.setdiff1d(np.arange(1, 102), [a])[:100] for a in answer])
    items = np.ravel([[200, a] for a in answer]).astype(np.int32)
    at = 2 * np.arange(5, dtype=np.int32)
    histories = Ragged(items, at, at + 1, at + 2)
    split = evaluator.split_of(
        histories,
        histories,
        lambda rows, index: queries(rows, index, max_len=3),
    )
    run = sampled.evaluator(model, split, negatives, layout.make_mesh(), ks=(10,), batch_size=2)
    found = run((), (), jax.random.key(0))
    np.testing.assert_allclose(found["hr@10"].mean(), 0.6, rtol=1e-6)
    np.testing.assert_allclose(found["ndcg@10"].mean(), 0.3439482769, rtol=1e-6)
    groups = sampled.by_length(found, np.array([5, 6, 20, 21, 1]))
    assert {name: group["users"] for name, group in groups.items()} == {
        "all": 5, "short": 2, "medium": 2, "long": 1,
    }  # fmt: skip
    assert groups["short"]["hr@10"] == 0.5 and groups["long"]["hr@10"] == 0.0


def test_an_answer_that_all_others_beat_has_the_last_rank():
    found = sampled.figures(np.array([3, 4, 1]), 4, (3, 5))
    assert found["hr@3"].tolist() == [1, 0, 1] and found["hr@5"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(found["ndcg@5"], [1 / np.log2(4), 1 / np.log2(5), 1], rtol=1e-6)
