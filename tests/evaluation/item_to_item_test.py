"""EASE and nearest neighbours against dense float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.evaluation import baselines, item_to_item, metrics
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.evaluation.ranking import Top
from jaxrec_diff.models.protocols import HONEST
from jaxrec_diff.ops import graph
from jaxrec_diff.ops.ragged import Ragged

USERS, ITEMS = 40, 15


def data(seed=0):
    """Rows with repeats; item 15 is in none. Each has two answers that it does not hold."""
    rng = np.random.default_rng(seed)
    rows = [(rng.zipf(1.4, rng.integers(2, 9)) % (ITEMS - 1) + 1).tolist() for _ in range(USERS)]
    rows[4] = []
    answers = [
        rng.choice(sorted(set(range(1, ITEMS)) - set(row)), 2, replace=False).tolist()
        for row in rows
    ]
    flat = np.array(sum((row + a for row, a in zip(rows, answers, strict=True)), []), np.int32)
    stop = np.cumsum([len(row) + 2 for row in rows])
    start = stop - [len(row) + 2 for row in rows]
    return rows, answers, Ragged(flat, start, stop - 2, stop)


def matrix(rows):
    out = np.zeros((len(rows), ITEMS))
    for user, row in enumerate(rows):
        for item in row:
            out[user, item - 1] = 1.0
    return out


def naive_neighbours(x, count, shrink):
    """w[i, j] for a row's item i and a scored item j: j keeps the items most like it."""
    users = x.sum(axis=0)
    weights = np.zeros((ITEMS, ITEMS))
    for j in range(ITEMS):
        likeness = []
        for i in range(ITEMS):
            both = float((x[:, i] * x[:, j]).sum())
            scale = np.sqrt(users[i] * users[j]) + shrink
            likeness.append(both / scale if both and i != j else 0.0)
        for i in range(ITEMS):
            rank = sum(np.float32(other) >= np.float32(likeness[i]) for other in likeness)
            weights[i, j] = likeness[i] if rank <= count else 0.0
    return weights


@pytest.fixture(params=[2**24, 40], ids=["whole", "small chunks"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(item_to_item, "_CHUNK", request.param)


def test_ease_is_the_constrained_least_squares_solution(chunks):
    rows, _, histories = data()
    x = matrix(rows)
    sets = graph.item_sets(histories, ITEMS)
    found = {
        candidate.setting["regularisation"]: candidate.fit()
        for candidate in item_to_item.candidates("ease", sets, ITEMS)
    }
    assert tuple(found) == item_to_item.REGULARISATIONS
    for regularisation in (30.0, 1000.0):
        want = np.zeros((ITEMS, ITEMS))
        for j in range(ITEMS):  # ridge regression of column j on the others
            others = [i for i in range(ITEMS) if i != j]
            rest = x[:, others]
            system = rest.T @ rest + regularisation * np.eye(ITEMS - 1)
            want[others, j] = np.linalg.solve(system, rest.T @ x[:, j])
        got = found[regularisation](sets)
        np.testing.assert_allclose(got, x @ want, rtol=1e-9, atol=1e-12)


def test_neighbours_are_those_of_a_loop(chunks):
    rows, _, histories = data()
    sets = graph.item_sets(histories, ITEMS)
    for shrink in (0.0, 5.0):
        want = naive_neighbours(matrix(rows), 4, shrink)
        score = item_to_item._sparse_score(*item_to_item.neighbours(sets, ITEMS, 4, shrink))
        np.testing.assert_allclose(score(sets), matrix(rows) @ want, rtol=1e-5, atol=1e-6)
    settings = [c.setting for c in item_to_item.candidates("item_knn", sets, ITEMS)]
    assert settings == [{"neighbours": 20, "shrink": s} for s in item_to_item.SHRINKS]


@pytest.mark.parametrize("mask_seen", [True, False])
def test_lists_are_sorted_scores_without_what_may_not_be_shown(chunks, mask_seen):
    rows, _, histories = data()
    weights = np.random.default_rng(1).integers(0, 3, (ITEMS, ITEMS)).astype(float)  # many ties
    allowed = np.arange(ITEMS) != 6
    score = item_to_item._dense_score(weights)
    top = item_to_item.lists(
        score,
        histories,
        histories,
        num_items=ITEMS,
        k=ITEMS + 2,
        mask_seen=mask_seen,
        allowed=allowed,
    )
    values = matrix(rows) @ weights
    for user, row in enumerate(rows):
        barred = {7} | (set(row) if mask_seen else set())
        want = [i for i in range(1, ITEMS + 1) if i not in barred]
        want.sort(key=lambda item: (-values[user, item - 1], item))
        assert top.items[user].tolist() == want + [0] * (ITEMS + 2 - len(want))
        shown = values[user, np.array(want) - 1]
        np.testing.assert_array_equal(top.scores[user][: len(want)], shown)
        assert (top.scores[user][len(want) :] == -np.inf).all()


def test_baselines_are_tuned_on_validation_and_scored_on_the_split():
    rows, answers, valid = data()
    train = Ragged(valid.items, valid.start, valid.end, valid.end)
    counts = matrix(rows).sum(axis=0).astype(np.int64)
    config = EvalConfig(metric="recall@5", ks=(5,), controls=("ease", "item_knn"))
    tuned = baselines.tune(train, valid, valid, counts, config, HONEST)
    x, system = matrix(rows), None
    best = {}
    for regularisation in item_to_item.REGULARISATIONS:
        system = np.linalg.inv(x.T @ x + regularisation * np.eye(ITEMS))
        scores = x @ (np.eye(ITEMS) - system / np.diag(system))
        scores[:, counts == 0] = -np.inf
        scores[x > 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :6]
        top = Top(np.take_along_axis(scores, order, 1), order + 1)
        relevant = jnp.asarray(answers)
        best[regularisation] = float(
            np.mean(metrics.per_user(jax.tree.map(jnp.asarray, top), relevant, (5,))["recall@5"])
        )
    chosen = tuned["ease"].setting["regularisation"]
    np.testing.assert_allclose(tuned["ease"].valid, max(best.values()), rtol=1e-6)
    np.testing.assert_allclose(best[chosen], max(best.values()), rtol=1e-6)
    examples = Ragged(valid.items, valid.start, valid.end, valid.end + 1)
    found = baselines.per_user(examples, valid, counts, config, HONEST, tuned, valid)
    beside = baselines.means(found, config, HONEST, tuned=tuned)
    for name in ("ease", "item_knn"):
        np.testing.assert_allclose(beside[name]["recall@5"], tuned[name].valid, rtol=1e-6)
        assert beside[name]["valid_recall@5"] == tuned[name].valid
    assert beside["ease"]["regularisation"] == chosen
    assert set(beside) >= {"popularity", "transitions"}


def test_a_catalogue_too_large_for_ease_is_refused():
    with pytest.raises(
        ValueError,
        match=r"180000 items in 259\.6 GB and takes at most 20000 items in 3\.6 GB; take item_knn",
    ):
        item_to_item.check("ease", 180_000)
    item_to_item.check("item_knn", 180_000)
