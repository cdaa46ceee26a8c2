"""Whole evaluations against figures of plain programs on released files."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import layout
from jaxrec_diff.batches import cut
from jaxrec_diff.batches.interactions import INTERACTIONS
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import Group
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.evaluation import evaluator, types
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models import diffrec, registry
from jaxrec_diff.models.contract import DataSpec, Head, Model
from jaxrec_diff.models.diffrec import DiffRecConfig
from jaxrec_diff.models.mf import MFConfig
from jaxrec_diff.models.protocols import HONEST, Rules
from jaxrec_diff.ops import ragged, sparse
from jaxrec_diff.ops.ragged import Ragged
from tests.models.compiled import compiled

OFFICIAL = diffrec.SYSTEM.official
KS = (10, 20, 50, 100)


def fixed(table, points=None):
    """A model without parameters: `table` against `points` of a query, by default one for all."""
    sample = points or (lambda query: jnp.ones((query.items.shape[0], 1)))
    return Model(
        init=lambda key, example: None,
        loss=lambda params, state, key, example: None,
        sample=lambda params, state, key, query: sample(query),
        head=lambda params, state: Head(jnp.asarray(table, jnp.float32)),
    )


def judged(model, data, split, *, rows=None, rules=OFFICIAL, ks=KS):
    batcher, mesh = INTERACTIONS.batcher(data, DataConfig()), layout.make_mesh(jax.devices()[:1])
    rows = rows or {"valid": data.valid, "test": data.test}[split]
    run = evaluator.evaluator(
        model,
        evaluator.split_of(rows, batcher.splits[split], batcher.query, rules, alone=batcher.alone),
        mesh,
        EvalConfig(metric=f"recall@{ks[0]}", ks=ks, batch_size=2000),
        rules,
        data.train_counts,
        num_users=data.num_users,
        diagnose=False,
    )
    return run(None, None, jax.random.key(0)).metrics


def popularity(data):
    """Items by training count, ties to the lower id, as scores without ties."""
    order = np.argsort(-data.train_counts, kind="stable")
    table = np.empty((data.num_items, 1))
    table[order, 0] = -np.arange(data.num_items)
    return fixed(table)


def agree(found, want):
    """`want` maps a cut-off to precision, recall, ndcg and mrr."""
    for k, values in want.items():
        got = [found[f"{name}@{k}"] for name in ("precision", "recall", "ndcg", "mrr")]
        np.testing.assert_allclose(got, values, atol=1.5e-6)


def test_popularity_on_released_clean_files(real_data):
    data = load(str(real_data / "ml-1m-clean"), DataConfig())
    agree(
        judged(popularity(data), data, "test"),
        {
            10: (0.044108, 0.053458, 0.058680, 0.111649),
            20: (0.039570, 0.099321, 0.072136, 0.121126),
            50: (0.030765, 0.185265, 0.100922, 0.126754),
            100: (0.024777, 0.287072, 0.132434, 0.128702),
        },
    )
    agree(judged(popularity(data), data, "valid"), {20: (0.058144, 0.079347, 0.079379, 0.156410)})
    # Test answers with validation items left in the race: rows of [training items | answers].
    rows = [
        np.concatenate([data.test.items[a:b], data.test.items[c:d]])
        for a, b, c, d in zip(
            data.user_items.start[data.test_users], data.user_items.end[data.test_users],
            data.test.end, data.test.stop, strict=True,
        )
    ]  # fmt: skip
    stop = np.cumsum([len(row) for row in rows]).astype(np.int32)
    end = stop - (data.test.stop - data.test.end)
    start = np.append(0, stop[:-1]).astype(np.int32)
    rows = Ragged(np.concatenate(rows), start, end, stop)
    agree(
        judged(popularity(data), data, "test", rows=rows),
        {20: (0.036241, 0.094359, 0.066513, 0.110296)},
    )


def test_popularity_on_released_noisy_files(real_data):
    data = load(str(real_data / "ml-1m-noisy"), DataConfig())
    agree(
        judged(popularity(data), data, "test"),
        {
            10: (0.034073, 0.046672, 0.045460, 0.085323),
            20: (0.032896, 0.089604, 0.060426, 0.095700),
        },
    )
    agree(judged(popularity(data), data, "valid"), {20: (0.034401, 0.056075, 0.049081, 0.096103)})


@pytest.mark.parametrize(
    "name, recall, ndcg", [("ml-1m-clean", 0.114326, 0.083742), ("ml-1m-noisy", 0.1023, 0.068088)]
)
def test_cooccurrence_on_released_files(real_data, name, recall, ndcg):
    data = load(str(real_data / name), DataConfig())
    rows = np.zeros((data.num_users, data.num_items), np.float32)
    for user, (a, b) in enumerate(zip(data.user_items.start, data.user_items.end, strict=True)):
        rows[user, data.user_items.items[a:b] - 1] = 1
    together = rows.T @ rows
    np.fill_diagonal(together, 0)
    model = fixed(together, lambda query: sparse.dense(query.items, query.value, data.num_items))
    found = judged(model, data, "test", ks=(20,))
    # whole numbers tie, and the rank of a tie is the worst one here
    np.testing.assert_allclose([found["recall@20"], found["ndcg@20"]], [recall, ndcg], atol=2e-4)


def test_users_without_answers_count_where_the_script_counts_them(tmp_path):
    # Two of four users have a test item, and everybody is given all of it.
    path = tmp_path / "log.csv"
    lines = ["1,1,1", "1,2,2", "1,3,3", "2,1,1", "2,3,2", "2,2,3", "3,1,1", "3,2,2", "4,3,1"]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    data = load(str(path), DataConfig())
    model = fixed(np.ones((3, 1)) * [[3.0], [2.0], [1.0]])
    assert judged(model, data, "test", rules=HONEST, ks=(2,))["recall@2"] == 1.0
    assert judged(model, data, "test", ks=(2,))["recall@2"] == 0.5


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("grouped", [False, True])
def test_rows_come_back_in_order(grouped, devices):
    # Item 1 + (3 row) % 6 is recommended to a row.
    model = fixed(np.eye(6), lambda query: jax.nn.one_hot((3 * query.row_id) % 6, 6))
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 5, 11)
    end = np.cumsum(lengths + 1) - 1
    items = rng.integers(1, 6 + 1, end[-1] + 1).astype(np.int32)
    rows = Ragged(items, end - lengths, end, end + 1)

    def query(length):
        return lambda rows, index: cut.queries(rows, index, max_len=length)

    groups = ()
    if grouped:
        groups = tuple(
            Group(np.flatnonzero((lengths > a) & (lengths <= b)), query(b))
            for a, b in ((0, 2), (2, 3), (3, 4))
        )
    mesh = layout.make_mesh(jax.devices()[:devices])
    rules = Rules(mask_seen=False, trained_only=False)
    config = EvalConfig(ks=(1,), metric="hr@1", batch_size=2)
    split = evaluator.split_of(rows, rows, query(4), rules, groups)
    counts = np.ones(6, np.int64)
    run = evaluator.evaluator(model, split, mesh, config, rules, counts, diagnose=False)
    found = run({}, (), jax.random.key(0))
    wanted = items[end] == 1 + 3 * np.arange(11) % 6
    np.testing.assert_array_equal(found.per_user["hr@1"], wanted)
    assert 0 < wanted.mean() < 1
    assert found.metrics["hr@1"] == pytest.approx(wanted.mean())


def both_ways(settings, data, *, rules=HONEST, diagnose=True):
    """(one pass over both splits, a pass a split, how often queries were sampled in the first)."""
    system, mesh = registry.system(settings), layout.make_mesh(jax.devices()[:1])
    batcher = system.input.batcher(data, DataConfig(max_len=4))
    spec = DataSpec(data.num_users, data.num_items, 4, data.train_counts, data.user_items)
    model = compiled(system.build(settings, spec))
    index = jnp.arange(2, dtype=jnp.int32)
    example = batcher.example(batcher.train, index, index, jax.random.key(0))
    variables = jax.device_get(model.init(jax.random.key(1), example))
    splits = {
        name: evaluator.split_of(
            part, batcher.splits[name], batcher.query, rules, alone=batcher.alone
        )
        for name, part in (("valid", data.valid), ("test", data.test))
    }
    config = EvalConfig(ks=(1, 2), metric="hr@2", batch_size=3)
    rest = (mesh, config, rules, data.train_counts)
    options = {"num_users": data.num_users, "diagnose": diagnose}
    key = jax.random.key(2)
    sampled = []

    def sample(params, state, key, query):
        jax.debug.callback(lambda row: sampled.append(np.asarray(row)), query.row_id)
        return model.sample(params, state, key, query)

    watched = model._replace(sample=sample)
    run = evaluator.evaluate_splits(
        watched, splits, batcher.shared, batcher.query, *rest, **options
    )
    joint = run(*variables, key)
    jax.effects_barrier()
    apart = {
        name: evaluator.evaluator(model, split, *rest, **options)(*variables, key)
        for name, split in splits.items()
    }
    return joint, apart, len(sampled)


def few_users(tmp_path, users=11):
    """Users with an answer in both splits, in one of them, or in none."""
    rng, lines = np.random.default_rng(0), ["user_id,item_id,timestamp"]
    for user in range(users):
        chosen = rng.permutation(12)[: rng.integers(3, 9)]
        lines += [f"{user},{item},{time}" for time, item in enumerate(chosen)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines))
    data = load(str(path), DataConfig())
    valid, test = np.arange(1, users), np.delete(np.arange(users), [2, 5])
    return data._replace(
        valid=ragged.pick(data.valid, valid), valid_users=data.valid_users[valid],
        test=ragged.pick(data.test, test[::-1]), test_users=data.test_users[test[::-1]],
    )  # fmt: skip


TINY = DiffRecConfig(dims=(6,), step_width=4, process=ProcessConfig(num_steps=3))


@pytest.mark.parametrize(
    "config, passes",
    [
        (TINY, 4),  # 11 users, 3 at a time
        (replace(TINY, path="rows"), 4),
        (MFConfig(width=4), 4),
        (replace(TINY, noise_steps=2), 7),  # 10 rows and 9
        (replace(TINY, sampler=SamplerConfig(kind="ddpm")), 7),
        (replace(TINY, path="rows", sampler=SamplerConfig(kind="ddpm")), 7),
    ],
    ids=["hidden", "rows", "mf", "start", "path", "path-rows"],
)
def test_splits_are_sampled_together_where_that_changes_nothing(tmp_path, config, passes):
    data = few_users(tmp_path)
    joint, apart, sampled = both_ways(config, data, diagnose=config is TINY)
    assert sampled == passes
    for name in ("valid", "test"):
        assert len(apart[name].per_user["hr@2"]) == {"valid": 10, "test": 9}[name]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), joint[name], apart[name]
        )
    assert 0 < joint["valid"].metrics["hr@2"] != joint["test"].metrics["hr@2"]


@pytest.mark.parametrize("path", ["hidden", "rows"])
def test_splits_of_the_same_users_draw_together(tmp_path, path):
    """A row of either split is the same user's, and draws the same."""
    noisy = replace(TINY, path=path, noise_steps=2, sampler=SamplerConfig(kind="ddpm"))
    data = few_users(tmp_path)
    users, valid, test = np.intersect1d(data.valid_users, data.test_users, return_indices=True)
    data = data._replace(
        valid=ragged.pick(data.valid, valid), valid_users=users,
        test=ragged.pick(data.test, test), test_users=users,
    )  # fmt: skip
    joint, apart, sampled = both_ways(noisy, data, diagnose=False)
    assert sampled == 3  # 8 users, 3 at a time
    for name in ("valid", "test"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), joint[name], apart[name]
        )
    assert 0 < joint["valid"].metrics["hr@2"] != joint["test"].metrics["hr@2"]


def test_splits_together_drop_the_rows_that_a_split_drops(tmp_path):
    rules = OFFICIAL._replace(multiple_of=4)
    joint, apart, sampled = both_ways(TINY, few_users(tmp_path), rules=rules, diagnose=False)
    assert sampled == 4
    for name in ("valid", "test"):
        assert len(joint[name].per_user["hr@2"]) == 8
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), joint[name], apart[name]
        )


@pytest.mark.parametrize("diagnose", [False, True])
def test_a_split_under_several_rules_is_sampled_once(tmp_path, diagnose):
    data, mesh = few_users(tmp_path), layout.make_mesh(jax.devices()[:1])
    data = data._replace(train_counts=np.where(np.arange(12) == 3, 0, data.train_counts))
    fed, rng = INTERACTIONS.batcher(data, DataConfig()), np.random.default_rng(4)
    points, sampled = jnp.asarray(rng.normal(size=(20, 5))), []

    def sample(query):
        jax.debug.callback(lambda row: sampled.append(np.asarray(row)), query.row_id)
        return points[query.row_id]

    model = fixed(rng.normal(size=(12, 5)), sample)
    model = model._replace(variants={"back": lambda params, state, query: -points[query.row_id]})
    rules = {
        "official": Rules(mask_seen=False, trained_only=False, multiple_of=4, all_users=True),
        "honest": HONEST,
    }
    splits = {
        name: evaluator.split_of(data.test, fed.splits["test"], fed.query, each, alone=fed.alone)
        for name, each in rules.items()
    }
    config = EvalConfig(ks=(1, 2), metric="hr@2", batch_size=3)
    options = {"num_users": data.num_users, "diagnose": diagnose}
    run = evaluator.under_rules(model, splits, rules, mesh, config, data.train_counts, **options)
    found = run({}, (), jax.random.key(0))
    jax.effects_barrier()
    assert len(sampled) == 3  # 9 rows, 3 at a time
    for name, count in (("honest", 9), ("official", 8)):
        assert len(found[name].per_user["hr@2"]) == count
        apart = evaluator.evaluator(
            model, splits[name], mesh, config, rules[name], data.train_counts, **options
        )
        jax.tree.map(np.testing.assert_array_equal, found[name], apart({}, (), jax.random.key(0)))
    assert found["honest"].metrics["hr@2"] != found["official"].metrics["hr@2"]


def test_figures_of_the_same_arrays_are_the_same_on_every_mesh(tmp_path):
    """Under every protocol, and what is said of lists beside; whatever the processes."""
    data = few_users(tmp_path)
    fed = INTERACTIONS.batcher(data, DataConfig(max_len=4))
    spec = DataSpec(data.num_users, data.num_items, 4, data.train_counts, data.user_items)
    model = registry.system(TINY).build(TINY, spec)
    example = fed.example(fed.train, jnp.arange(2), jnp.arange(2), jax.random.key(0))
    variables = jax.device_get(model.init(jax.random.key(1), example))
    rules = {"honest": HONEST, "official": OFFICIAL._replace(multiple_of=4)}
    splits = {
        name: evaluator.split_of(data.test, fed.splits["test"], fed.query, each, alone=fed.alone)
        for name, each in rules.items()
    }
    config, found = EvalConfig(ks=(1, 2), metric="hr@2", batch_size=3), []
    for devices, model_axis in ((1, 1), (8, 1), (8, 4)):
        mesh = layout.make_mesh(jax.devices()[:devices], model=model_axis)
        run = evaluator.under_rules(
            model, splits, rules, mesh, config, data.train_counts, num_users=data.num_users
        )
        placed = layout.put(variables, layout.shardings(variables, mesh))
        found.append(run(*placed, jax.random.key(0)))
    assert found[0]["honest"].diagnostics["distinct_items"] > 2
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, found[0])


def test_histories_are_sampled_apart(tmp_path):
    batcher = SEQUENCES.batcher(few_users(tmp_path), DataConfig(max_len=4))
    assert batcher.shared is None


def test_points_that_hang_on_their_row_are_sampled_apart(tmp_path):
    # Row r of a split is recommended what row r of the test looks for; users' rows differ.
    data = few_users(tmp_path)
    given = np.pad(data.test.items[data.test.end], (0, 1), constant_values=1)
    model = fixed(
        np.eye(12), lambda query: jax.nn.one_hot(jnp.asarray(given)[query.row_id] - 1, 12)
    )
    batcher, mesh = INTERACTIONS.batcher(data, DataConfig()), layout.make_mesh(jax.devices()[:1])
    rules = Rules(mask_seen=False, trained_only=False)
    splits = {
        name: evaluator.split_of(
            part, batcher.splits[name], batcher.query, rules, alone=batcher.alone
        )
        for name, part in (("valid", data.valid), ("test", data.test))
    }
    rest = (mesh, EvalConfig(ks=(1,), metric="hr@1"), rules, data.train_counts)
    run = evaluator.evaluate_splits(
        model,
        splits,
        batcher.shared,
        batcher.query,
        *rest,
        num_users=data.num_users,
        diagnose=False,
    )
    found = run({}, (), jax.random.key(0))
    for name, part in (("valid", data.valid), ("test", data.test)):
        wanted = [
            given[row] in part.items[end:stop]
            for row, (end, stop) in enumerate(zip(part.end, part.stop, strict=True))
        ]
        np.testing.assert_array_equal(found[name].per_user["hr@1"], wanted)
        assert any(wanted) and (name == "test") == all(wanted)


def test_draws_have_keys_of_their_own_and_are_averaged():
    keys = []

    def run(params, state, key):
        keys.append(tuple(jax.random.key_data(key).tolist()))
        value = np.array([1.0, 2.0, 6.0], np.float32) * len(keys)
        mean = types.means({"hr@1": value}, missing=1)
        return types.Evaluation(mean, {"hr@1": value}, {"draw": len(keys)}, missing=1)

    draws = evaluator.over_seeds(run, None, None, seed=4, seeds=3)
    assert len(set(keys)) == 3
    evaluator.over_seeds(run, None, None, seed=4, seeds=1)
    evaluator.over_seeds(run, None, None, seed=5, seeds=1)
    assert keys[3] == keys[0] and keys[4] not in keys[:4]
    # users' values are 1, 2, 6, times 1, 2 and 3; one more user has zeros
    assert [each.metrics["hr@1"] for each in draws] == [9 / 4, 18 / 4, 27 / 4]
    assert evaluator.spread(draws)["hr@1"] == pytest.approx(9 / 4)
    assert evaluator.spread(draws[:1])["hr@1"] == 0
    mean = evaluator.mean_over_seeds(draws)
    assert mean.per_user["hr@1"].tolist() == [2, 4, 12] and mean.metrics["hr@1"] == 18 / 4
    assert mean.diagnostics == {"draw": 1}


@pytest.mark.parametrize("trained_only", [False, True])
def test_lists_are_taken_apart_by_what_was_trained(trained_only):
    # Item j is everybody's j-th choice of 30, so that lists of 20 hold 1 to 20.
    model = fixed(-np.arange(30.0)[:, None], lambda query: jnp.ones((query.seq.shape[0], 1)))
    counts = np.ones(30, np.int64)
    counts[[2, 19, 20]] = 0  # items 3, 20 and 21
    answers = np.array([3, 4, 4, 20], np.int32)
    place = np.arange(4)
    rows = Ragged(answers, place, place, place + 1)
    mesh = layout.make_mesh(jax.devices()[:1])
    rules = Rules(mask_seen=False, trained_only=trained_only)
    split = evaluator.split_of(
        rows, rows, lambda rows, index: cut.queries(rows, index, max_len=1), rules
    )
    config = EvalConfig(ks=(3,), metric="hr@3", batch_size=3)
    run = evaluator.evaluator(model, split, mesh, config, rules, counts)
    found = run({}, (), jax.random.key(0))
    everything, trained = [1, 0, 0, 0], [0, 1, 1, 0]  # of the first three, 1 2 3 or 1 2 4
    assert found.per_user["hr@3"].tolist() == (trained if trained_only else everything)
    other = found.diagnostics["all_items" if trained_only else "trained_items"]
    assert other["hr@3"] == (0.25 if trained_only else 0.5)
    assert found.diagnostics["untrained_items"] == 3
    assert found.diagnostics["untrained_top20"] == (0 if trained_only else 2 / 20)
    # all four answers are among 20, two of them 3 and 20
    assert found.diagnostics["hits_untrained"] == (0 if trained_only else 2 / 4)
    assert found.diagnostics["distinct_items"] == 20
    assert found.diagnostics["coverage@20"] == pytest.approx(20 / 30)
