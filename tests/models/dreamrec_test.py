"""DreamRec against numbers recorded from the released network in float64 (PyTorch, d = 4)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxrec_diff import losses
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, guidance, process, samplers, schedules
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models import dreamrec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.nets.embeddings import sinusoidal
from jaxrec_diff.nets.encoders import HistoryBlock
from tests.models.compiled import applied, compiled
from tests.models.tables import filling, padded

D, ITEMS, LENGTH = 4, 5, 3
CONFIG = dreamrec.DreamRecConfig(
    width=D, num_steps=6, beta_start=1e-4, beta_stop=0.3, guidance_weight=2.0, dropout_rate=0.0
)

NET = dreamrec.DreamRecNet(num_items=ITEMS, max_len=LENGTH, config=CONFIG)

H = [
    [-0.5764170676, 1.6159141544, 1.3415584267, -0.5831034384],
    [-1.0326131361, 0.6537921469, 0.6825590606, 1.6331704325],
    [0.4718478347, 0.4997305218, 0.459977027, 0.3579677995],
]
X_FINAL = [
    [1.1371412607, -2.9965896105, 1.3266680131, 3.3830604154],
    [2.0127090578, -1.2084228013, -0.5110519152, 2.5837085961],
    [0.7570602619, -2.4960922959, 1.4374483206, 2.822955961],
]


def filled(number, shape, scale=False):
    """Tensor `number` of the recipe, in the released [out, in] layout."""
    values = 0.5 * np.sin(1.7 * number + 0.37 * np.arange(math.prod(shape)) + 0.2)
    return (1.0 + 0.2 * values if scale else values).reshape(shape)


def dense(number, out, inside):
    return {"kernel": filled(number, (out, inside)).T, "bias": filled(number + 1, (out,))}


def norm(number):
    return {"scale": filled(number, (D,), scale=True), "bias": filled(number + 1, (D,))}


def golden_params():
    items = filled(0, (ITEMS + 1, D))
    # The release keeps its padding row last; here it is row 0.
    tree = jax.tree.map(
        jnp.asarray,
        {
            "items": np.roll(items, 1, axis=0),
            "null": filled(1, (1, D)),
            "positions": filled(2, (LENGTH, D)),
            "block": {
                "norm_in": norm(3),
                "norm_attention": norm(5),
                "norm_out": norm(7),
                "query": dense(9, D, D),
                "key": dense(11, D, D),
                "value": dense(13, D, D),
                "feed_in": dense(15, D, D),
                "feed_out": dense(17, D, D),
                "norm_feed": norm(19),
            },
            "step": {"inner": dense(21, 2 * D, D), "outer": dense(23, D, 2 * D)},
            "outer": dense(25, D, 3 * D),
        },
    )
    return padded(tree, "items")


SEQ = jnp.array([[1, 4, 2], [3, 5, 0], [0, 0, 0]])  # released ids + 1, padding 0


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def apply(method, *args, net=NET, params=None):
    return applied(net)({"params": params or golden_params()}, *args, method=method)


def grid_noise(step):
    row, column = np.arange(3)[:, None], np.arange(D)[None, :]
    return np.sin(step + 0.5 * row + 0.25 * column)


class GoldenNetworkTest(parameterized.TestCase):
    @in_float64
    def test_fill_recipe(self):
        np.testing.assert_allclose(
            golden_params()["items"][1],
            [0.0993346654, 0.2698160244, 0.4037790502, 0.4830924758],
            rtol=1e-8,
        )

    @in_float64
    def test_history_encoder(self):
        np.testing.assert_allclose(apply("encode", SEQ), H, rtol=1e-9, atol=1e-10)

    @in_float64
    def test_step_embedding(self):
        want = [
            [-0.1132206424, -0.4331627822, -0.0020772856, -1.0626755871],
            [-0.1078927586, -0.3508906593, -0.1692438657, -0.8161118854],
            [-0.0247853624, -0.4600253568, -0.0376708021, -0.9657964855],
        ]
        got = apply("embed_steps", jnp.array([0, 3, 5]))
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)

    @in_float64
    def test_denoiser(self):
        x = jnp.array([[0.1, -0.2, 0.3, 0.4], [1, 0, -1, 0.5], [0, 0, 0, 0]])
        want = [
            [0.3258489513, -1.2224938483, 1.1833793462, 1.6860634426],
            [0.669707479, -0.4227076459, 0.4091828908, 1.3028461898],
            [0.3452719489, -0.8383723388, 0.9572735453, 1.4236018236],
        ]
        got = apply("denoise", x, jnp.array([0, 3, 5]), jnp.array(H))
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)

    @parameterized.parameters("folded", "two_calls")
    @in_float64
    def test_reverse_chain(self, form):
        params = golden_params()
        betas = schedules.linear(6, start=1e-4, stop=0.3)
        rows = samplers.ddpm_rows(forward.levels(betas))
        steps = process.Steps(*(jnp.asarray(column) for column in rows))
        given = jnp.asarray(np.stack([grid_noise(i) for i in (5, 4, 3, 2, 1, 0)]))
        denoise = getattr(dreamrec, form)(NET, params, jnp.array(H))
        start = jnp.asarray(grid_noise(6))
        chain = process.Chain(steps, denoise, start, samplers.draw_given(given))
        got = jax.jit(lambda: process.run(chain))()
        np.testing.assert_allclose(got, X_FINAL, rtol=1e-8, atol=1e-9)

    @in_float64
    def test_scores_of_the_final_points(self):
        scores = jnp.array(X_FINAL[0]) @ golden_params()["items"][: ITEMS + 1].T
        # released order: items 0..4, then padding; here padding is first
        want = [
            1.4744414334,
            0.2563912709,
            -1.4279466074,
            -0.5153397479,
            1.3344932232,
            0.7573410847,
        ]
        np.testing.assert_allclose(np.roll(scores, -1), want, rtol=1e-8)

    @parameterized.parameters(("mse", 1.4030476945), ("l1", 1.0500639639), ("huber", 0.6145322760))
    @in_float64
    def test_loss(self, name, want):
        params = golden_params()
        betas = schedules.linear(6, start=1e-4, stop=0.3)
        bar = np.cumprod(1.0 - betas)
        t, x0 = np.array([0, 3, 5]), params["items"][np.array([2, 4, 1])]
        eps = np.cos(np.arange(3)[:, None] + np.arange(D)[None, :])
        xt = np.sqrt(bar[t])[:, None] * x0 + np.sqrt(1 - bar[t])[:, None] * eps
        out = apply("denoise", xt, jnp.asarray(t), jnp.array(H))
        np.testing.assert_allclose(jnp.mean(getattr(losses, name)(out, x0)), want, rtol=1e-9)

    @parameterized.parameters("mlp1", "mlp2")
    @in_float64
    def test_folding_equals_two_calls(self, denoiser):
        config = dreamrec.DreamRecConfig(width=8, num_steps=7, denoiser=denoiser)
        net = dreamrec.DreamRecNet(num_items=9, max_len=4, config=config)
        init = jax.jit(net.init)
        params = init(jax.random.key(0), jnp.ones((2, 4), int), jnp.ones(2, int))["params"]
        cond, xt = jax.random.normal(jax.random.key(1), (2, 3, 8))
        for t in (0, 6):
            one = jax.jit(dreamrec.folded(net, params, cond))(xt, jnp.int32(t))
            two = jax.jit(dreamrec.two_calls(net, params, cond))(xt, jnp.int32(t))
            np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)

    @in_float64
    def test_padding_row_and_places_after_the_history_do_not_matter(self):
        params = golden_params()
        other = params | {"items": params["items"].at[0].set(99.0)}
        np.testing.assert_array_equal(apply("encode", SEQ, params=other), apply("encode", SEQ))
        swapped = SEQ.at[0].set(jnp.array([4, 1, 2]))
        assert not np.allclose(apply("encode", swapped)[0], apply("encode", SEQ)[0])


def test_sinusoids_are_the_released_ones():
    with jax.enable_x64(True):
        first = sinusoidal(jnp.array([0, 10]), 64)
        np.testing.assert_array_equal(first[0], np.r_[np.zeros(32), np.ones(32)])
        want = [-0.544021110889, 0.911309790752, -0.69125978005, -0.818924458346]
        np.testing.assert_allclose(first[1, :4], want, rtol=1e-9)
        np.testing.assert_allclose(first[1, 31], 0.000999999833333, rtol=1e-9)
        np.testing.assert_allclose(
            first[1, 32:35], [-0.839071529076, 0.411721344211, 0.722606335764], rtol=1e-9
        )
        want = [0.656986598719, 0.319224650606, 0.0150804711701, 0.000699999942833, 0.753902254343]
        want += [0.94767907147, 0.999886283229, 0.999999755]
        np.testing.assert_allclose(sinusoidal(jnp.array(7), 8), want, rtol=1e-8)
        other = [-0.9899924966, 0.955336489126, 0.999550033749, 0.999995500003]
        other += [0.14112000806, 0.295520206661, 0.0299955002025, 0.0029999955]
        got = sinusoidal(jnp.array(3), 8, variant="cos_sin")
        np.testing.assert_allclose(got, other, rtol=1e-9)
        assert sinusoidal(jnp.array(3), 7).shape == (7,)
        np.testing.assert_allclose(jnp.sum(sinusoidal(jnp.arange(500), 64) ** 2, -1), 32.0)


def test_zhihu_has_the_published_number_of_parameters():
    net = dreamrec.DreamRecNet(4838, 10, dreamrec.DreamRecConfig())
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 10), int), jnp.ones(1, int))
    assert (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) - filling(4839, 64)
        == 360_640
    )


def test_guidance_is_the_papers():
    cond, null = jnp.array([1.0, 0.0]), jnp.array([0.5, 1.0])
    guided = guidance.classifier_free(lambda x, t: cond, lambda x, t: null, 2.0)
    np.testing.assert_allclose(guided(cond, 0), [2.0, -2.0])


def _model(**changes):
    settings = {"width": 8, "num_steps": 5, "beta_stop": 0.3, "guidance_weight": 1.0} | changes
    spec = DataSpec(num_users=4, num_items=7, max_len=4)
    return compiled(dreamrec.build(dreamrec.DreamRecConfig(**settings), spec))


def _example(rows=6):
    key = jax.random.key(3)
    seq = jax.random.randint(key, (rows, 4), 1, 8)
    seq = jnp.where(jnp.arange(4) < jnp.arange(rows)[:, None] % 5, seq, 0)
    target = jax.random.randint(key, (rows,), 1, 8)
    return Sequences(seq, target, jnp.ones(rows), jnp.arange(rows, dtype=jnp.int32))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_closed_form_has_the_law_of_the_loop(temperature):
    example = _example()
    params = _model().init(jax.random.key(0), example).params
    rows = 20_000
    query = SequenceQuery(jnp.tile(example.seq[:1] + 1, (rows, 1)), jnp.arange(rows))
    points = {}
    for kind in ("ddpm", "closed_form"):
        sampler = SamplerConfig(kind=kind, temperature=temperature)
        sample = _model(sampler=sampler).sample
        points[kind] = np.asarray(sample(params, (), jax.random.key(1), query))
    got, want = points["closed_form"], points["ddpm"]
    if temperature == 0.0:
        # x_T still varies in the loop; the closed form with z = 0 is the mean over it
        np.testing.assert_allclose(got, np.broadcast_to(got[:1], got.shape), atol=1e-5)
        error = want.std(0) / math.sqrt(rows)
        assert (abs(got[0] - want.mean(0)) < 5 * error + 1e-6).all()
        return
    error = want.std(0) / math.sqrt(rows)
    assert (abs(got.mean(0) - want.mean(0)) < 7 * error).all()
    scale = np.sqrt(np.outer(np.diag(np.cov(want.T)), np.diag(np.cov(want.T))))
    assert (abs(np.cov(got.T) - np.cov(want.T)) < 7 * scale * math.sqrt(2 / rows)).all()


def test_frozen_targets_get_no_gradient_and_learned_ones_do():
    example = _example()._replace(seq=jnp.zeros((6, 4), jnp.int32))
    for mode, moves in (("frozen", False), ("learned", True)):
        model = _model(item_embedding=mode)
        variables = model.init(jax.random.key(0), example)
        grads = jax.grad(lambda p, m=model: m.loss(p, (), jax.random.key(1), example)[0])(
            variables.params
        )
        touched = np.abs(grads["items"][np.unique(example.target)]).sum(1) > 0
        assert touched.all() == moves and touched.any() == moves
        np.testing.assert_array_equal(grads["items"][0], 0.0)  # padding


def test_the_condition_is_dropped_at_the_stated_rate():
    model = _model(drop_rate=1.0)
    example = _example(64)
    params = model.init(jax.random.key(0), example).params
    grads = jax.grad(lambda p: model.loss(p, (), jax.random.key(1), example)[0])(params)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(grads["block"]))
    assert float(jnp.abs(grads["null"]).max()) > 0.0


def test_official_protocol_ranks_the_padding_row_last_and_keeps_dropout():
    spec = DataSpec(num_users=4, num_items=7, max_len=4)
    config = dreamrec.DreamRecConfig(width=8, num_steps=5, dropout_rate=0.5)
    honest = compiled(dreamrec.build(config, spec))
    official = compiled(dreamrec.build(config, spec, protocol="official"))
    params = honest.init(jax.random.key(0), _example()).params
    table = official.head(params, ()).table
    assert table.shape == (8, 8) and rank.item_rows(honest.head(params, ())).shape == (7, 8)
    np.testing.assert_array_equal(table[-1], params["items"][0])
    query = SequenceQuery(_example().seq, jnp.arange(6))
    draws = [m.sample(params, (), jax.random.key(1), query) for m in (honest, official)]
    assert not np.allclose(draws[0][4], draws[1][4])


def full_block(params, x, mask, heads):
    """The whole block at every place, as it reads in the release, then the last real place."""

    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    x = x * mask[..., None]
    normed = norm(x, params["norm_in"])
    query, key, value = (
        dense(normed, params["query"]),
        dense(x, params["key"]),
        dense(x, params["value"]),
    )
    batch, length, width = x.shape
    size = width // heads
    attended = np.zeros_like(x)
    for b in range(batch):
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            for i in range(length):
                scores = query[b, i, own] @ key[b, :, own].T / np.sqrt(width)
                scores = np.where((np.arange(length) <= i) & mask[b], scores, -(2.0**32) + 1)
                weights = np.exp(scores - scores.max())
                attended[b, i, own] = mask[b, i] * (weights / weights.sum()) @ value[b, :, own]
    inner = norm(attended + normed, params["norm_attention"])
    hidden = dense(np.maximum(dense(inner, params["feed_in"]), 0), params["feed_out"])
    out = norm(norm(hidden + inner, params["norm_feed"]) * mask[..., None], params["norm_out"])
    return out[np.arange(batch), np.maximum(mask.sum(-1) - 1, 0)]


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_last_place_alone_equals_the_block_at_every_place(heads):
    with jax.enable_x64(True):
        rng = np.random.default_rng(heads)
        x = rng.normal(size=(4, 5, 8))
        mask = np.arange(5) < np.array([[5], [3], [1], [0]])
        block = HistoryBlock(width=8, num_heads=heads)
        init = functools.partial(block.init, deterministic=True)
        like = jax.eval_shape(init, jax.random.key(0), x, mask)["params"]
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), like)
        found = applied(block)({"params": params}, x, mask, deterministic=True)
        np.testing.assert_allclose(
            found, full_block(params, x, mask, heads), rtol=1e-10, atol=1e-12
        )
