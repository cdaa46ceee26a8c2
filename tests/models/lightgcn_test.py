"""LightGCN, SGL's term and matrix factorisation against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches import negatives
from jaxrec_diff.batches.types import InteractionQuery, Triplets
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models import lightgcn, mf
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.lightgcn import LightGCNConfig
from jaxrec_diff.models.mf import MFConfig
from jaxrec_diff.ops.ragged import Ragged
from tests.models.compiled import compiled
from tests.models.tables import unfilled

USERS, ITEMS, WIDTH = 5, 7, 4
KEY = jax.random.key(3)


def spec():
    rows = [[1, 2, 3], [3, 4], [7], [], [2, 5, 7, 1]]  # item 6 has no user, user 3 no item
    stop = np.cumsum([len(row) for row in rows])
    start = stop - [len(row) for row in rows]
    flat = np.array([item for row in rows for item in row], np.int32)
    return DataSpec(USERS, ITEMS, 5, user_items=Ragged(flat, start, stop, stop)), rows


def example():
    return Triplets(
        jnp.array([0, 1, 4, 4]), jnp.array([1, 4, 7, 7]), jnp.array([4, 1, 3, 6]),
        jnp.array([1.0, 1.0, 1.0, 0.0]), jnp.arange(4),
    )  # fmt: skip


def query(users):
    none = jnp.zeros((len(users), 1), jnp.int32)
    return InteractionQuery(none, none * 1.0, jnp.asarray(users), jnp.arange(len(users)))


def built(config):
    made = compiled({LightGCNConfig: lightgcn, MFConfig: mf}[type(config)].build(config, spec()[0]))
    return made, made.init(KEY, example())


def propagated(params, rows, layers):
    """Mean of E^0 .. E^L, an edge at a time."""
    degree = [sum(item in row for row in rows) for item in range(1, ITEMS + 1)]
    users = np.asarray(params["users"][:USERS], np.float64)
    items = np.asarray(params["items"][:ITEMS], np.float64)
    total = [users.copy(), items.copy()]
    for _ in range(layers):
        after = np.zeros_like(users), np.zeros_like(items)
        for u, row in enumerate(rows):
            for item in row:
                scale = 1.0 / np.sqrt(len(row) * degree[item - 1])
                after[0][u] += scale * items[item - 1]
                after[1][item - 1] += scale * users[u]
        users, items = after
        total[0] += users
        total[1] += items
    return total[0] / (layers + 1), total[1] / (layers + 1)


@pytest.mark.parametrize(
    ("config", "layers"), [(LightGCNConfig(width=WIDTH), 3), (MFConfig(width=WIDTH), 0)]
)
def test_loss_points_and_export_are_those_of_a_loop(config, layers):
    model, (params, state) = built(config)
    params = jax.tree.map(lambda x: 10 * x, params)
    users, items = propagated(params, spec()[1], layers)
    sizes = {"users": USERS, "items": ITEMS}
    ego = [np.asarray(params[name][:size], np.float64) for name, size in sizes.items()]
    total = 0.0
    for user, positive, negative in ((0, 1, 4), (1, 4, 1), (4, 7, 3)):
        gap = users[user] @ (items[positive - 1] - items[negative - 1])
        rows = ego[0][user], ego[1][positive - 1], ego[1][negative - 1]
        total += np.log1p(np.exp(-gap)) + 1e-4 * 0.5 * sum(row @ row for row in rows)
    value, aux = model.loss(params, state, KEY, example())
    np.testing.assert_allclose(value, total / 3, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, aux.state, state)
    asked = query([4, 3, 0])
    np.testing.assert_allclose(
        model.sample(params, state, KEY, asked), users[[4, 3, 0]], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        rank.item_rows(model.head(params, state)), items, rtol=1e-5, atol=1e-6
    )
    module = mf if isinstance(config, MFConfig) else lightgcn
    arrays = module.export(config, spec()[0], params, state)
    for name, want in zip(
        ("users", "items", "ego_users", "ego_items"), (users, items, *ego), strict=True
    ):
        assert arrays[name].dtype == np.float32
        np.testing.assert_allclose(arrays[name], want, rtol=1e-5, atol=1e-6)


def test_ranking_may_go_deeper_than_training():
    deeper = LightGCNConfig(width=WIDTH, layers=1, rank_layers=3)
    model, (params, state) = built(deeper)
    same, _ = built(LightGCNConfig(width=WIDTH, layers=1))
    values = [m.loss(params, state, KEY, example())[0] for m in (model, same)]
    np.testing.assert_array_equal(*values)
    users, items = propagated(params, spec()[1], 3)
    for each in (state, model.precompute(params, state)):
        np.testing.assert_allclose(
            rank.item_rows(model.head(params, each)), items, rtol=1e-5, atol=1e-6
        )
    arrays = lightgcn.export(deeper, spec()[0], params, state)
    np.testing.assert_allclose(arrays["users"], users, rtol=1e-5, atol=1e-6)


def test_counts_of_parameters():
    for config in (LightGCNConfig(), MFConfig()):
        _, (params, _) = built(config)
        params = unfilled(params, users=USERS, items=ITEMS)
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 64 * (USERS + ITEMS)
        deviation = np.std(np.concatenate([params["users"], params["items"]]))
        assert 0.085 < deviation < 0.115


def test_contrast_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 6, 3)).astype(np.float32)
    ids, weight = [2, 0, 2, 5, 1], [1.0, 1.0, 1.0, 1.0, 0.0]  # node 2 twice, node 1 is padding
    got = lightgcn.info_nce(
        jnp.asarray(first), jnp.asarray(second), jnp.array(ids), jnp.array(weight), 0.2
    )

    def cosine(i, j):
        a, b = first[i].astype(np.float64), second[j].astype(np.float64)
        return a @ b / np.sqrt((a @ a) * (b @ b))

    for place, i in enumerate(ids[:4]):
        total = sum(np.exp(cosine(i, j) / 0.2) for j in {2, 0, 5})
        np.testing.assert_allclose(got[place], np.log(total) - cosine(i, i) / 0.2, rtol=1e-5)
    assert got[4] == 0.0


def test_contrast_pulls_the_views_of_a_node_together():
    plain = LightGCNConfig(width=WIDTH, layers=2)
    config = LightGCNConfig(width=WIDTH, layers=2, contrast_weight=1.0, edge_drop=0.3)
    model, (params, state) = built(config)
    grad = jax.jit(jax.grad(lambda p, k: model.loss(p, state, k, example())[1].metrics["contrast"]))
    term = jax.jit(lambda p, k: model.loss(p, state, k, example())[1].metrics["contrast"])
    before = float(term(params, KEY))
    for step in range(60):
        slope = grad(params, jax.random.fold_in(KEY, step))
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, slope)
    assert float(term(params, KEY)) < before / 2
    # without drops both views are the graph itself
    same = LightGCNConfig(width=WIDTH, layers=2, contrast_weight=1.0, edge_drop=0.0)
    model, (params, state) = built(same)
    value, aux = model.loss(params, state, KEY, example())
    alone, (_, other) = built(plain)
    base, _ = alone.loss(params, other, KEY, example())
    np.testing.assert_allclose(value, base + aux.metrics["contrast"], rtol=1e-6)
    nodes = propagated(params, spec()[1], 2)
    for side, ids in ((0, [0, 1, 4]), (1, [0, 3, 6])):
        rows = nodes[side][ids] / np.linalg.norm(nodes[side][ids], axis=1, keepdims=True)
        base = base + np.mean(np.log(np.exp(rows @ rows.T / 0.2).sum(axis=1)) - 5.0)
    np.testing.assert_allclose(value, base, rtol=1e-5)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="model.layers=0"):
        LightGCNConfig(layers=0, contrast_weight=0.1)
    with pytest.raises(ValueError, match="model.edge-drop must lie in"):
        LightGCNConfig(edge_drop=1.0)
    with pytest.raises(ValueError, match="histories without users"):
        lightgcn.build(LightGCNConfig(), DataSpec(USERS, ITEMS, 5))


def test_negatives_by_popularity_are_corrected_by_their_log_q():
    counts = np.array([3, 1, 4, 2, 1, 0, 2])
    data = spec()[0]._replace(item_counts=counts)
    model = compiled(mf.build(MFConfig(width=WIDTH, l2=0.0, negatives="popularity"), data))
    params, state = model.init(KEY, example())
    params = jax.tree.map(lambda x: 10 * x, params)
    drawn = model.draw(KEY, example())
    users, items = (np.asarray(params[name], np.float64) for name in ("users", "items"))
    each, weight = [], []
    for row in range(3):  # the fourth is padding
        user, item, other = (int(part[row]) for part in drawn[:3])
        gap = users[user] @ (items[item - 1] - items[other - 1])
        each.append(np.log1p(np.exp(-gap + np.log(counts[item - 1] / counts[other - 1]))))
        weight.append(float(item != other))
    assert sum(weight) > 0 and drawn.weight.tolist() == [*weight, 0.0]
    for batch in (example(), drawn):  # the loss draws the same for itself
        value = model.loss(params, state, KEY, batch)[0]
        np.testing.assert_allclose(value, np.dot(each, weight) / sum(weight), rtol=1e-5)
    many = Triplets(*jnp.ones((3, 20_000), int), jnp.ones(20_000), jnp.arange(20_000))
    found = np.bincount(np.asarray(model.draw(KEY, many).negative), minlength=8)[1:]
    np.testing.assert_allclose(found / 20_000, counts / counts.sum(), atol=0.015)


def test_negatives_of_the_batch_are_items_of_its_rows():
    counts = np.array([3, 1, 4, 2, 1, 0, 2])
    law, rows = negatives.law_of("in_batch", 7, counts, 1.0), 8000
    user, other = jnp.zeros((2, rows), int)
    positive = jnp.where(jnp.arange(rows) % 4 == 0, 1, 3)  # and a padding row in eight, item 4
    weight = jnp.where(jnp.arange(rows) % 8 == 5, 0.0, 1.0)
    positive = jnp.where(weight > 0, positive, 4)
    batch = Triplets(user, positive, other, weight, jnp.arange(rows))
    drawn = negatives.by_batch(law, KEY, batch)
    item, against, heavy = (np.asarray(x) for x in (positive, drawn.negative, drawn.weight))
    assert not set(against[heavy > 0].tolist()) - {1, 3}
    np.testing.assert_array_equal(heavy > 0, (against != item) & (np.asarray(weight) > 0))
    # an item is met as often as rows have it: a quarter of all is item 1, five eighths are item 3
    np.testing.assert_allclose((against[item == 3] == 1).mean(), 2 / 8, atol=0.02)
    np.testing.assert_allclose((against[item == 1] == 3).mean(), 5 / 8, atol=0.03)
    log_q = np.log(counts[item - 1] / counts[against - 1])
    np.testing.assert_allclose(drawn.log_q, log_q, atol=1e-5)

    def of_device(batch):
        return negatives.by_batch(law, KEY, batch, axis_name="data")

    cut = jax.tree.map(lambda leaf: leaf[:64].reshape(2, 32), batch)
    found = jax.pmap(of_device, axis_name="data", devices=jax.devices()[:2])(cut)
    want = negatives.by_batch(law, KEY, jax.tree.map(lambda leaf: leaf[:64], batch))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(-1), b), found, want)


def test_matrix_factorisation_takes_negatives_of_the_batch():
    data = spec()[0]._replace(item_counts=np.array([3, 1, 4, 2, 1, 1, 2]))
    model = compiled(mf.build(MFConfig(width=WIDTH, l2=0.0, negatives="in_batch"), data))
    params, state = model.init(KEY, example())
    drawn = model.draw(KEY, example())
    assert set(drawn.negative[:3].tolist()) <= set(example().positive[:3].tolist())
    same = (model.loss(params, state, KEY, batch)[0] for batch in (example(), drawn))
    np.testing.assert_array_equal(*same)
