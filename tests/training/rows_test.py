"""Updates of the rows that a batch reads, against those of whole tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.batches import catalogue
from jaxrec_diff.batches.types import Sequences, Triplets, WholeSequences
from jaxrec_diff.benchmarking import hlo
from jaxrec_diff.models import registry
from jaxrec_diff.models.bert4rec import Bert4RecConfig
from jaxrec_diff.models.contract import Compact, DataSpec, Table
from jaxrec_diff.models.dimerec import DimeRecConfig
from jaxrec_diff.models.mf import MFConfig
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.training import checkpoint, optim, parallel, rows, state, step
from jaxrec_diff.training.config import Rule, TrainConfig

ITEMS, USERS, LENGTH, BATCH = 1500, 900, 4, 8
DIMEREC = functools.partial(DimeRecConfig, width=8, num_interests=2, num_steps=5, num_negatives=20)
SASREC = functools.partial(SASRecConfig, width=8, num_blocks=1, num_negatives=20)
MODELS = {
    "dimerec": DIMEREC(),
    "dimerec-popularity": DIMEREC(negatives="popularity"),
    "dimerec-in-batch": DIMEREC(negatives="in_batch"),
    "sasrec-bce": SASREC(loss="bce"),
    "sasrec-sampled": SASREC(loss="sampled"),
    "sasrec-gbce": SASREC(loss="gbce"),
    "sasrec-gbce-sequence": SASREC(loss="gbce", share="sequence", num_negatives=3),
    "sasrec-sampled-position": SASREC(loss="sampled", share="position", num_negatives=2),
    "bert4rec": Bert4RecConfig(width=8, num_blocks=1, last_share=0.0),
    "mf": MFConfig(width=8),
}
KEY = jax.random.key(5)


def build(config, items=ITEMS, axis_name=None):
    spec = DataSpec(USERS, items, LENGTH, item_counts=np.arange(items) + 1)
    return registry.system(config).build(config, spec, axis_name=axis_name)


def batch(seed=0, items=ITEMS, rows=BATCH):
    rng = np.random.default_rng(seed)
    seq = rng.integers(1, items + 1, (rows, LENGTH)) * (
        np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (rows, 1))
    )
    target = rng.integers(1, items + 1, rows)
    ids = (jnp.asarray(part, jnp.int32) for part in (seq, target))
    return Sequences(*ids, jnp.ones(rows), jnp.arange(rows, dtype=jnp.int32))


_SLOW = pytest.mark.slow
_ORDINARY = ("dimerec", "sasrec-sampled")


@pytest.mark.parametrize(
    "name", [n if n in _ORDINARY else pytest.param(n, marks=_SLOW) for n in MODELS]
)
def test_loss_and_gradients_are_those_of_the_catalogue_to_the_last_bit(name):
    model = build(MODELS[name])
    example = jax.jit(model.draw)(KEY, example_of(name))
    params, extra = jax.jit(model.init)(jax.random.key(0), example)
    small, held, few = dict(params), {}, example
    for table, of, padded in model.compact.tables:
        rows = catalogue.held(example, len(params[table]), of=of, padded=padded)
        few = catalogue.renumbered(few, rows, of=of, padded=padded)
        small[table] = params[table][jnp.minimum(rows, len(params[table]) - 1)]
        held[table] = np.asarray(rows[rows < len(params[table])])
        assert len(held[table]) < len(params[table]) / 4
    loss = model.compact.loss(len(small["items"]))
    grad = [jax.jit(jax.value_and_grad(fn, has_aux=True)) for fn in (model.loss, loss)]
    dense, dense_grads = grad[0](params, extra, KEY, example)
    found, found_grads = grad[1](small, extra, KEY, few)
    for table, named in held.items():
        assert not np.delete(np.asarray(dense_grads[table]), named, axis=0).any()
        dense_grads[table] = dense_grads[table][named]
        found_grads[table] = found_grads[table][: len(named)]
    jax.tree.map(np.testing.assert_array_equal, (found, found_grads), (dense, dense_grads))


def example_of(name):
    """What a model of that name reads."""
    few = batch()
    rows = {"weight": few.weight, "row_id": few.row_id}
    if name == "mf":
        return Triplets(
            jnp.array([5, 800, 2, 2, 0, 899, 40, 41]), *few.seq[:, :1].T, few.target, **rows
        )
    if name == "bert4rec":
        other = batch(seed=1)
        return WholeSequences(few.seq, jnp.zeros(BATCH, int), jnp.maximum(other.seq, 1), **rows)
    return few


def trained(settings, count=4, *, items=ITEMS, mode="jit", devices=1, by_row=None, config=None):
    """The states after each of `count` updates."""
    model = build(config or DIMEREC(), items, parallel.AXIS if mode == "pmap" else None)
    optimizer = optim.make(settings, 100, model.compact)
    by_row = settings.optimizer in ("lazy_adam", "row_adagrad") if by_row is None else by_row
    axis = parallel.AXIS if mode == "pmap" else None

    def update(train, key, example):
        take = rows.update if by_row else step.update
        return take(model, optimizer, train, key, example, axis_name=axis)

    def examples(data, index, row_id, key):
        return jax.tree.map(lambda leaf: leaf[index], data)._replace(row_id=row_id)

    wrap = {"jit": parallel.jit_updates, "pmap": parallel.pmap_updates}[mode]
    updates = wrap(update, examples, layout.make_mesh(jax.devices()[:devices]))
    data = batch(rows=count * BATCH, items=items)
    order = np.arange(count * BATCH, dtype=np.int32).reshape(count, BATCH)
    train = state.create(jax.jit(model.init)(jax.random.key(0), batch()), optimizer)
    train, *placed = (updates.place(x) for x in (train, data, jax.random.key(2), order))
    states = [jax.device_get(updates.fetch(train))]
    for first in range(count):
        train, reports = updates.run(train, *placed, np.int32(first), np.int32(1))
        assert int(reports.bad_step) == -1
        states.append(jax.device_get(updates.fetch(train)))
    return states


def test_where_every_row_is_read_lazy_adam_is_adam():
    # six items, all among 20 negatives and 8 histories of every update
    settings = {"learning_rate": 0.05, "clip_norm": 0.5, "rules": (Rule(pattern="outer"),)}
    lazy = trained(TrainConfig(optimizer="lazy_adam", **settings), items=6)
    dense = trained(TrainConfig(**settings), items=6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), lazy, dense)


@functools.cache
def _graded():
    model = build(DIMEREC())
    return jax.jit(jax.grad(model.loss, has_aux=True)), jax.jit(model.draw)


def gradients(states):
    """Of each update in turn, on whole tables, and the rows that its batch reads."""
    (grad, draw), found = _graded(), []
    seq, target, *_ = batch(rows=4 * BATCH)
    seq, target = seq.reshape(4, BATCH, LENGTH), target.reshape(4, BATCH)
    for n in range(4):
        part = batch()._replace(seq=seq[n], target=target[n])
        key = jax.random.fold_in(jax.random.key(2), n)
        named = catalogue.held(draw(key, part), ITEMS + 1)
        grads = jax.tree.map(np.float64, grad(states[n].params, (), key, part)[0])
        found.append((grads, named[named <= ITEMS]))
    return found


def test_lazy_adam_by_hand():
    states = trained(TrainConfig(optimizer="lazy_adam", learning_rate=0.01))
    table = np.asarray(states[0].params["items"], np.float64)
    first, second = np.zeros_like(table), np.zeros_like(table)
    for n, (grads, named) in enumerate(gradients(states), start=1):
        grad = grads["items"]
        first[named] = 0.9 * first[named] + 0.1 * grad[named]
        second[named] = 0.999 * second[named] + 0.001 * grad[named] ** 2
        move = first / (1 - 0.9**n) / (np.sqrt(second / (1 - 0.999**n)) + 1e-8)
        table[named] -= 0.01 * move[named]
        np.testing.assert_allclose(states[n].params["items"], table, atol=2e-5)
        rest = np.delete(np.arange(ITEMS + 1), named)
        np.testing.assert_array_equal(
            states[n].params["items"][rest], states[n - 1].params["items"][rest]
        )
    adam = states[-1].opt_state[0][0]
    np.testing.assert_allclose(adam.mu["items"], first, atol=1e-6)
    np.testing.assert_allclose(adam.nu["items"], second, atol=1e-6)
    assert adam.count == 4


def test_row_adagrad_by_hand():
    states = trained(TrainConfig(optimizer="row_adagrad", learning_rate=0.01))
    table = np.asarray(states[0].params["items"], np.float64)
    sums = np.zeros(len(table))
    for n, (grads, _) in enumerate(gradients(states), start=1):
        grad = grads["items"]
        sums += (grad**2).mean(axis=1)
        table -= 0.01 * grad / (np.sqrt(sums) + 1e-8)[:, None]
        np.testing.assert_allclose(states[n].params["items"], table, atol=1e-5)
    kept = [leaf for leaf in jax.tree.leaves(states[-1].opt_state) if leaf.shape == sums.shape]
    np.testing.assert_allclose(*kept, sums, rtol=1e-4, atol=1e-9)
    # nothing else of the table is kept, and other parameters have Adam's moments
    assert not any(leaf.shape == table.shape for leaf in jax.tree.leaves(states[-1].opt_state))
    before, after = (states[n].params["outer"]["kernel"] for n in (0, 1))
    grad = gradients(states)[0][0]["outer"]["kernel"]
    want = before - 0.01 * grad / (np.abs(grad) + 1e-8)
    np.testing.assert_allclose(after, want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "devices"), [("jit", 8), ("pmap", 8)])
def test_devices_agree_on_the_rows(mode, devices):
    settings = TrainConfig(optimizer="row_adagrad", learning_rate=0.01)
    one, many = (
        trained(settings, 2, mode=mode, devices=n, config=DIMEREC(negatives="in_batch"))[-1]
        for mode, n in (("jit", 1), (mode, devices))
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), one.params, many.params
    )


def test_a_row_has_one_owner():
    params = {"items": np.ones(3), "net": {"items": np.ones(2), "bias": np.ones(1)}}
    owner = optim.owners(params)
    kept = optax.chain(optax.clip(1.0), optax.adam(0.1)).init(params)
    found = {
        optim.path_of(keys): owner(keys)
        for keys, _ in jax.tree_util.tree_leaves_with_path(kept)
        if owner(keys)
    }
    assert sorted(found.values()) == sorted(["items", "net/items", "net/bias"] * 2)
    assert all(path.endswith(f"u/{name}") for path, name in found.items())


@pytest.mark.parametrize("optimizer", ["lazy_adam", "row_adagrad"])
@pytest.mark.parametrize(("data", "model"), [(1, 4), (2, 4)])
def test_shards_are_stepped_as_the_whole_table_is(optimizer, data, model):
    rng = np.random.default_rng(0)
    sizes = {"items": (1024, 8), "users": (512, 8), "kernel": (8, 3)}
    params, grads = ({n: rng.normal(size=s) for n, s in sizes.items()} for _ in range(2))
    held = {}
    for name in ("items", "users"):
        # the first row and the last, none of the second shard, and numbers behind the end
        shard = sizes[name][0] // 4
        named = np.r_[0, 7:40:3, 2 * shard, 3 * shard : 3 * shard + 9, sizes[name][0] - 1]
        held[name] = np.r_[named, sizes[name][0] + np.arange(32 - len(named))].astype(np.int32)
        grads[name] = rng.normal(size=(32, 8))
    held["items"][-8:] += 5
    params, grads = jax.tree.map(np.float32, (params, grads))
    compact = Compact((Table("items"), Table("users", of="users", padded=False)), None)
    settings = TrainConfig(optimizer=optimizer, learning_rate=0.01, clip_norm=0.5)
    tool = optim.make(settings, 100, compact)
    mesh = layout.make_mesh(jax.devices()[: data * model], model=model)

    @jax.jit
    def stepped(whole, grads):
        return rows.stepped(tool, whole, rows.taken(whole[0], held, whole[0]), grads, held)

    alone = whole = params, tool.init(params)
    split = jax.device_put(whole, layout.shardings(whole, mesh))
    for round in range(1, 4):
        given = jax.tree.map(lambda leaf, by=round: by * leaf, grads)
        alone = stepped(alone, given)
        with jax.set_mesh(mesh):
            split = stepped(split, given)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), split, alone)
    assert {leaf.shape[:1] for leaf in jax.tree.leaves(split) if any(leaf.sharding.spec)} == {
        (1024,), (512,),
    }  # fmt: skip
    rest = np.delete(np.arange(1024), held["items"][held["items"] < 1024])
    np.testing.assert_array_equal(split[0]["items"][rest], params["items"][rest])


def compiled(name, settings, data, model):
    """The text of an update for a mesh."""
    made = build(MODELS[name])
    tool = optim.make(settings, 100, made.compact)
    mesh = layout.make_mesh(jax.devices()[: data * model], model=model)
    train = jax.eval_shape(lambda: state.create(made.init(KEY, example_of(name)), tool))
    lies = layout.shardings(train, mesh)
    by_row = NamedSharding(mesh, P("data"))
    args = checkpoint.abstract(train, lies), KEY, jax.device_put(example_of(name), by_row)
    with jax.set_mesh(mesh):
        update = functools.partial(rows.update, made, tool)
        return jax.jit(update, out_shardings=(lies, None)).lower(*args).compile().as_text()


@pytest.mark.parametrize("optimizer", ["lazy_adam", pytest.param("row_adagrad", marks=_SLOW)])
@pytest.mark.parametrize("name", ["mf", pytest.param("dimerec", marks=_SLOW)])
@pytest.mark.parametrize(("data", "model"), [(1, 4), (2, 4)])
def test_devices_are_sent_the_rows_of_a_batch_and_no_moments(name, optimizer, data, model):
    text = compiled(name, TrainConfig(optimizer=optimizer, clip_norm=0.5), data, model)
    sent = hlo.collectives(text)
    # as many rows as a batch can name, of each table
    named, tables, other = 256 * 8 * 4, 2 if name == "mf" else 1, 0
    if data > 1:
        # and their gradients of each place where a loss looks them up, other gradients, ids
        tables += 5 if name == "mf" else 2
        other = 24_000
    assert tables * named <= sum(sent.values()) <= tables * named + other
    assert sent.get("all-gather", 0) < named
