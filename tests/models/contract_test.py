"""One exam for every model of the registry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import batches, models, ranking
from jaxrec_diff.batches import SequenceQuery, Sequences, Slices
from jaxrec_diff.models.base import DataSpec, SamplerConfig
from jaxrec_diff.models.dimerec import DimeRecConfig
from jaxrec_diff.models.dreamrec import DreamRecConfig
from jaxrec_diff.training import optim, parallel, state, step
from jaxrec_diff.training.config import TrainConfig

ITEMS, LENGTH, ROWS = 20, 5, 16
SPEC = DataSpec(num_users=30, num_items=ITEMS, max_len=LENGTH, item_counts=np.arange(ITEMS) + 1)

# Small settings of every model; a registry entry without a row here fails the first test.
SMALL = {
    "dreamrec": DreamRecConfig(width=8, num_steps=6, beta_stop=0.3),
    "dreamrec-mlp2-frozen": DreamRecConfig(
        width=8, num_steps=6, denoiser="mlp2", item_embedding="frozen", guidance="two_calls"
    ),
    "dreamrec-closed-form": DreamRecConfig(
        width=8, num_steps=6, sampler=SamplerConfig(kind="closed_form")
    ),
    "dimerec": DimeRecConfig(width=8, num_interests=2, num_steps=6, num_negatives=12),
    "dimerec-tuned": DimeRecConfig(
        width=8, num_interests=2, num_steps=6, negatives="full", forward="vp_norm", temperature=0.1
    ),
}
KEY = jax.random.key(7)
EVERY = pytest.mark.parametrize("name", SMALL)


def build(name, **kwargs):
    return models.system(SMALL[name]).build(SMALL[name], SPEC, **kwargs)


def example(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LENGTH + 1, rows)
    seq = rng.integers(1, ITEMS + 1, (rows, LENGTH)) * (np.arange(LENGTH) < lengths[:, None])
    target = rng.integers(1, ITEMS + 1, rows)
    return Sequences(
        jnp.asarray(seq, jnp.int32),
        jnp.asarray(target, jnp.int32),
        jnp.ones(rows),
        jnp.arange(rows, dtype=jnp.int32),
    )


def query(of):
    return SequenceQuery(of.seq, of.row)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_every_model_takes_the_exam():
    assert {type(config) for config in SMALL.values()} == set(models.SYSTEMS)


@EVERY
def test_loss_is_finite_reaches_every_leaf_and_keeps_the_state(name):
    model, batch = build(name), example(64)
    params, before = model.init(jax.random.key(0), batch)
    grad = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (value, aux), grads = grad(params, before, jax.random.key(1), batch)
    assert np.isfinite(value)
    assert aux.metrics["loss"] == value
    assert all(np.shape(v) == () for v in aux.metrics.values())
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), optim.path_of(path)
        # A key's bias adds the same number to all scores of a query; a softmax does not see it.
        if not optim.path_of(path).endswith("key/bias"):
            assert np.abs(leaf).max() > 0, optim.path_of(path)
    shapes = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), (before, aux.state))
    assert shapes[0] == shapes[1]


@EVERY
def test_padding_rows_change_nothing(name):
    model, batch = build(name), example()
    variables = model.init(jax.random.key(0), batch)
    padded = jax.tree.map(lambda x: jnp.concatenate([x, x[:4]]), batch)
    padded = padded._replace(
        weight=padded.weight.at[ROWS:].set(0.0), row=jnp.arange(ROWS + 4, dtype=jnp.int32)
    )
    loss = jax.jit(jax.value_and_grad(lambda p, b: model.loss(p, variables.state, KEY, b)[0]))
    close(loss(variables.params, batch), loss(variables.params, padded), rtol=1e-4, atol=1e-6)


@EVERY
def test_jit_equals_eager_and_traces_once(name):
    model, batch = build(name), example()
    variables = model.init(jax.random.key(0), batch)
    traces = []

    @jax.jit
    def loss(params, batch):
        traces.append(1)
        return model.loss(params, variables.state, KEY, batch)[0]

    eager = model.loss(variables.params, variables.state, KEY, batch)[0]
    np.testing.assert_allclose(loss(variables.params, batch), eager, rtol=1e-5)
    loss(variables.params, example(seed=5))
    assert len(traces) == 1


@EVERY
def test_points_do_not_depend_on_the_other_rows(name):
    model, batch = build(name), example()
    params, extra = model.init(jax.random.key(0), batch)
    sample = jax.jit(model.sample)
    whole = sample(params, extra, KEY, query(batch))
    part = jax.tree.map(lambda x: x[3:7], query(batch))
    np.testing.assert_allclose(sample(params, extra, KEY, part), whole[3:7], rtol=1e-4, atol=1e-5)
    head = model.head(params, extra)
    assert head.table.shape == (ITEMS, whole.shape[-1])
    found = ranking.top(whole, head.table, head.bias, k=5)
    assert np.isfinite(found.scores).all()


@EVERY
def test_places_behind_the_history_and_the_padding_row_do_not_matter(name):
    model, batch = build(name), example()
    params, extra = model.init(jax.random.key(0), batch)
    other = dict(params) | {"items": params["items"].at[0].set(3.0)}
    loss = jax.jit(lambda p: model.loss(p, extra, KEY, batch)[0])
    np.testing.assert_allclose(loss(params), loss(other), rtol=1e-6)


def _updates(name, mode, devices, count=6):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    model = build(name, axis_name=parallel.AXIS if mode == "pmap" else None)
    # not Adam: it turns rounding in gradients that are zero in theory into whole steps
    optimizer = optim.make(TrainConfig(optimizer="sgd", learning_rate=0.1), 100)
    rng = np.random.default_rng(3)
    items = rng.integers(1, ITEMS + 1, 200).astype(np.int32)
    end = np.arange(5, 101, dtype=np.int32)
    data = Slices(items, end - rng.integers(0, 6, 96).astype(np.int32), end, end + 1)

    def update(train, key, batch):
        axis = parallel.AXIS if mode == "pmap" else None
        return step.update(model, optimizer, train, key, batch, axis_name=axis)

    def cut(data, index, row):
        return batches.sequences(data, index, max_len=LENGTH, row=row)

    wrap = {"jit": parallel.jit_updates, "pmap": parallel.pmap_updates}[mode]
    updates = wrap(update, cut, mesh)
    train = state.create(build(name).init(jax.random.key(0), example()), optimizer)
    order = np.arange(96, dtype=np.int32).reshape(6, 16)
    placed = [updates.place(x) for x in (train, data, jax.random.key(2), order)]
    train, sums = updates.run(*placed, np.int32(0), np.int32(count))
    assert int(sums.bad_step) == -1
    return updates.fetch(train).params, float(sums.metrics["loss"])


@pytest.mark.parametrize("name", ["dreamrec", "dimerec"])
def test_one_two_and_eight_devices_and_pmap_agree(name):
    reference = _updates(name, "jit", 1)
    for mode, devices in (("jit", 2), ("jit", 8), ("pmap", 1), ("pmap", 8)):
        close(_updates(name, mode, devices), reference, rtol=2e-3, atol=2e-4)


def test_sharded_points_are_the_points_of_one_device():
    model, batch = build("dimerec"), example()
    params, extra = model.init(jax.random.key(0), batch)
    mesh = parallel.make_mesh()
    sharded = jax.device_put(query(batch), NamedSharding(mesh, P("data")))
    sample = jax.jit(model.sample)
    np.testing.assert_allclose(
        sample(params, extra, KEY, sharded),
        sample(params, extra, KEY, query(batch)),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        DreamRecConfig(
            width=16,
            num_steps=20,
            beta_stop=0.3,
            item_embedding="frozen",
            guidance_weight=0.0,
            sampler=SamplerConfig(kind="mean"),
        ),
        DimeRecConfig(
            width=16, num_interests=2, num_steps=10, negatives="full", forward="vp_norm",
            temperature=0.1, init_scale=0.3,
        ),
    ],
    ids=["dreamrec", "dimerec"],
)  # fmt: skip
def test_two_tastes_are_learned(config):
    # Users like either the odd or the even items: a list of 5 is all of one taste or it is not.
    model = models.system(config).build(config, SPEC)
    rng = np.random.default_rng(0)

    def batch(rows):
        taste = rng.integers(0, 2, rows)
        drawn = 1 + taste[:, None] + 2 * rng.integers(0, ITEMS // 2, (rows, LENGTH + 1))
        return Sequences(
            jnp.asarray(drawn[:, :-1], jnp.int32),
            jnp.asarray(drawn[:, -1], jnp.int32),
            jnp.ones(rows),
            jnp.arange(rows, dtype=jnp.int32),
        )

    optimizer = optim.make(TrainConfig(learning_rate=3e-3), 1)
    train = state.create(model.init(jax.random.key(0), batch(64)), optimizer)
    update = jax.jit(lambda t, b: step.update(model, optimizer, t, KEY, b)[0])
    for _ in range(600):
        train = update(train, batch(64))
    test = batch(200)
    points = model.sample(train.params, train.state, KEY, query(test))
    head = model.head(train.params, train.state)
    found = ranking.top(points, head.table, head.bias, k=5)
    same = (found.items % 2) == (test.target % 2)[:, None]
    assert float(same.mean()) > 0.9
