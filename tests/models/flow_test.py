"""Flow against a plain float64 network, and what must hold of its loss and of its lists."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import straight
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.straight import PathConfig
from jaxrec_diff.models import flow, sasrec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.flow import FlowConfig
from jaxrec_diff.ops import rng as ops_rng
from tests.models.compiled import compiled
from tests.models.tables import filling

SPEC = DataSpec(num_users=3, num_items=6, max_len=4)
TINY = FlowConfig(
    width=4, num_blocks=1, dropout_rate=0.0, num_steps=4, path=PathConfig(), mse_weight=1.0
)
SEQ = jnp.array([[2, 5, 0, 0], [3, 1, 4, 6]])
TARGET = jnp.array([4, 2])


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def parts_of(**changes):
    return flow.parts(FlowConfig(**{**TINY.__dict__, **changes}), SPEC)


def example_of(seq=SEQ, target=TARGET):
    rows = len(target)
    return Sequences(seq, target, jnp.ones(rows), jnp.arange(rows))


@functools.cache
def weights():
    """Random parameters of the tiny network, on the host."""
    params, _ = flow.init(parts_of(), jax.random.key(0), example_of())
    random = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: random.normal(0, 0.5, x.shape), params)
    drawn["items"][7:] = 0
    return drawn


def by_hand(net, xt, t, h):
    """W_2 silu(W_1 [x ; h ; e(t)] + b_1) + b_2 + h, written from the spec."""
    half = len(xt[0]) // 2
    angle = 999 * (1 - t[:, None]) * np.exp(-np.log(1e4) * np.arange(half) / half)
    e = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    silu = lambda x: x / (1 + np.exp(-x))
    affine = lambda x, layer: x @ layer["kernel"] + layer["bias"]
    e = affine(silu(affine(e, net["step"]["inner"])), net["step"]["outer"])
    return affine(silu(affine(np.concatenate([xt, h, e], 1), net["inner"])), net["outer"]) + h


@in_float64
def test_the_restorer_is_two_layers_on_all_three():
    random = np.random.default_rng(1)
    xt, h, t = random.normal(size=(3, 4)), random.normal(size=(3, 4)), np.array([0.999, 0.4, 0.0])
    net = weights()["restorer"]
    got = flow.restored(parts_of(), net, jnp.asarray(xt), jnp.asarray(t), jnp.asarray(h))
    np.testing.assert_allclose(got, by_hand(net, xt, t, h), rtol=1e-11)


def test_parameters():
    # SASRec's, d -> 4d -> d of the times, 3d -> 4d -> d of the restorer.
    model = flow.build(FlowConfig(), DataSpec(1, num_items=12_101, max_len=50))
    example = Sequences(jnp.ones((1, 50), jnp.int32), jnp.ones(1), jnp.ones(1), jnp.arange(1))
    params = jax.eval_shape(model.init, jax.random.key(0), example).params
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    d = 64
    assert count(params["restorer"]) == (8 * d * d + 5 * d) + (12 * d * d + 4 * d) + 4 * d * d + d
    encoder = 12_102 * d + 50 * d + 2 * (6 * d * d + 10 * d) + 2 * d
    assert count(params) - count(params["restorer"]) - filling(12_102, d) == encoder


@in_float64
def test_the_loss_by_hand(monkeypatch):
    """Every place of both windows; SASRec's network alone is taken from elsewhere."""
    params, parts = jax.tree.map(jnp.asarray, weights()), parts_of(mse_weight=0.3)
    noise, times = {}, {}
    drawn, timed = ops_rng.normal, straight.draw_times

    def normal(key, row, shape):
        noise["eps"] = drawn(key, row, shape)
        return noise["eps"]

    def draw_times(config, key, place):
        times["t"], times["place"] = timed(config, key, place), place
        return times["t"]

    monkeypatch.setattr(ops_rng, "normal", normal)
    monkeypatch.setattr(straight, "draw_times", draw_times)
    value, aux = flow.loss(parts, params, flow.State(), jax.random.key(1), example_of())
    assert times["place"].tolist() == list(range(8))
    h = sasrec.SASRecNet(num_items=6, max_len=4, config=parts.encoder.config).apply(
        {"params": params}, SEQ
    )
    asked = [(0, 0, 5), (0, 1, 4), (1, 0, 1), (1, 1, 4), (1, 2, 6), (1, 3, 2)]  # row, place, answer
    at = [4 * row + place for row, place, _ in asked]
    items = weights()["items"]
    x0 = items[[item for *_, item in asked]] / np.sqrt((items[1:7] ** 2).mean())
    t, eps = np.asarray(times["t"])[at], np.asarray(noise["eps"])[at]
    xt = (1 - t[:, None]) * x0 + t[:, None] * eps
    hat = by_hand(weights()["restorer"], xt, t, np.asarray(h).reshape(8, 4)[at])
    logits = hat @ items[1:7].T
    picked = logits[np.arange(6), [item - 1 for *_, item in asked]]
    ce = (np.log(np.exp(logits).sum(1)) - picked).mean()
    mse = ((hat - x0) ** 2).mean()
    np.testing.assert_allclose(aux.metrics["ce"], ce, rtol=1e-6)  # times are float32
    np.testing.assert_allclose(aux.metrics["mse"], mse, rtol=1e-6)
    np.testing.assert_allclose(value, ce + 0.3 * mse, rtol=1e-6)


CONSISTENCY = {"loss": 0.0063446629, "mse": 0.4202470041}
FIRST = [0.6962576727, 0.8075689166, 0.6291451614, 0.748704287]


@in_float64
@pytest.mark.parametrize("teacher", ["self", "ema"])
def test_the_consistency_term(monkeypatch, teacher):
    x0 = jnp.array([[0.2, -0.4, 0.6, 0.1], [0.5, 0.3, -0.2, -0.7]])
    eps = jnp.array([[0.1, 0.9, -0.3, 0.4], [-0.6, 0.2, 0.8, -0.1]])
    said = []

    def toy(parts, net, xt, t, code):
        said.append(jnp.tanh(0.5 * xt + t[:, None]))
        return said[-1]

    monkeypatch.setattr(straight, "draw_times", lambda *args: jnp.array([0.8, 0.4]))
    monkeypatch.setattr(ops_rng, "normal", lambda *args: eps)
    monkeypatch.setattr(flow, "clean", lambda *args: x0)
    monkeypatch.setattr(flow, "restored", toy)
    parts = parts_of(
        consistency=2.0, consistency_delta=0.1, consistency_ramp=4, ce_weight=1e-9, teacher=teacher
    )
    example = example_of(jnp.array([[2], [3]]))
    params, state = flow.init(parts, jax.random.key(0), example)
    assert (state.teacher is None) == (teacher == "self")
    for update in range(6):
        value, aux = flow.loss(parts, params, state, jax.random.key(1), example)
        np.testing.assert_allclose(aux.metrics["consistency"], CONSISTENCY["loss"], rtol=1e-8)
        np.testing.assert_allclose(aux.metrics["mse"], CONSISTENCY["mse"], rtol=1e-8)
        weight = 2.0 * min(update / 4, 1.0)
        want = CONSISTENCY["mse"] + weight * CONSISTENCY["loss"]
        np.testing.assert_allclose(value, want, rtol=1e-6)
        state = aux.state
        assert int(state.updates) == update + 1
    np.testing.assert_allclose(said[0][0], FIRST, rtol=1e-9)
    cleaner = [0.6440126284, 0.7420382957, 0.5947603071, 0.6936725685]
    np.testing.assert_allclose(said[1][0], cleaner, rtol=1e-9)
    # at s = 0 the target is x_0 itself
    _, aux = flow.loss(
        parts_of(consistency=1.0, consistency_delta=1.0), params, state, jax.random.key(1), example
    )
    np.testing.assert_allclose(aux.metrics["consistency"], CONSISTENCY["mse"], rtol=1e-8)


def test_no_gradient_passes_the_second_estimate():
    parts = parts_of(consistency=1.0, consistency_ramp=1, consistency_delta=0.3)
    params, state = flow.init(parts, jax.random.key(0), example_of())
    state = state._replace(updates=jnp.int32(5))

    def loss(params, teacher):
        state_of = state._replace(teacher=teacher)
        return flow.loss(parts, params, state_of, jax.random.key(1), example_of())[0]

    of_params, of_teacher = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, params["restorer"])
    assert all(np.abs(x).max() == 0 for x in jax.tree.leaves(of_teacher))
    alone = jax.jit(jax.grad(lambda p: loss(p, None)))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), of_params, alone)


def test_the_averaged_teacher_follows_the_network():
    parts = parts_of(consistency=1.0, teacher="ema")
    params, state = flow.init(parts, jax.random.key(0), example_of())
    moved = params | {"restorer": jax.tree.map(lambda x: x + 1.0, params["restorer"])}
    _, aux = flow.loss(parts, moved, state, jax.random.key(1), example_of())
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new, old + 1e-3, atol=1e-6),
        aux.state.teacher, state.teacher,
    )  # fmt: skip


def test_the_steps_of_the_consistency_term():
    place = jnp.arange(20_000)
    drawn = flow._steps(parts_of(consistency_delta=0.0).config, jax.random.key(0), place)
    assert 0 < drawn.min() and drawn.max() <= 0.25
    np.testing.assert_allclose(drawn.mean(), 0.125, rtol=0.02)
    fixed = flow._steps(parts_of().config, jax.random.key(0), place[:3])
    np.testing.assert_allclose(fixed, 1 / 30, rtol=1e-6)


@pytest.mark.parametrize("target", ["stopped", "learned"])
def test_whether_a_gradient_passes_the_target(target):
    # Without a softmax rows of targets move by the squared error alone; 6 is a target only.
    parts = parts_of(target=target, ce_weight=0.0 if target == "learned" else 1e-20)
    params, state = flow.init(parts, jax.random.key(0), example_of())
    example = example_of(jnp.array([[2, 5, 0, 0], [3, 1, 0, 0]]), jnp.array([6, 6]))
    grad = jax.jit(jax.grad(lambda p: flow.loss(parts, p, state, jax.random.key(1), example)[0]))
    moved = np.abs(grad(params)["items"]).max(axis=1)
    assert (moved[6] > 1e-4) == (target == "learned")


def test_one_scale_of_the_table_is_another_table_of_the_same_targets():
    parts, params = parts_of(), jax.tree.map(jnp.asarray, weights())
    first = flow.clean(parts, params, TARGET)
    scaled = params | {"items": 7.0 * params["items"].at[0].set(100.0)}  # padding is no item
    np.testing.assert_allclose(flow.clean(parts, scaled, TARGET), first, rtol=1e-5)
    every = flow.clean(parts, params, jnp.arange(1, 7))
    np.testing.assert_allclose(np.sqrt((every**2).mean()), 1.0, rtol=1e-5)


def test_several_lengths_are_the_same_numbers():
    parts, params = parts_of(), jax.tree.map(jnp.asarray, weights())
    whole, _ = flow.loss(parts, params, flow.State(), jax.random.key(2), example_of())
    cut = (SEQ[:1, :2], SEQ[1:])
    other, _ = flow.loss(parts, params, flow.State(), jax.random.key(2), example_of(cut))
    np.testing.assert_allclose(other, whole, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ddim", "heun", "dpmpp", "fixed_noise", "one_step", "ddpm"])
def test_lists_are_ends_of_a_plain_loop(kind):
    parts, params = parts_of(sampler=SamplerConfig(kind=kind)), weights()
    model = compiled(flow.build(parts.config, SPEC))
    query = SequenceQuery(SEQ, jnp.arange(2))
    device = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    walk = flow.chain(parts, device, (), jax.random.key(3), query)
    h = np.asarray(sasrec.sample(parts.encoder, device, (), jax.random.key(0), query), np.float64)
    x, before = np.asarray(walk.start, np.float64), 0.0
    told = 0.999 * np.arange(1, 5) / 4
    for i, (t, a, b, c, e) in enumerate(zip(*walk.steps, strict=True)):
        x0 = by_hand(params["restorer"], x, np.full(2, told[t]), h)
        z = 0.0 if walk.draw is None else np.asarray(walk.draw(jnp.int32(i)))
        x, before = a * x0 + b * x + c * z + e * before, x0
    got = model.sample(device, (), jax.random.key(3), query)
    np.testing.assert_allclose(got, x, rtol=2e-4, atol=2e-4)


def test_what_is_recommended_without_a_diffusion():
    parts, params = parts_of(), weights()
    device = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    query = SequenceQuery(SEQ, jnp.arange(2))
    h = np.asarray(sasrec.sample(parts.encoder, device, (), jax.random.key(0), query))
    want = by_hand(params["restorer"], np.zeros((2, 4)), np.full(2, 0.999), h)
    got = flow.without_x_t(parts, device, (), query)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 0}, "model.width"),
        ({"num_steps": 0}, "model.num-steps must be at least 1"),
        ({"mse_weight": -1.0}, "model.mse-weight must be at least 0"),
        ({"consistency_delta": 2.0}, "nearest valid value is 1"),
        ({"consistency_ramp": 0}, "model.consistency-ramp must be at least 1"),
        ({"sampler": SamplerConfig(steps=5)}, "nearest valid value is 4"),
        ({"sampler": SamplerConfig(kind="closed_form")}, "the nearest is ddim"),
        ({"ce_weight": 0.0}, "nothing that trains the rows of items"),
    ],
)
def test_bad_settings(changes, said):
    with pytest.raises(ValueError, match=said):
        FlowConfig(**{**TINY.__dict__, **changes})
