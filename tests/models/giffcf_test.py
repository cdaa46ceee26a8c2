"""GiffCF against figures of an independent numpy program, in float64, and plain dense loops."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.models import giffcf
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.giffcf import GiffCFConfig
from jaxrec_diff.ops import filled, ragged, rng

X = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]], np.float64)
ITEMS, WIDTH = 4, 3
ROW, SEEN, USER = (
    np.array([[1, 2, 0]], np.int32),
    np.array([[1.0, 1.0, 0.0]]),
    np.zeros(1, np.int32),
)
KEPT = np.array([[2.0, 0.0, 0.0]])  # what dropout left of the row, twice as much
FULL = {
    1.0: [0.483611405941, 0.512608138108, 0.617831596709, 0.534012638795],
    0.5: [0.103134168349, 0.106934650348, 0.0779697409741, 0.0673726048777],
    0.0: [0.0496288478769, 0.0498858620516, 0.00163089603484, 0.00143717883123],
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def spec_of(x):
    counts = x.sum(axis=1).astype(int)
    stop = np.cumsum(counts)
    flat = (np.nonzero(x)[1] + 1).astype(np.int32)
    own = ragged.make(flat, stop - counts, stop, stop)
    return DataSpec(*x.shape, max_len=3, user_items=own)


def layer(number, inputs, outputs):
    a, b = np.arange(inputs)[:, None], np.arange(outputs)
    return 0.3 * np.sin(number + a + 2 * b), 0.01 * np.cos(number + np.arange(outputs))


def network():
    """The parameters of the published figures."""
    names = ("kernel", "bias")
    table = 0.1 * np.sin(1 + np.arange(ITEMS)[:, None] + 2 * np.arange(WIDTH))

    def steps(first):
        made = layer(first, 20, 20), layer(first + 1, 20, 1)
        return {
            name: dict(zip(names, each, strict=True))
            for name, each in zip(("inner", "outer"), made, strict=True)
        }

    def mixer(first, inputs):
        (inner, inner_bias), (outer, outer_bias) = layer(first, inputs, 2), layer(first + 1, 2, 1)
        return {
            "inner_kernel": inner, "inner_bias": inner_bias,
            "outer_kernel": outer, "outer_bias": outer_bias,
        }  # fmt: skip

    return jax.tree.map(
        jnp.asarray,
        {
            "items": filled.padded(table), "code_step": steps(1), "item_step": steps(3),
            "code_mixer": mixer(5, 3), "item_mixer": mixer(7, 4),
        },
    )  # fmt: skip


def made(x=X, **settings):
    parts = giffcf.parts(GiffCFConfig(**({"width": WIDTH} | settings)), spec_of(x))
    example = Interactions(ROW, SEEN, USER, jnp.ones(1), USER)
    params, state = jax.jit(partial(giffcf.init, parts))(jax.random.key(0), example)
    return parts, params, state


def sampled(parts, params, state, query):
    return jax.jit(partial(giffcf.sample, parts))(params, state, jax.random.key(0), query)


def smoothed(parts, state, x):
    return jax.jit(partial(giffcf.smooth, parts))(state, x)


def rows(x):
    """Rows f64[B, I] as ids and values."""
    items = np.where(x != 0, np.arange(1, x.shape[1] + 1), 0)
    order = np.argsort(items == 0, axis=1, kind="stable")
    place = jnp.arange(len(x))
    return InteractionQuery(
        *(jnp.asarray(np.take_along_axis(each, order, axis=1)) for each in (items, x)), place, place
    )


def at_step(parts, state, key, x, t):
    u, v = giffcf.blurred(parts, key, USER, x, jnp.array([t]))
    return u + smoothed(parts, state, v)


def test_rows_are_blurred_along_the_graph():
    parts, _, state = made()
    x = jnp.asarray(filled.padded(X[:1].T).T)
    states = [
        [0.819247801595, 0.829299066177, 0.216296310037, 0.187011032417],
        [0.63849560319, 0.658598132353, 0.432592620074, 0.374022064833],
        [0.457743404785, 0.48789719853, 0.648888930111, 0.56103309725],
    ]
    for t, want in enumerate(states):
        got = at_step(parts, state, jax.random.key(0), x, t)
        np.testing.assert_allclose(got[0, :ITEMS], want, rtol=1e-11)
        assert not got[0, ITEMS:].any()


def test_noise_falls_by_the_decay_and_touches_items_alone():
    plain, _, state = made()
    parts, _, _ = made(noise_scale=0.2, noise_decay=0.5)
    x, key = jnp.asarray(filled.padded(X[:1].T).T), jax.random.key(3)
    eps = rng.normal(key, USER, (ITEMS,))
    for t, deviation in enumerate((0.05, 0.1, 0.2)):
        more, less = (at_step(each, state, key, x, t) for each in (parts, plain))
        np.testing.assert_allclose((more - less)[0, :ITEMS], deviation * eps[0], rtol=1e-12)
        assert not more[0, ITEMS:].any()


@pytest.mark.parametrize(
    ("decay", "want"),
    [
        (0.5, [(0.25, 0.25, 0.5), (0.5, 0, 0.5), (0.75, -0.25, 0.5)]),
        (1.0, [(0.5, -0.5, 1)] * 3),
        (0.0, [(0, 1, 0), (0.5, 0.5, 0), (1, 0, 0)]),
    ],
)
def test_moves_are_the_published_table(decay, want):
    found = giffcf.path(GiffCFConfig(noise_decay=decay))
    assert found.t.tolist() == [2, 1, 0]
    np.testing.assert_allclose(np.stack(found[1:], axis=1), want, atol=1e-15)


def test_fewer_steps_make_longer_moves():
    sampler = SamplerConfig(kind="mean", steps=2)
    found = giffcf.path(GiffCFConfig(num_steps=5, noise_decay=0.5, sampler=sampler))
    assert found.t.tolist() == [4, 1]  # of the paper: 5, 2 and 0
    np.testing.assert_allclose(found.b, [0.5**3, 0.5**2])
    np.testing.assert_allclose(found.q, [0.6 - 0.125 * 1.5, -0.25 * 0.6])
    np.testing.assert_allclose(sum(found[1:]), 1.0)


def test_the_denoiser_on_a_small_graph():
    parts, _, state = made()
    params = network()
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) - 252 * WIDTH == 918
    for t, first, second in zip(
        range(3),
        (0.0720168158664, 0.151497468842, 0.160005783081),
        (-0.0389163396838, 0.00300218054174, 0.031760048901),
        strict=True,
    ):
        found = parts.net.apply(
            {"params": params},
            jnp.int32(t),
            method=lambda net, t: (net.code_step(t), net.item_step(t)),
        )
        np.testing.assert_allclose(np.ravel(found), [first, second], rtol=1e-10)
    once = dataclasses.replace(parts.config, sampler=SamplerConfig(kind="one_step"))
    parts = parts._replace(config=once, path=giffcf.path(once))
    query = InteractionQuery(ROW, SEEN, USER, USER)
    got = sampled(parts, params, state, query)[0, :ITEMS]
    want = [0.0468167168128, 0.047078184959, -0.000794019335778, -0.00099043881959]
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_the_error_of_a_training_row():
    parts, _, state = made()
    example = Interactions(ROW, SEEN, USER, jnp.ones(1), USER)
    error = jax.jit(partial(giffcf.error, parts))
    each = error(network(), state, jax.random.key(0), example, KEPT, jnp.array([1]))
    np.testing.assert_allclose(each, [1.79091096748], rtol=1e-10)


@pytest.mark.parametrize("decay", sorted(FULL))
@pytest.mark.parametrize("prepared", [False, True])
def test_the_sampler_on_a_small_graph(decay, prepared):
    parts, _, state = made(noise_decay=decay)
    params = network()
    if prepared:
        state = giffcf.precompute(parts, params, state)
    query = InteractionQuery(ROW, SEEN, USER, USER)
    got = sampled(parts, params, state, query)
    np.testing.assert_allclose(got[0, :ITEMS], FULL[decay], rtol=1e-9)


def plain(parts, params, state, x, *, scale=None, stop=False):
    """The sampler as it is printed, S applied at every step; `stop` returns the first estimate."""
    config, s = parts.config, dense_filter(parts, state)
    levels = config.alpha * np.arange(config.num_steps + 1) / config.num_steps
    wide = filled.rows(parts.num_items) - parts.num_items
    applied = jax.jit(partial(parts.net.apply, {"params": params}))

    def blurred(z, t):
        return (1 - levels[t]) * z + levels[t] * z @ s

    def restored(z, t):
        full = [jnp.asarray(np.pad(each, ((0, 0), (0, wide)))) for each in (z, x, x @ s)]
        length = np.maximum(np.abs(x).sum(axis=1, keepdims=True), 1)
        divided = parts.num_items if config.state_scale == "items" else length
        code = full[1] @ params["items"] / (length if config.history_norm == "l1" else 1.0)
        state_code = full[0] @ params["items"] / (divided if scale is None else scale)
        out = applied(state_code, code, *full[1:], jnp.int32(t - 1))
        return np.asarray(out)[:, : parts.num_items]

    z = blurred(x, config.num_steps)
    for t in range(config.num_steps, 0, -1):
        x_hat = restored(z, t)
        if stop:
            return x_hat
        z = blurred(x_hat, t - 1) + config.noise_decay * (z - blurred(x_hat, t))
    return z


def dense_filter(parts, state):
    eye = jnp.asarray(filled.padded(np.eye(parts.num_items).T).T)
    return np.asarray(smoothed(parts, state, eye))[:, : parts.num_items]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_steps": 5, "noise_decay": 0.3, "ideal_weight": 0.2, "ideal_cutoff": 4},
        {"num_steps": 1, "state_scale": "length", "history_norm": "none"},
        {"noise_decay": 1.0, "alpha": 0.5},
    ],
)
def test_one_product_at_the_end_is_the_plain_sampler(settings):
    x = (np.random.default_rng(0).random((20, 15)) < 0.3).astype(float)
    x[:, 3] = 0
    parts, params, state = made(x, init_scale=5.0, **settings)
    asked = np.vstack([x[:6], np.zeros(15)])
    got = sampled(parts, params, state, rows(asked))
    np.testing.assert_allclose(got[:, :15], plain(parts, params, state, asked), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_a_network_that_knows_the_row_finds_it_and_another_leaves_its_share(decay, monkeypatch):
    parts, params, state = made(noise_decay=decay)

    def ended(answer):
        wide = jnp.asarray(np.pad(answer, ((0, 0), (0, 252))))
        monkeypatch.setattr(giffcf, "call", lambda *args: wide)
        return sampled(parts, params, state, rows(X))[:, :ITEMS]

    np.testing.assert_allclose(ended(X), X, rtol=0, atol=1e-14)
    k, s = np.tile([0.1, 0.2, 0.3, 0.4], (3, 1)), dense_filter(parts, state)
    left = -0.5 * (X - k) + 1.5 * (X - k) @ s  # F_3 of the difference
    got = ended(k)
    np.testing.assert_allclose(got, k + decay**3 * left, rtol=0, atol=1e-14)
    if decay == 0.5:
        want = [0.122482470342, 0.225418392807, 0.351154299141, 0.451542638514]
        np.testing.assert_allclose(got[0], want, rtol=1e-11)


def test_variants_are_the_same_model_without_its_diffusion():
    x = (np.random.default_rng(1).random((12, 9)) < 0.4).astype(float)
    parts, params, state = made(x, init_scale=5.0)
    found = {
        name: np.asarray(jax.jit(variant)(params, state, rows(x)))[:, :9]
        for name, variant in giffcf.variants(parts).items()
    }
    whole = plain(parts, params, state, x)
    np.testing.assert_allclose(found["graph only"], x @ dense_filter(parts, state), rtol=1e-12)
    blind = plain(parts, params, state, x, scale=np.inf)
    np.testing.assert_allclose(found["no state"], blind, rtol=0, atol=1e-13)
    assert np.abs(blind - whole).max() > 1e-6
    np.testing.assert_allclose(
        found["one call"], plain(parts, params, state, x, stop=True), rtol=0, atol=1e-13
    )


def test_no_row_is_smoothed_inside_the_walk():
    parts, params, state = made()
    state = giffcf.precompute(parts, params, state)
    made_chain = giffcf.walk(parts, params, state, rows(X))
    text = str(jax.make_jaxpr(lambda z: made_chain.denoise(z, jnp.int32(1)))(made_chain.start))
    assert "bcsr" not in text and "scatter" not in text
    ends = {}
    for steps in (3, 30):
        longer, _, extra = made(num_steps=steps)
        run = jax.make_jaxpr(lambda p, parts=longer, s=extra: sampled(parts, p, s, rows(X)))
        ends[steps] = len(str(run(params).jaxpr).splitlines())
    assert ends[3] == ends[30]


@pytest.mark.parametrize(
    ("sizes", "want"),
    [((5949, 2810), 562_906), ((54574, 34395), 6_879_906), ((108822, 94949), 18_990_706)],
)
def test_parameters_are_counted_as_published(sizes, want):
    users, items = sizes
    own = ragged.make(np.array([1], np.int32), *np.array([[0], [1], [1]]))
    parts = giffcf.parts(GiffCFConfig(), DataSpec(users, items, max_len=2, user_items=own))
    code, wide = jnp.zeros((1, 200)), jnp.zeros((1, filled.rows(items)))
    params = jax.eval_shape(
        lambda key: parts.net.init(key, code, code, wide, wide, jnp.zeros(1, jnp.int32)),
        jax.random.key(0),
    )["params"]
    spare = (filled.rows(items) - items) * 200
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) - spare == want


def test_rows_that_fill_the_table_get_no_gradient():
    parts, params, state = made(noise_scale=0.3)
    example = Interactions(ROW, SEEN, USER, jnp.ones(1), USER)
    graded = jax.jit(jax.grad(partial(giffcf.loss, parts), has_aux=True))
    items = np.asarray(graded(params, state, jax.random.key(0), example)[0]["items"])
    assert not items[ITEMS:].any() and items[:ITEMS].any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"alpha": 0.0}, "model.alpha must be above 0"),
        ({"noise_decay": 1.5}, "nearest valid value is 1"),
        ({"sampler": SamplerConfig(kind="ddpm")}, "take mean or one_step"),
        ({"sampler": SamplerConfig(kind="ddim", eta=0.5)}, "the nearest is 0"),
        ({"sampler": SamplerConfig(kind="mean", steps=4)}, "nearest valid value is 3"),
    ],
)
def test_settings_are_checked(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        GiffCFConfig(**settings)


def test_data_that_cannot_do_is_refused():
    with pytest.raises(ValueError, match="histories without users"):
        giffcf.parts(GiffCFConfig(), spec_of(X)._replace(user_items=None))
    with pytest.raises(ValueError, match="at most 3"):
        giffcf.parts(GiffCFConfig(ideal_weight=0.2), spec_of(X))
