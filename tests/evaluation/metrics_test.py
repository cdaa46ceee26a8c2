"""Metrics by hand and against trec_eval."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytrec_eval

from jaxrec_diff.evaluation import config, metrics, sampled
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.reporting import leaderboard, tables

per_user = jax.jit(metrics.per_user, static_argnames="ks")


def listed(*items: int) -> Top:
    scores = jnp.arange(len(items), 0, -1, dtype=jnp.float32)
    return Top(scores[None], jnp.array([items]))


def close(found, expected):
    np.testing.assert_allclose(float(np.asarray(found).squeeze()), expected, rtol=1e-6)


def test_one_relevant_item_at_rank_three():
    found = per_user(listed(4, 9, 2, 7, 5), jnp.array([[2]]), (2, 4))
    for name in metrics.METRICS:
        close(found[f"{name}@2"], 0)
    close(found["hr@4"], 1)
    close(found["recall@4"], 1)
    close(found["precision@4"], 1 / 4)
    close(found["ndcg@4"], 1 / math.log2(3 + 1))
    close(found["mrr@4"], 1 / 3)
    close(found["map@4"], 1 / 3)


def test_three_relevant_items_at_ranks_one_and_four():
    found = per_user(listed(4, 9, 2, 7, 5), jnp.array([[7, 0, 4, 30]]), (2, 4))
    close(found["hr@2"], 1)
    close(found["recall@2"], 1 / 3)
    close(found["precision@2"], 1 / 2)
    close(found["ndcg@2"], 1 / (1 + 1 / math.log2(3)))
    close(found["map@2"], 1 / 2)
    close(found["recall@4"], 2 / 3)
    close(found["precision@4"], 2 / 4)
    close(found["ndcg@4"], (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / math.log2(4)))
    close(found["mrr@4"], 1)
    close(found["map@4"], (1 / 1 + 2 / 4) / 3)


def test_an_item_outside_the_list_and_a_row_without_answers():
    for relevant in ([[8]], [[0]]):
        found = per_user(listed(4, 9, 0), jnp.array(relevant), (2,))
        assert all(float(value[0]) == 0 for value in found.values())


def test_ranks_are_pessimistic():
    found = Top(jnp.array([[5.0, 5.0, 3.0, 3.0, 3.0, 1.0]]), jnp.array([[1, 2, 3, 4, 5, 6]]))
    assert metrics.ranks(found).tolist() == [[2, 2, 5, 5, 5, 6]]
    at_two = per_user(found, jnp.array([[1]]), (1, 2, 4, 5))
    close(at_two["hr@1"], 0)
    close(at_two["mrr@2"], 1 / 2)
    # two hits that tie share the rank, and so the precision there
    close(per_user(found, jnp.array([[1, 2]]), (2,))["map@2"], 1)
    close(per_user(found, jnp.array([[1, 4]]), (5,))["map@5"], (1 / 2 + 2 / 5) / 2)
    tied = per_user(found, jnp.array([[3]]), (4, 5))
    close(tied["hr@4"], 0)
    close(tied["ndcg@5"], 1 / math.log2(5 + 1))


def test_equal_scores_hit_nothing():
    found = Top(jnp.zeros((3, 11)), jnp.tile(jnp.arange(1, 12), (3, 1)))
    values = per_user(found, jnp.array([[1], [5], [10]]), (1, 5, 10))
    assert all(not np.any(value) for value in values.values())


def test_lists_must_be_longer_than_the_cut_off():
    with pytest.raises(ValueError, match="cut-off 5 needs lists of 6, got 5"):
        per_user(listed(1, 2, 3, 4, 5), jnp.array([[1]]), (2, 5))


def random_lists(seed: int):
    rng = np.random.default_rng(seed)
    users, items = 60, 40
    scores = rng.permuted(np.tile(np.arange(items, dtype=np.float32), (users, 1)), axis=1)
    order = np.argsort(-scores, axis=1)[:, :21]
    relevant = np.zeros((users, 15), np.int32)
    for row in relevant:
        count = rng.integers(1, 16)
        row[:count] = rng.choice(items, count, replace=False) + 1
        rng.shuffle(row)
    found = Top(jnp.asarray(np.take_along_axis(scores, order, axis=1)), jnp.asarray(order + 1))
    return scores, relevant, found


def test_agreement_with_trec_eval():
    ks = (1, 5, 10, 20)
    scores, relevant, found = random_lists(0)
    ours = jax.device_get(per_user(found, jnp.asarray(relevant), ks))
    cuts = ",".join(str(k) for k in ks)
    judged = {f"u{u}": {f"i{j}": 1 for j in row if j} for u, row in enumerate(relevant.tolist())}
    run = {
        f"u{u}": {f"i{j + 1}": s for j, s in enumerate(row)}
        for u, row in enumerate(scores.tolist())
    }
    names = {f"{name}.{cuts}" for name in ("ndcg_cut", "map_cut", "recall", "P", "success")}
    theirs = pytrec_eval.RelevanceEvaluator(judged, names | {"recip_rank"}).evaluate(run)
    for u, row in enumerate(relevant):
        given, size = theirs[f"u{u}"], int((row > 0).sum())
        for k in ks:
            expected = {
                "hr": given[f"success_{k}"],
                "recall": given[f"recall_{k}"],
                "precision": given[f"P_{k}"],
                "ndcg": given[f"ndcg_cut_{k}"],
                "mrr": given["recip_rank"] if 1 / given["recip_rank"] < k + 0.5 else 0.0,
                # trec_eval divides by all relevant items, even where k is smaller
                "map": given[f"map_cut_{k}"] * size / min(size, k),
            }
            for name, value in expected.items():
                assert float(ours[f"{name}@{k}"][u]) == pytest.approx(value, abs=2e-6), (name, k, u)


def test_ndcg_is_at_most_hr_and_more_is_never_worse():
    _, relevant, found = random_lists(1)
    ours = jax.device_get(per_user(found, jnp.asarray(relevant), (1, 5, 10, 20)))
    for k in (1, 5, 10, 20):
        assert (ours[f"ndcg@{k}"] <= ours[f"hr@{k}"] + 1e-6).all()
        assert all(
            ((0 <= ours[f"{n}@{k}"]) & (ours[f"{n}@{k}"] <= 1 + 1e-6)).all()
            for n in metrics.METRICS
        )
    for name in ("hr", "recall", "mrr"):
        assert (ours[f"{name}@5"] <= ours[f"{name}@10"]).all()


def test_what_lists_say_together():
    items = jnp.array([[1, 2, 9], [1, 3, 9], [4, 0, 9], [5, 5, 5]])
    exposed = np.asarray(metrics.exposure(items, 2, 5, jnp.array([1.0, 1.0, 1.0, 0.0])))
    assert exposed.tolist() == [2, 1, 1, 1, 0]
    assert metrics.coverage(exposed) == 4 / 5
    # mean absolute difference of all pairs over twice the mean
    pairs = sum(abs(a - b) for a in exposed for b in exposed) / 5**2
    assert metrics.gini(exposed) == pytest.approx(pairs / (2 * 5 / 5))
    assert metrics.gini(np.full(7, 3.0)) == pytest.approx(0)
    assert metrics.gini(np.eye(50)[0]) == pytest.approx(1 - 1 / 50)
    assert metrics.gini(np.zeros(4)) == 0
    counts = np.array([10, 20, 30, 40, 50])
    assert metrics.average_popularity(exposed, counts) == (2 * 10 + 20 + 30 + 40) / 5
    assert metrics.average_popularity(np.zeros(5), counts) == 0


def test_spread_of_a_table():
    table = np.array([[3.0, 4.0], [3.0, -4.0], [0.0, 2.0]], np.float32)
    found = metrics.table_spread(table, np.array([True, True, False]))
    assert found == {"item_spread": 4.0, "item_norm_trained": 5.0, "item_norm_untrained": 2.0}
    assert "item_norm_untrained" not in metrics.table_spread(table, np.ones(3, bool))
    assert metrics.table_spread(np.ones((4, 2)), np.ones(4, bool))["item_spread"] == 0


def test_answers_are_a_set():
    # answers 5 and 5 are the set {5}, at rank 1 of 5, 7, 2
    found = per_user(listed(5, 7, 2), jnp.array([[5, 5]]), (1, 2))
    for name in ("hr", "recall", "ndcg", "mrr", "map"):
        close(found[f"{name}@1"], 1)
        close(found[f"{name}@2"], 1)
    close(found["precision@2"], 1 / 2)
    # {2, 9} of 4, 9, 2: ranks 2 and 3
    found = per_user(listed(4, 9, 2, 7, 5), jnp.array([[2, 9, 2, 0, 9]]), (4,))
    close(found["recall@4"], 1)
    close(found["ndcg@4"], (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3)))
    close(found["map@4"], (1 / 2 + 2 / 3) / 2)
    assert metrics.sizes(jnp.array([[5, 5, 0], [0, 0, 0], [1, 2, 3], [3, 0, 3]])).tolist() == [
        1, 0, 3, 1,
    ]  # fmt: skip
    assert metrics.sizes(jnp.array([[4], [0]])).tolist() == [1, 0]


def test_numbers_are_the_same_on_the_host():
    _, relevant, found = random_lists(2)
    ours = per_user(found, jnp.asarray(relevant), (1, 5, 20))
    hit, rank = (np.asarray(part) for part in (metrics.hits(found, relevant), metrics.ranks(found)))
    host = metrics.at_cut_offs(hit, rank, metrics.sizes(relevant), (1, 5, 20))
    for name, value in ours.items():
        assert isinstance(host[name], np.ndarray)
        np.testing.assert_allclose(host[name], value, rtol=1e-6)


def test_whatever_names_metrics_reads_the_one_table():
    table = metrics.METRICS
    written = {
        function
        for _, function in inspect.getmembers(metrics, inspect.isfunction)
        if list(inspect.signature(function).parameters) == ["hit", "rank", "size", "k"]
    }
    assert written == {metric.value for metric in table.values()}
    ks = (5, 10, 20)
    every = [f"{name}@{k}" for k in ks for name in table]
    # what is computed
    assert list(metrics.per_user(listed(*range(1, 22)), jnp.array([[1]]), ks)) == every
    # what a run may be chosen by, and what a wrong name is told
    for name in every:
        assert EvalConfig(metric=name, ks=ks).metric == name
        assert config.sign(name) == (1 if table[name.split("@")[0]].higher_is_better else -1)
    assert config.sign(config.LOSS) == -1
    with pytest.raises(ValueError, match="did you mean 'precision@5'"):
        EvalConfig(metric="precison@5", ks=ks)
    # columns: of a run's table, and by default of a leaderboard
    columns = {f"{name}@{k}" for name in table if table[name].compared for k in (10, 20)}
    values = {name: np.array([0.0, place], np.float32) for place, name in enumerate(every)}
    means = {name: float(value.mean()) for name, value in values.items()}
    results = {
        "model": "x", "metrics": means, "controls": {}, "optimum": {}, "diagnostics": {},
        "protocol": "honest", "dataset": "d", "data_hash": "h", "seed": 0,
    }  # fmt: skip
    assert set(tables.table(results).splitlines()[0].split()) == columns
    run = leaderboard.Run("x", "runs/x", "{}", results, np.arange(2), values)
    assert set(leaderboard.board([run], resamples=10).metrics) == columns
    # metrics that say the same where rows have one answer share a column
    single = {name for name in columns if not table[name.split("@")[0]].same_as}
    alike = {name: values[name.replace("recall", "hr")] for name in every}
    assert set(leaderboard.board([run._replace(values=alike)], resamples=10).metrics) == single
    # groups of users and drawn items
    groups = {name for name in every if table[name.split("@")[0]].grouped}
    assert set(sampled.figures(np.array([1, 7]), 101, ks)) == groups
