"""DiffuRec against numbers computed in float64 without it, and what must hold of it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config as jaxrec_diff_config
from jaxrec_diff import losses
from jaxrec_diff.batches import types
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import config as diffusion_config
from jaxrec_diff.diffusion import forward, process, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.experiments import phases, runs
from jaxrec_diff.models import diffurec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.diffurec import DiffuRecConfig
from jaxrec_diff.ops import filled
from jaxrec_diff.ops import rng as ops_rng
from tests.models.compiled import applied, compiled
from tests.models.tables import filling
from tests.nets.transformer_test import TEMB, affine, fill, tiny_params, unit_norm

SPEC = DataSpec(num_users=3, num_items=5, max_len=4)
TINY = DiffuRecConfig(
    width=8,
    num_blocks=2,
    dropout_rate=0.0,
    history_dropout_rate=0.0,
    lambda_std=0.0,
    sampler=SamplerConfig(kind="mean"),
)

XT = np.sin(20 + 0.1 * np.arange(8))
HISTORY = jnp.array([[2, 5, 0, 0]])
LOGITS = {
    "query": [1.87491234, -1.89840713, -1.32735346, 0.37196218, 0.85968811, 2.03596059],
    "key": [2.24450358, -2.29408218, -1.59346201, 0.94072392, 1.2546897, 1.97072945],
    "none": [1.74205677, -1.71686364, -1.15104084, 0.0742445, 0.62554664, 2.12568419],
}
CROSS_ENTROPY = {"query": 2.05308861, "key": 1.88012165, "none": 2.23836565}


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def tiny_weights(blocks=2):
    transformer = tiny_params()
    if blocks == 1:
        del transformer["blocks_1"]
    return {
        "items": filled.padded(jnp.asarray(fill(1, (6, 8)), jnp.float32)),
        "norm_in": unit_norm(8),
        "step": {
            "inner": affine(fill(8, (8, 32), 0.5)),
            "outer": affine(fill(9, (32, 8), 0.5)),
        },
        "transformer": transformer,
    }


def settings(**changes):
    return DiffuRecConfig(**{**TINY.__dict__, **changes})


def model_of(**changes):
    # a patch made before the first call is compiled in
    return compiled(diffurec.build(settings(**changes), SPEC))


def weights_of(**changes):
    """Random weights of the tiny network."""
    example = Sequences(HISTORY, jnp.array([4]), jnp.ones(1), jnp.arange(1))
    init = diffurec.build(settings(**changes), SPEC).init
    shapes = jax.eval_shape(init, jax.random.key(0), example).params
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32), shapes)


def given_start(monkeypatch, start=XT):
    """Every draw of a point is `start`; a chain of means draws nothing else."""
    monkeypatch.setattr(
        ops_rng,
        "normal",
        lambda key, rows, shape: jnp.broadcast_to(jnp.asarray(start), (1, *shape)),
    )


def test_golden_parts():
    net = diffurec.DiffuRecNet(num_items=5, max_len=4, config=TINY)
    steps = applied(net)({"params": tiny_weights()}, jnp.array([3]), method="steps")
    np.testing.assert_allclose(steps[0], TEMB, atol=3e-6)


@pytest.mark.parametrize("pads", ["all", "one"])
@pytest.mark.parametrize("mask", LOGITS)
def test_golden_loss(monkeypatch, mask, pads):
    monkeypatch.setattr(timesteps, "uniform", lambda key, row, num_steps: jnp.full(row.shape, 3))
    monkeypatch.setattr(forward, "q_sample", lambda *args: jnp.asarray(XT, jnp.float32)[None])
    model = model_of(mask=mask, pads=pads)
    for seq in (HISTORY, (HISTORY[:, :2],)):
        example = Sequences(seq, jnp.array([4]), jnp.ones(1), jnp.arange(1))
        value, aux = model.loss(tiny_weights(), (), jax.random.key(0), example)
        np.testing.assert_allclose(value, CROSS_ENTROPY[mask], rtol=1e-5)
        assert aux.metrics["loss"] == value


@pytest.mark.parametrize("mask", LOGITS)
def test_golden_chain_of_one_step(monkeypatch, mask):
    # A single call with the step's embedding of t = 3 gives the logits of the golden network.
    given_start(monkeypatch)
    only = process.Steps(np.array([3]), np.ones(1), *np.zeros((3, 1)))
    monkeypatch.setattr(diffurec, "plan", lambda config, levels: (only, False))
    model = model_of(mask=mask)
    head = diffurec.build(settings(mask=mask), SPEC, protocol="official").head(tiny_weights(), ())
    query = SequenceQuery(HISTORY[:, :2], jnp.zeros(1))
    point = model.sample(tiny_weights(), (), jax.random.key(0), query)
    # the padding row comes last
    np.testing.assert_allclose((point @ head.table.T)[0], np.roll(LOGITS[mask], -1), atol=2e-5)


CHAINS = {
    1e-3: [-0.81045298, 1.21341897, 0.57455681, -0.9556496, 1.80403946, -0.23365864, -0.95519855,
           -0.63705547],
    1.0: [0.03294375, 1.31886837, 0.34743595, -1.27494453, 1.51860391, -0.23302576, -1.44273294,
          -0.26714874],
}  # fmt: skip


@pytest.mark.parametrize(("scale", "draw"), [(1e-3, "mean"), (1.0, "per_step"), (1.0, "per_user")])
def test_golden_chain_of_32_steps(monkeypatch, scale, draw):
    given_start(monkeypatch)
    model = model_of(lambda_mean=scale, lambda_draw=draw)
    seq = HISTORY[:, :2]
    point = model.sample(tiny_weights(), (), jax.random.key(0), SequenceQuery(seq, jnp.zeros(1)))
    np.testing.assert_allclose(point[0], CHAINS[scale], atol=2e-5)


@pytest.mark.parametrize(("scale", "difference"), [(1e-3, 6.274e-4), (1.0, 3.229e-1)])
def test_one_step_is_the_last_step_alone(monkeypatch, scale, difference):
    given_start(monkeypatch)
    sampler = SamplerConfig(kind="mean", steps=1, spacing="leading")
    query = SequenceQuery(HISTORY, jnp.zeros(1))
    point = model_of(lambda_mean=scale, sampler=sampler).sample(
        tiny_weights(), (), jax.random.key(0), query
    )
    np.testing.assert_allclose(
        np.abs(point[0] - np.array(CHAINS[scale])).max(), difference, rtol=0.01
    )


def test_the_default_path_is_the_released_one():
    path, noisy = diffusion_config.plan(
        DiffuRecConfig().sampler, forward.levels(diffurec.released_betas("trunc_lin", 32))
    )
    assert noisy
    np.testing.assert_array_equal(path.t, np.arange(32)[::-1])
    # row 0 is t = 31; the official deviations are sqrt(beta), and the last row draws nothing
    np.testing.assert_allclose(
        np.asarray(path.c)[[0, 30, 31]], [0.7968688725, 0.1821688334, 0.0], rtol=1e-6
    )
    np.testing.assert_allclose(
        np.asarray(path.a)[[0, 30, 31]], [0.0010458606, 0.7186275563, 1.0], rtol=1e-6
    )
    np.testing.assert_allclose(
        np.asarray(path.b)[[0, 30, 31]], [0.6041512580, 0.2813167114, 0.0], rtol=1e-6
    )
    assert np.prod(np.asarray(path.b[:31], np.float64)) == pytest.approx(1.314663941e-05, rel=1e-5)


def test_lambda_has_the_released_law():
    drawn = diffurec.draw_lambda(DiffuRecConfig(), jax.random.key(0), (50, 128, 200))
    assert drawn.mean() == pytest.approx(1e-3, rel=0.01)
    assert drawn.std() == pytest.approx(1e-3, rel=0.01)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameters_of_the_released_network():
    model = diffurec.build(DiffuRecConfig(), DataSpec(num_users=1, num_items=12_101, max_len=50))
    example = Sequences(jnp.ones((1, 50), jnp.int32), jnp.ones(1), jnp.ones(1), jnp.arange(1))
    params = jax.eval_shape(model.init, jax.random.key(0), example).params
    assert count(params["items"]) - filling(12_102, 128) == 1_549_056
    assert count(params["step"]) == 131_712
    assert count(params["transformer"]) == 793_088 + 256
    assert count(params) - filling(12_102, 128) == 2_474_368


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "low", "high"), [("amazon-beauty", 45, 60), ("ml-1m", 45, 62)])
def test_initial_cross_entropy_of_real_histories(real_data, folder, low, high):
    # Logits are roughly N(0, 128), far above ln 12102 = 9.4. The released code's first batches have
    # 52.85 (Beauty) and 56.29 (ML-1M).
    released = jaxrec_diff_config.preset("diffurec", folder).experiment
    (phase,) = runs.prepare(
        "diffurec", replace(released, devices=1), str(real_data / folder / "interactions.parquet")
    ).phases
    model, batcher = phases.model_of(phase), phase.batcher
    key = jax.random.key(0)
    rows = jnp.arange(96, dtype=jnp.int32)
    example = batcher.example(
        batcher.train, jax.random.choice(key, batcher.num_examples, (96,), replace=False), rows, key
    )
    params = jax.jit(model.init)(key, example).params
    value, _ = jax.jit(model.loss)(params, (), jax.random.key(1), example)
    assert low < value < high


@pytest.mark.parametrize("mask", ["query", "none"])
def test_padding_counts_where_it_is_looked_at(mask):
    model, hidden = model_of(mask=mask), model_of(mask="key")
    params = tiny_weights()
    other = params | {"items": params["items"].at[0].set(params["items"][0, ::-1])}
    query = SequenceQuery(HISTORY, jnp.arange(1))
    key = jax.random.key(0)
    before, after = (model.sample(p, (), key, query) for p in (params, other))
    assert np.abs(after - before).max() > 1e-3
    before, after = (hidden.sample(p, (), key, query) for p in (params, other))
    np.testing.assert_array_equal(after, before)


def test_one_block_is_blind_to_the_released_mask():
    query = SequenceQuery(HISTORY, jnp.arange(1))
    one, other = (
        model_of(mask=mask, num_blocks=1).sample(tiny_weights(1), (), jax.random.key(0), query)
        for mask in ("query", "none")
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("positions", [False, True])
def test_order_matters_only_with_positions(positions):
    model, params = model_of(positions=positions), weights_of(positions=positions)
    points = [
        model.sample(params, (), jax.random.key(0), SequenceQuery(jnp.array([seq]), jnp.arange(1)))
        for seq in ([1, 2, 3, 4], [3, 1, 2, 4])
    ]
    assert (np.abs(points[1] - points[0]).max() > 1e-3) == positions


@pytest.mark.parametrize(("mask", "positions"), [("query", True), ("key", False)])
def test_no_length_of_the_padding_changes_a_point(mask, positions):
    changes = {"mask": mask, "positions": positions, "sampler": SamplerConfig(noise="std_large")}
    model, params = model_of(**changes), weights_of(**changes)
    key, rows = jax.random.key(3), jnp.arange(1)
    short, whole = (
        model.sample(params, (), key, SequenceQuery(HISTORY[:, :width], rows)) for width in (2, 4)
    )
    np.testing.assert_allclose(short, whole, atol=2e-5)


def test_several_lengths_are_the_rows_one_by_one():
    # Without dropout, and with lambda keyed by row, a row's loss is the same in any company.
    model = model_of(lambda_std=0.5, mask="key")
    params = weights_of(mask="key")
    rng = np.random.default_rng(0)
    seq = jnp.asarray(rng.integers(1, 6, (5, 4)) * (np.arange(4) < [[2], [1], [2], [4], [3]]))
    rest = jnp.asarray(rng.integers(1, 6, 5)), jnp.ones(5), jnp.arange(5)
    whole, _ = model.loss(params, (), jax.random.key(2), Sequences(seq, *rest))
    cut, _ = model.loss(params, (), jax.random.key(2), Sequences((seq[:3, :2], seq[3:]), *rest))
    np.testing.assert_allclose(cut, whole, rtol=1e-5)


def test_noise_reaches_the_table_through_the_target_unless_stopped():
    example = Sequences(HISTORY, jnp.array([4]), jnp.ones(1), jnp.arange(1))

    def gradient(**changes):
        model = diffurec.build(settings(lambda_mean=0.3, mask="key", num_blocks=1, **changes), SPEC)
        params = weights_of(num_blocks=1)
        grad = jax.jit(jax.grad(lambda p: model.loss(p, (), jax.random.key(0), example)[0]))
        return np.asarray(grad(params)["items"])

    learned, stopped = gradient(), gradient(target="stopped", pad_class=False)
    assert np.abs(learned[0]).max() > 0  # the padding row is a class
    np.testing.assert_array_equal(stopped[0], 0.0)
    # what reaches row 4 beyond its place in the softmax came through x_0
    stopped = gradient(target="stopped")
    assert np.abs(learned[4] - stopped[4]).max() > 1e-3
    np.testing.assert_allclose(np.delete(learned, 4, 0), np.delete(stopped, 4, 0), rtol=1e-4)


@pytest.mark.parametrize(
    ("step_sampler", "expected"),
    [
        ("uniform", np.full(4, 0.25)),
        ("fixstep", np.array([2, 2, 1, 1]) / 6),
        ("lossaware", np.array([1, 2, 3, 4]) / 10 * 0.999 + 0.00025),
    ],
)
def test_step_samplers(step_sampler, expected):
    config = settings(step_sampler=step_sampler, num_steps=4, schedule="cosine")
    state = ()
    if step_sampler == "lossaware":
        filled = jnp.broadcast_to(jnp.arange(1.0, 5.0)[:, None], (4, 10))
        state = timesteps.History(filled, jnp.full(4, 10))
    t, weight = diffurec.draw_steps(config, jax.random.key(1), state, jnp.arange(20_000))
    np.testing.assert_allclose(np.bincount(t, minlength=4) / 20_000, expected, atol=0.012)
    np.testing.assert_allclose(weight, 1 / (4 * expected[t]), rtol=1e-4)


def test_lossaware_weighs_and_remembers_losses(monkeypatch):
    # Cross entropy is replaced by the step itself: E[t / (T p_t)] is the mean of 0 .. T - 1.
    monkeypatch.setattr(forward, "q_sample", lambda tables, x0, t, eps: t[:, None] + 0 * x0)
    monkeypatch.setattr(diffurec.DiffuRecNet, "steps", lambda self, t: jnp.zeros((*t.shape, 8)))
    monkeypatch.setattr(diffurec.DiffuRecNet, "read", lambda self, h, y, *rest, **options: y[:, 0])
    monkeypatch.setattr(losses, "full_softmax", lambda points, table, target, classes: points[:, 0])
    config = settings(
        step_sampler="lossaware", num_steps=4, schedule="cosine", mask="key", lambda_mean=1.0
    )
    rows = 4000
    example = Sequences(jnp.full((rows, 1), 2), jnp.full(rows, 4), jnp.ones(rows), jnp.arange(rows))
    filled = jnp.broadcast_to(jnp.arange(1.0, 5.0)[:, None], (4, 10))
    state = timesteps.History(filled, jnp.full(4, 10))
    value, aux = compiled(diffurec.build(config, SPEC)).loss(
        weights_of(), state, jax.random.key(1), example
    )
    np.testing.assert_allclose(value, 1.5, rtol=0.03)
    np.testing.assert_allclose(aux.state.losses, np.repeat(np.arange(4.0)[:, None], 10, 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 30}, "multiple of 4 .* the nearest is 32"),
        ({"schedule": "linear", "num_steps": 19}, "at least 20"),
        ({"schedule": "pw_lin", "num_steps": 10}, "at least 11"),
        ({"lambda_std": -1.0}, "lambda-std"),
        ({"sampler": SamplerConfig(steps=33)}, "nearest valid value is 32"),
        ({"sampler": SamplerConfig(kind="closed_form")}, "the nearest is mean"),
    ],
)
def test_bad_settings(changes, said):
    with pytest.raises(ValueError, match=said):
        DiffuRecConfig(**changes)


def test_a_schedule_that_does_not_end_in_noise_is_reported():
    with pytest.warns(UserWarning, match="does not end in noise"):
        DiffuRecConfig(num_steps=20)


def test_over_lengths_keeps_the_order():
    got = types.over_lengths(lambda seq, x: seq[:, 0] + x, (jnp.ones((2, 3)), jnp.zeros((1, 2))),
                               jnp.array([1.0, 2.0, 3.0]))  # fmt: skip
    np.testing.assert_array_equal(got, [2, 3, 3])
