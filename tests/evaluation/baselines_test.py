"""Baselines beside a model: the same figures under every numbering, and those of real data."""

import tracemalloc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.classics import ease, grids, scores
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.evaluation import baselines, metrics, rank, topk
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.models.contract import Head
from jaxrec_diff.models.protocols import HONEST, Rules
from jaxrec_diff.ops import graph
from jaxrec_diff.ops.ragged import Ragged
from tests.classics import samples

ITEMS = 24
CONFIG = EvalConfig(metric="ndcg@4", ks=(2, 4), controls=("ease", "item_knn"))


def sequences(seed: int):
    """Training rows, their examples, and queries with two answers; items that nobody can tell
    apart (each even one goes with the odd one before it) and ties of every kind."""
    rng = np.random.default_rng(seed)
    flat, start, end, stop, examples = [], [], [], [], []
    for _ in range(40):
        first, chosen = len(flat), rng.choice(ITEMS // 2, 4, replace=False)
        row = np.ravel([[2 * one + 1, 2 * one + 2] for one in chosen])
        row = rng.permutation(row) if rng.random() < 0.5 else row
        flat += row.tolist()
        start.append(first)
        end.append(first + 6)
        stop.append(first + 8)
        examples += [(first, first + place) for place in range(6)]
    to = np.array(examples, np.int32)
    numbers = [np.array(part, np.int32) for part in (start, end, stop)]
    items = np.array(flat, np.int32)
    return Ragged(items, *numbers), Ragged(items, to[:, 0], to[:, 1], to[:, 1] + 1)


def everything(rows: Ragged, train: Ragged, mask_seen: bool):
    rules = Rules(mask_seen=mask_seen, trained_only=False)
    counts = np.bincount(train.items[train.end], minlength=ITEMS + 1)[1:]
    tuned = baselines.tune(rows._replace(stop=rows.end), rows, rows, counts, CONFIG, rules)
    found = baselines.per_user(train, rows, counts, CONFIG, rules, tuned)
    return found, {name: (each.setting, each.valid) for name, each in tuned.items()}


@pytest.mark.parametrize("mask_seen", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_do_not_change_when_items_are_renamed(seed, mask_seen, monkeypatch):
    knn = grids.CLASSICS["item_knn"]
    few = knn._replace(axes={"shrink": (0.0, 30.0), "neighbours": (2, 3, 5)})
    monkeypatch.setitem(grids.CLASSICS, "item_knn", few)
    rows, train = sequences(seed)
    found, tuned = everything(rows, train, mask_seen)
    assert set(found) == {"popularity", "transitions", "ease", "item_knn"} | (
        set() if mask_seen else {"repeat_last"}
    )
    for name, values in found.items():
        assert mask_seen or name != "item_knn" or values["hr@4"].any()
    for other in range(3):
        new = np.append(0, np.random.default_rng([seed, other]).permutation(ITEMS) + 1)
        renamed = [part._replace(items=new[part.items].astype(np.int32)) for part in (rows, train)]
        again, tuned_again = everything(*renamed, mask_seen)
        assert tuned_again == tuned
        for name, values in found.items():
            for metric, value in values.items():
                np.testing.assert_array_equal(again[name][metric], value, f"{name} {metric}")


def test_figures_of_a_model_do_not_change_when_items_are_renamed():
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.integers(-1, 2, (50, 3)), jnp.float32)
    table, answers = rng.integers(-1, 2, (ITEMS, 3)), rng.integers(1, ITEMS + 1, (50, 2))
    values = []
    for seed in range(3):
        new = np.random.default_rng(seed).permutation(ITEMS)
        renamed = np.empty_like(table)
        renamed[new] = table
        drawn = rank.Drawn(points, Head(jnp.asarray(renamed, jnp.float32)))
        top = rank.top(drawn, k=6, chunk=7)
        values.append(metrics.per_user(top, jnp.asarray(new[answers - 1] + 1), (1, 5)))
    for each in values[1:]:
        for name, value in values[0].items():
            np.testing.assert_array_equal(each[name], value)
    assert values[0]["hr@5"].any()


def test_answers_are_a_set():
    rows, train = sequences(0)
    twice = np.concatenate([rows.items, np.repeat(rows.items[rows.end], 2)]).astype(np.int32)
    before = np.concatenate([rows.items[a:b] for a, b in zip(rows.start, rows.end, strict=True)])
    items = np.concatenate([before.reshape(40, 6), twice[len(rows.items) :].reshape(40, 2)], 1)
    first = 8 * np.arange(40, dtype=np.int32)
    repeated = Ragged(items.reshape(-1), first, first + 6, first + 8)
    once = repeated._replace(stop=first + 7)
    counts = np.bincount(train.items[train.end], minlength=ITEMS + 1)[1:]
    rules = Rules(mask_seen=False, trained_only=False)
    want = baselines.per_user(train, once, counts, CONFIG, rules)
    got = baselines.per_user(train, repeated, counts, CONFIG, rules)
    for name, values in want.items():
        for metric, value in values.items():
            np.testing.assert_array_equal(got[name][metric], value)
    assert want["transitions"]["recall@4"].any()


@pytest.mark.parametrize(
    ("folder", "mask_seen", "popular", "transitions"),
    [
        ("amazon-beauty", False, (1.064, 0.509), (6.560, 4.258)),
        ("amazon-beauty", True, (1.096, 0.526), (6.654, 4.379)),
        ("ml-1m", False, (1.887, 0.927), (16.358, 9.180)),
        ("ml-1m", True, (3.940, 1.940), (19.172, 11.214)),
    ],
)
def test_figures_of_real_data(real, folder, mask_seen, popular, transitions):
    """Percent of HR@10 and NDCG@10 by an independent program, with pessimistic ties."""
    data = real(folder)
    rules, config = (
        Rules(mask_seen=mask_seen, trained_only=True),
        EvalConfig(ks=(10,), metric="hr@10"),
    )
    found = baselines.per_user(data.train, data.test, data.train_counts, config, rules)
    got = baselines.means(found, config, rules)
    for name, wanted in (("popularity", popular), ("transitions", transitions)):
        percent = [round(100 * got[name][metric], 3) for metric in ("hr@10", "ndcg@10")]
        assert tuple(percent) == wanted


@pytest.fixture(scope="module")
def real(real_data):
    found = {}

    def read(folder):
        if folder not in found:
            found[folder] = load(str(real_data / folder / "interactions.parquet"), DataConfig())
        return found[folder]

    return read


def test_ease_holds_one_matrix_at_a_time(monkeypatch):
    # Chunks small enough that matrices are what the memory is for.
    monkeypatch.setattr(scores, "CHUNK", 2**16)
    monkeypatch.setattr(topk, "_SCORES", 2**16)
    items, rng = 1200, np.random.default_rng(0)
    flat = rng.integers(1, items + 1, 8 * 300).astype(np.int32)
    start = 8 * np.arange(300, dtype=np.int32)
    rows = Ragged(flat, start, start + 7, start + 8)
    counts = np.ones(items, np.int64)
    config = EvalConfig(metric="ndcg@4", ks=(4,), controls=("ease",))
    rules = Rules(mask_seen=True, trained_only=True)
    sets = graph.item_sets(rows, items)
    score = next(grids.candidates("ease", sets, items, 24)).fit()  # imports what it needs
    topk.of_scores(score, rows, rows, num_items=items, k=5, mask_seen=True)
    del score
    tracemalloc.start()
    tuned = baselines.tune(rows, rows, rows, counts, config, rules)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tuned["ease"].setting in grids.settings("ease", 24)
    matrix = 8 * items**2
    assert matrix < held < 1.1 * matrix
    assert matrix < most < ease.bytes_at_most(items) < 2 * matrix


def test_baselines_are_tuned_on_validation_and_scored_on_the_split():
    rows, answers, valid = samples.data()
    train = Ragged(valid.items, valid.start, valid.end, valid.end)
    counts = samples.matrix().sum(axis=0).astype(np.int64)
    config = EvalConfig(metric="recall@5", ks=(5,), controls=("ease", "item_knn"))
    tuned = baselines.tune(train, valid, valid, counts, config, HONEST)
    x, system = samples.matrix(), None
    best = {}
    for setting in grids.settings("ease", 24):
        regularisation = setting["regularisation"]
        system = np.linalg.inv(x.T @ x + regularisation * np.eye(samples.ITEMS))
        scores = x @ (np.eye(samples.ITEMS) - system / np.diag(system))
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
    assert beside["ease"]["trials"] == len(best) and beside["item_knn"]["trials"] == 24
    on_edge = chosen in (30.0, 3000.0)
    assert beside["ease"]["at_edge"] == (["regularisation"] if on_edge else [])
    assert set(beside) >= {"popularity", "transitions"}


def test_a_control_has_no_more_trials_than_it_is_given():
    _, _, valid = samples.data()
    train = Ragged(valid.items, valid.start, valid.end, valid.end)
    counts = np.ones(samples.ITEMS, np.int64)
    config = EvalConfig(metric="recall@5", ks=(5,), controls=("rp3beta",), control_trials=3)
    tuned = baselines.tune(train, valid, valid, counts, config, HONEST)["rp3beta"]
    assert tuned.trials == 3 and tuned.setting in grids.settings("rp3beta", 3)
    for minutes, trials in ((1e-9, 1), (60.0, 3)):  # one at least
        limited = replace(config, control_minutes=minutes)
        tuned = baselines.tune(train, valid, valid, counts, limited, HONEST)["rp3beta"]
        assert tuned.trials == trials


def test_the_newest_of_a_very_long_row_are_learnt_from(monkeypatch):
    monkeypatch.setattr(baselines, "_NEWEST", 2)
    seen = []
    monkeypatch.setattr(grids, "candidates", lambda name, sets, *_: seen.append(sets) or iter(()))
    rows = Ragged(np.array([1, 2, 3, 4], np.int32), *(np.array([n]) for n in (0, 3, 4)))
    config = EvalConfig(metric="recall@5", ks=(5,), controls=("slim",))
    with pytest.raises(AssertionError):  # no settings
        baselines.tune(rows, rows, rows, np.ones(4, np.int64), config, HONEST)
    assert seen[0].members.tolist() == [1, 2]
