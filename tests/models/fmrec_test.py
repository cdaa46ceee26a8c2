"""FMRec against numbers computed in float64 without it, which agree with the released network's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import straight
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.models import diffurec, fmrec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.fmrec import FMRecConfig, Shown
from jaxrec_diff.ops import rng as ops_rng
from tests.models import diffurec_test
from tests.models.compiled import applied, compiled
from tests.models.tables import filling

SPEC = DataSpec(num_users=3, num_items=5, max_len=4)
TINY = FMRecConfig(
    width=8, num_blocks=2, dropout_rate=0.0, history_dropout_rate=0.0, lambda_std=0.0, num_steps=4
)
XT, HISTORY = diffurec_test.XT, diffurec_test.HISTORY
TIMES = {  # of the time MLP at tau = 1 - t
    0.001: [0.6472780891, 0.5444630719, -0.380476391, -2.2722990167, -0.8514425481, 0.3192601965,
            -1.0309239512, -0.6882569119],
    0.5: [0.5997036046, 1.4505966747, 0.0907625186, -0.3099278136, 0.1957217193, -0.3766143569,
          0.120342584, -0.0088410501],
}  # fmt: skip
OUT = {
    1e-3: [-0.8110710571, 1.2133254494, 0.5746382787, -0.9549169289, 1.8042619545, -0.2340543787,
           -0.9546209785, -0.6375623394],
    1.0: [-0.4785680579, 1.2648362904, 0.3623046669, -0.9047338987, 1.8955152012, -0.4514215628,
          -0.8482131212, -0.8397195179],
    0.0: [-0.8113267994, 1.2133831574, 0.5748347994, -0.9549562192, 1.8040664353, -0.233959257,
          -0.9547378244, -0.6373042921],
}  # fmt: skip
CE = {1e-3: 2.0524011496, 1.0: 1.8227851163, 0.0: 2.0526293198}
MSE = {1e-3: 1.5052389672, 1.0: 1.3809130222}
CHAINS = {  # and how far the last estimate is from the first
    1e-3: ([-0.8108305192, 1.213289059, 0.5746203276, -0.9551856454, 1.804215063, -0.2338752891,
            -0.9548965645, -0.6373364315], 1.162e-3),
    1.0: ([-0.2086821378, 1.3656454319, 0.3823993478, -1.1069966344, 1.6642450953, -0.3723804175,
           -1.1447823863, -0.579448299], 3.617e-1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def settings(**changes):
    return FMRecConfig(**{**TINY.__dict__, **changes})


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def tiny_weights():
    return jax.tree.map(lambda x: jnp.asarray(x), diffurec_test.tiny_weights())


def example_of(seq=HISTORY, target=4):
    rows = len(seq[0]) if isinstance(seq, tuple) else len(seq)
    return Sequences(seq, jnp.full(rows, target), jnp.ones(rows), jnp.arange(rows))


def test_golden_times():
    net = fmrec.parts(TINY, SPEC).net
    for tau, want in TIMES.items():
        told = straight.told(jnp.array([1.0 - tau]))
        got = applied(net)({"params": tiny_weights()}, told, method="steps")
        np.testing.assert_allclose(got[0], want, atol=2e-5)


@pytest.mark.parametrize("scale", OUT)
def test_golden_loss(monkeypatch, scale):
    """At tau = .5 with x_t given."""
    monkeypatch.setattr(straight, "draw_times", lambda config, key, row: jnp.full(row.shape, 0.5))
    monkeypatch.setattr(
        straight, "noised", lambda x0, t, eps: jnp.asarray(XT, jnp.float32)[None] + 0 * x0
    )
    config = settings(lambda_mean=scale)
    parts, params = fmrec.parts(config, SPEC), tiny_weights()
    y = jnp.asarray(XT)[None] + applied(parts.net)(
        {"params": params}, straight.told(jnp.array([0.5])), method="steps"
    )
    keys = ops_rng.row_keys(jax.random.key(0), jnp.arange(1))
    point = diffurec.estimate(parts.base, params, HISTORY, y, keys)
    np.testing.assert_allclose(point[0], OUT[scale], atol=1e-5)
    for seq in (HISTORY, (HISTORY[:, :2],)):
        value, aux = fmrec.loss(parts, params, (), jax.random.key(0), example_of(seq))
        np.testing.assert_allclose(aux.metrics["ce"], CE[scale], rtol=1e-5)
        if scale in MSE:
            np.testing.assert_allclose(aux.metrics["mse"], MSE[scale], rtol=1e-5)
            np.testing.assert_allclose(value, MSE[scale] + 0.2 * CE[scale], rtol=1e-5)


@pytest.mark.parametrize("scale", CHAINS)
@pytest.mark.parametrize("draw", ["mean", "per_step"])
def test_golden_chain(monkeypatch, scale, draw):
    monkeypatch.setattr(
        ops_rng, "normal", lambda key, rows, shape: jnp.broadcast_to(jnp.asarray(XT), (1, *shape))
    )
    parts, params = fmrec.parts(settings(lambda_mean=scale, lambda_draw=draw), SPEC), tiny_weights()
    query = SequenceQuery(HISTORY[:, :2], jnp.zeros(1, jnp.int32))
    walk = fmrec.chain(parts, params, (), jax.random.key(0), query)
    want, apart = CHAINS[scale]
    point = fmrec.sample(parts, params, (), jax.random.key(0), query)
    np.testing.assert_allclose(point[0], want, atol=2e-5)
    x, said = walk.start, []
    for t in (3, 2, 1, 0):  # its result is the mean of what the network says on the way
        said.append(walk.denoise(x, jnp.int32(t)))
        x = x + (said[-1] - walk.start) / 4
    np.testing.assert_allclose(point, np.mean(said, axis=0), atol=1e-5)
    np.testing.assert_allclose(np.abs(said[-1] - said[0]).max(), apart, rtol=2e-2)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(("num_items", "size"), [(12_101, 2_474_368), (1_682, 1_140_736)])
def test_parameters_of_the_released_network(num_items, size):
    example = Sequences(jnp.ones((1, 50), jnp.int32), jnp.ones(1), jnp.ones(1), jnp.arange(1))

    def params_of(**changes):
        model = fmrec.build(FMRecConfig(**changes), DataSpec(1, num_items=num_items, max_len=50))
        return jax.eval_shape(model.init, jax.random.key(0), example).params

    assert count(params_of()) - filling(num_items + 1, 128) == size
    params = params_of(reconstruct="released")
    assert count(params) - count(params["decoder"]) == count(params_of())
    if num_items == 12_101:
        assert count(params["decoder"]) == 25_913_670


@in_float64
def test_reconstruction():
    said = jnp.cos(jnp.arange(12.0)).reshape(2, 6)
    ones = jnp.zeros((2, 6), bool).at[0, jnp.array([2, 5])].set(True).at[1, 1].set(True)
    zeros = jnp.zeros((2, 6), bool).at[0, 0].set(True).at[0, 0].set(True).at[1, 3].set(True)
    for by_entry, want in ((False, 0.3674445151), (True, 0.8818668363)):
        got = fmrec.reconstruction(said, Shown(ones, zeros), jnp.ones(2), by_entry=by_entry)
        np.testing.assert_allclose(got, want, rtol=1e-9)
    more = [jnp.concatenate([x, x[:1]]) for x in (said, ones, zeros)]  # a row of padding
    got = fmrec.reconstruction(more[0], Shown(*more[1:]), jnp.array([1.0, 1.0, 0.0]), by_entry=True)
    np.testing.assert_allclose(got, 0.8818668363, rtol=1e-9)


def test_what_the_reconstruction_looks_at():
    parts = fmrec.parts(settings(reconstruct="mean", reconstruct_last=1), SPEC)
    seq = jnp.tile(jnp.array([[2, 5, 2, 0], [3, 0, 0, 0]]), (400, 1))
    shown = fmrec.looked_at(parts, jax.random.key(0), seq, jnp.arange(800))
    first, second = (jax.tree.map(lambda x, k=k: np.asarray(x[k::2]), shown) for k in (0, 1))
    assert (first.ones == [0, 0, 1, 0, 0, 1]).all() and (second.ones == [0, 0, 0, 1, 0, 0]).all()
    assert not (shown.ones & shown.zeros).any()
    # one draw for one item, two with replacement for two: every other entry alike, padding too
    assert (second.zeros.sum(axis=1) == 1).all()
    assert set(first.zeros.sum(axis=1)) == {1, 2}
    np.testing.assert_allclose(second.zeros.mean(axis=0), [0.2, 0.2, 0.2, 0, 0.2, 0.2], atol=0.06)
    np.testing.assert_allclose(
        first.zeros.mean(axis=0), np.array([1, 1, 0, 1, 1, 0]) * (1 - 0.75**2), atol=0.08
    )


def test_the_decoder_reads_an_inner_block():
    changes = {"reconstruct": "released", "reconstruct_last": 1}
    model = compiled(fmrec.build(settings(**changes), SPEC))
    params = model.init(jax.random.key(0), example_of()).params
    grad = jax.jit(jax.grad(lambda p: model.loss(p, (), jax.random.key(1), example_of())[1]
                            .metrics["reconstruction"]))(params)  # fmt: skip
    reached = jax.tree.map(lambda x: bool(np.abs(x).max() > 0), grad)
    assert reached["transformer"]["blocks_0"]["feed_out"]["kernel"] and reached["decoder"]["out"]
    assert not any(jax.tree.leaves(reached["transformer"]["blocks_1"]))
    # a list asks no decoder
    query = SequenceQuery(HISTORY, jnp.arange(1))
    without = {name: of for name, of in params.items() if name != "decoder"}
    points = [model.sample(p, (), jax.random.key(0), query) for p in (params, without)]
    np.testing.assert_array_equal(*points)


def test_the_first_losses_at_published_size():
    """MSE 1.9 - 2.1, CE 45 - 56 (as DiffuRec's) and R below .01, of the spec's acceptance."""
    config = FMRecConfig(reconstruct="released", pads="one")
    model = compiled(fmrec.build(config, DataSpec(1, num_items=12_101, max_len=50)))
    random = np.random.default_rng(0)
    length = random.integers(1, 12, (64, 1))
    seq = np.where(np.arange(12) < length, random.integers(1, 12_102, (64, 12)), 0)
    target = jnp.asarray(random.integers(1, 12_102, 64))
    example = Sequences(jnp.asarray(seq), target, jnp.ones(64), jnp.arange(64))
    params = model.init(jax.random.key(0), example).params
    _, aux = model.loss(params, (), jax.random.key(1), example)
    assert 1.9 < aux.metrics["mse"] < 2.1
    assert 45 < aux.metrics["ce"] < 60
    assert 0 < aux.metrics["reconstruction"] < 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 30}, "multiple of 4 .* the nearest is 32"),
        ({"ce_weight": 0.0}, "model.ce-weight must be above 0"),
        ({"mse_weight": -1.0}, "model.mse-weight must be at least 0"),
        ({"reconstruct": "mean", "reconstruct_last": 2}, "nearest valid value is 1"),
        ({"sampler": SamplerConfig(steps=5)}, "nearest valid value is 4"),
        ({"sampler": SamplerConfig(kind="closed_form")}, "the nearest is ddim"),
    ],
)
def test_bad_settings(changes, said):
    with pytest.raises(ValueError, match=said):
        settings(**changes)
