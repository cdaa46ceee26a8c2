"""PreferDiff against numbers of an independent implementation in float64, which agree with the
released network's (d = 4)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxrec_diff import losses
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import closed_form, forward, process, samplers, schedules
from jaxrec_diff.diffusion.config import SamplerConfig, plan
from jaxrec_diff.models import dreamrec, preferdiff
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.preferdiff import PreferDiffConfig
from tests.models.compiled import applied
from tests.models.tables import filling, padded

D, ITEMS, LENGTH, T = 4, 6, 3, 20
STRIDE = SamplerConfig(kind="ddim", steps=5, spacing="strided")
CONFIG = PreferDiffConfig(
    width=D, num_steps=T, beta_stop=0.3, dropout_rate=0.0, sampler=STRIDE, network_t="official"
)
SPEC = DataSpec(num_users=0, num_items=ITEMS, max_len=LENGTH)
SEQ = jnp.array([[1, 4, 2], [3, 5, 0], [6, 0, 0]])
TARGET = jnp.array([2, 4, 1])
STEP = np.array([0, 7, 19])
H = [
    [0.9308039099, 1.2681476900, 0.9345904013, -1.4637370443],
    [-1.1340590919, 0.8879238487, 0.8078162498, 1.3658934198],
    [1.7193603660, 1.0145178362, -0.0442128667, -1.0572653052],
]
OTHERS = [
    [0.2078952967, 0.2731764718, 0.301484493, 0.2889880023],
    [0.2439092238, 0.1271618737, -0.0067962395, -0.1398345135],
    [-0.0452170805, -0.0433428388, -0.0356023471, -0.0230432448],
]
X0_HAT = [
    [0.0734587724, -0.8138394776, 1.2158864182, 1.2599181149],
    [0.0786770834, -0.4424464672, 1.0108340791, 0.9988568388],
    [0.3061799369, -0.9397405264, 1.0509083534, 1.4745882852],
]
OTHERS_HAT = [
    [-0.4458743103, -1.4620881061, 2.0840201811, 1.4410533031],
    [0.2154819277, -0.2447408551, 0.7676505262, 0.9320000784],
    [-0.0013952977, -1.7641893497, 1.8020916386, 1.894850768],
]
X_FINAL = [
    [-0.015019305, -3.9918870905, 3.0143645179, 3.4702654397],
    [2.0648655904, -1.5469104773, -0.3810796681, 2.8522625982],
    [-0.3325696415, -4.185288046, 3.4359773729, 3.4368107659],
]


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def filled(number, shape, scale=False):
    """Tensor `number` of the recipe, in the released [out, in] layout."""
    values = 0.5 * np.sin(1.7 * number + 0.37 * np.arange(math.prod(shape)) + 0.2)
    return (1.0 + 0.2 * values if scale else values).reshape(shape)


def dense(number, out, inside):
    return {"kernel": filled(number, (out, inside)).T, "bias": filled(number + 1, (out,))}


def norm(number):
    return {"scale": filled(number, (D,), scale=True), "bias": filled(number + 1, (D,))}


def golden_params():
    tree = {
        "items": filled(0, (ITEMS + 1, D)),
        "null": filled(1, (1, D)),
        "positions": filled(2, (LENGTH, D)),
        "block": {
            "norm_in": norm(3), "norm_attention": norm(5), "norm_out": norm(7),
            "query": dense(9, D, D), "key": dense(11, D, D), "value": dense(13, D, D),
            "feed_in": dense(15, D, D), "feed_out": dense(17, D, D), "norm_feed": norm(19),
        },
        "step": {"inner": dense(21, 2 * D, D), "outer": dense(23, D, 2 * D)},
        "outer": dense(25, D, 3 * D),
    }  # fmt: skip
    return padded(jax.tree.map(jnp.asarray, tree), "items")


def parts(**changes):
    """Of the recipe, with float64 tables under x64."""
    config = PreferDiffConfig(**(vars(CONFIG) | changes))
    return preferdiff.parts(config, SPEC)


def apply(method, *args, params=None):
    return applied(parts().net)({"params": params or golden_params()}, *args, method=method)


def distances(params, name):
    """D of every target and of every mean of others, under the oracle's noise and conditions."""
    made = parts()
    rows, columns = np.arange(3)[:, None], np.arange(D)[None, :]
    kept = jnp.array([[True], [False], [True]])
    cond = jnp.where(kept, jnp.array(H), params["null"])
    out = []
    x0 = params["items"][TARGET]
    others = preferdiff.others_mean(x0, jnp.ones(3))
    noise = np.cos(rows + columns), np.sin(2 * rows + columns + 1)
    for clean, eps in zip((x0, others), noise, strict=True):
        xt = forward.q_sample(made.base.tables, clean, jnp.asarray(STEP), jnp.asarray(eps))
        hat = made.net.apply({"params": params}, xt, jnp.asarray(STEP), cond, method="denoise")
        out.append((getattr(losses, name)(hat, clean), clean, hat))
    return out


ORACLES = {  # l_pos, l_neg, loss over batch means, loss per example then mean
    "cosine": (1.202641709716, 1.128831215998, 1.017818263236, 3.021768986248),
    "mse": (0.928752076155, 1.654136034975, 0.387251075844, 0.456327305004),
    "l1": (0.801019133194, 1.090875237388, 0.446923477268, 0.485915389223),
    "huber": (0.420274744957, 0.691853830326, 0.305442832830, 0.340474227658),
}


class GoldenNetworkTest(parameterized.TestCase):
    @in_float64
    def test_fill_recipe(self):
        params = golden_params()
        want = [0.0993346654, 0.2698160244, 0.4037790502, 0.4830924758]
        np.testing.assert_allclose(params["items"][0], want, rtol=1e-8)
        want = [-0.47933598, -0.3954557608, -0.2580524596]
        np.testing.assert_allclose(params["outer"]["kernel"][:3, 0], want, rtol=1e-8)

    @in_float64
    def test_history_encoder(self):
        np.testing.assert_allclose(apply("encode", SEQ), H, rtol=1e-9, atol=1e-10)

    @in_float64
    def test_targets_others_and_their_estimates(self):
        (_, _, hat), (_, others, others_hat) = distances(golden_params(), "mse")
        np.testing.assert_allclose(others, OTHERS, rtol=1e-8)
        np.testing.assert_allclose(hat, X0_HAT, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(others_hat, OTHERS_HAT, rtol=1e-8, atol=1e-9)

    @parameterized.parameters(*ORACLES)
    @in_float64
    def test_losses(self, name):
        near, far = (each[0] for each in distances(golden_params(), name))
        found = [near.mean(), far.mean()]
        for over in ("batch", "example"):
            made = parts(preference_over=over)
            found.append(preferdiff.objective(made, near, far, jnp.ones(3)))
        np.testing.assert_allclose(found, ORACLES[name], rtol=1e-10)

    @in_float64
    def test_gradient_of_the_cosine_loss(self):
        params, made = golden_params(), parts()

        def value(items):
            near, far = (each[0] for each in distances(params | {"items": items}, "cosine"))
            return preferdiff.objective(made, near, far, jnp.ones(3))

        got = jax.grad(value)(params["items"])
        want = [
            [0.6555181639, 0.0564287561, 1.1114492948, 0.6254515524],
            [0.0565306839, -3.3235961414, 4.8179938828, 5.705257968],
            [-1.005408449, -5.8771636908, 4.7590689919, 5.1775884225],
        ]
        np.testing.assert_allclose(got[jnp.array([1, 2, 4])], want, rtol=1e-8)
        np.testing.assert_array_equal(got[jnp.array([0, 3, 5, 6])], 0.0)


def walked(made, denoise, start):
    """The points after every row of the path, from the recipe's conditions."""
    steps, _ = float64_path(made)
    chain = process.Chain(steps, denoise, start)
    return jax.jit(lambda: process.trajectory(chain))()


def float64_path(made):
    config = made.config
    betas = schedules.linear(T, start=config.beta_start, stop=config.beta_stop)
    steps, noisy = plan(config.sampler, forward.levels(betas))
    official = config.network_t == "official"
    return (preferdiff.told_one_more(steps) if official else steps), noisy


def start_of_oracle():
    return jnp.asarray(np.sin(6 + 0.5 * np.arange(3)[:, None] + 0.25 * np.arange(D)[None, :]))


class GoldenSamplerTest(parameterized.TestCase):
    @in_float64
    def test_path(self):
        steps, noisy = float64_path(parts())
        assert not noisy
        np.testing.assert_array_equal(steps.t, [20, 15, 10, 5, 0])
        want = [0.2334227837, 0.3645835044, 0.555857309, 0.9761224935, 1.0]
        np.testing.assert_allclose(steps.a, want, rtol=1e-9)
        want = [0.9299981061, 0.794808067, 0.532804281, 0.0258408592, 0.0]
        np.testing.assert_allclose(steps.b, want, rtol=1e-8, atol=1e-12)

    @parameterized.parameters("folded", "two_calls")
    @in_float64
    def test_reverse_chain(self, form):
        made, params = parts(), golden_params()
        if form == "folded":
            visited = (float64_path(made)[0].t,)
        else:
            visited = ()
        denoise = getattr(dreamrec, form)(made.net, params, jnp.array(H), *visited)
        path = walked(made, denoise, start_of_oracle())
        first = [
            [-0.3642727279, -0.6129226824, 0.816414928, 0.9258035845],
            [-0.4174267611, -1.4890651172, 1.626309571, 1.6129840759],
            [-0.3315410005, -2.5849390809, 2.412898489, 2.4305145428],
            [-0.0985484865, -3.6407829353, 2.9064888514, 3.1804916733],
        ]
        np.testing.assert_allclose(path[1:5, 0], first, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(path[-1], X_FINAL, rtol=1e-8, atol=1e-9)
        scores = path[-1, 0] @ params["items"][1 : ITEMS + 1].T
        want = [-0.1854054703, -1.8486513532, -0.1498349723, 1.8214797926, 0.4801480357]
        np.testing.assert_allclose(scores, [*want, -1.7344081878], rtol=1e-8)

    @in_float64
    def test_the_network_told_the_level_it_sees(self):
        made, params = parts(network_t="index"), golden_params()
        steps, _ = float64_path(made)
        np.testing.assert_array_equal(steps.t, [19, 14, 9, 4, 0])
        denoise = dreamrec.folded(made.net, params, jnp.array(H), steps.t)
        want = [-0.0202620914, -3.9904505199, 3.0188343342, 3.466423812]
        got = walked(made, denoise, start_of_oracle())[-1, 0]
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)

    @in_float64
    def test_one_product(self):
        made, params = parts(), golden_params()
        law = preferdiff.path_law(made, params)
        want = [0.0322522053, 0.0429345501, 0.0478059051, 0.046206955]
        np.testing.assert_allclose(law.factor[:, 0], want, rtol=1e-8)  # column vectors there
        user = dreamrec.guided(made.net, params, jnp.array(H))
        mean = closed_form.apply(law, user, jnp.zeros((3, D)))[0]
        want = [-0.0356621763, -3.9397393133, 3.0069484326, 3.4221080075]
        np.testing.assert_allclose(mean, want, rtol=1e-8, atol=1e-9)
        got = closed_form.apply(law, user, start_of_oracle())
        np.testing.assert_allclose(got, X_FINAL, rtol=1e-8, atol=1e-9)
        denoise = dreamrec.two_calls(made.net, params, jnp.array(H))
        loop = walked(made, denoise, start_of_oracle())[-1]
        np.testing.assert_allclose(got, loop, rtol=1e-12, atol=1e-12)


def test_the_published_path():
    levels = forward.levels(schedules.linear(2000, start=1e-4, stop=2e-2))
    grid = schedules.subset(2000, 21, "strided")
    np.testing.assert_array_equal(grid, [0, *range(99, 2000, 100)])
    rows = samplers.ddim_rows(levels, grid[::-1])
    signal = levels.signal[grid] ** 2
    for n, bar, c1, c2 in (
        (1, 0.942425085094, 0.959491779241, 0.0416757426544),
        (2, 0.80391947748, 0.484931900366, 0.541875386514),
        (10, 0.00616053543171, 0.0487366918942, 0.994993688455),
        (19, 1.16799926558e-08, 0.000167010763646, 0.999999968004),
        (20, 1.62884712455e-09, 6.77150366746e-05, 0.999999994974),
    ):
        found = signal[n], rows.a[20 - n], rows.b[20 - n]
        np.testing.assert_allclose(found, (bar, c1, c2), rtol=1e-9)


@pytest.mark.parametrize(
    ("items", "width", "count"),
    [(12_101, 64, 825_472), (12_101, 256, 3_891_712), (12_101, 3072, 150_509_568)],
)
def test_beauty_has_the_released_number_of_parameters(items, width, count):
    net = preferdiff.parts(PreferDiffConfig(width=width), DataSpec(0, items, 10)).net
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 10), int), jnp.ones(1, int))
    found = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert found - filling(items + 1, width) == count


def test_projections_start_xavier_and_the_rest_as_released():
    made = preferdiff.parts(PreferDiffConfig(width=64), DataSpec(0, 9, 5))
    init = jax.jit(functools.partial(preferdiff.init, made))
    block = init(jax.random.key(0), _example(4, length=5, items=9)).params["block"]
    for name in ("query", "key", "value"):
        np.testing.assert_array_equal(block[name]["bias"], 0.0)
        most = float(jnp.abs(block[name]["kernel"]).max())
        assert 0.97 * math.sqrt(6 / 128) < most <= math.sqrt(6 / 128)
    for name in ("feed_in", "feed_out"):
        assert 0.97 / 8 < float(jnp.abs(block[name]["kernel"]).max()) <= 1 / 8
        assert float(jnp.abs(block[name]["bias"]).max()) > 0.9 / 8


def _example(rows=6, length=4, items=7):
    keys = jax.random.split(jax.random.key(3))
    seq = jax.random.randint(keys[0], (rows, length), 1, items + 1)
    seq = jnp.where(jnp.arange(length) <= jnp.arange(rows)[:, None] % length, seq, 0)
    target = jax.random.randint(keys[1], (rows,), 1, items + 1)
    return Sequences(seq, target, jnp.ones(rows), jnp.arange(rows, dtype=jnp.int32))


def _parts(**changes):
    settings = {"width": 8, "num_steps": 5, "beta_stop": 0.3, "dropout_rate": 0.0} | changes
    settings.setdefault("sampler", SamplerConfig(kind="ddim", steps=3, spacing="strided"))
    return preferdiff.parts(PreferDiffConfig(**settings), DataSpec(4, 7, 4))


@functools.cache
def _params():
    """Of the small network, whatever its loss and its path."""
    init = jax.jit(functools.partial(preferdiff.init, _parts()))
    return init(jax.random.key(0), _example()).params


def _value(made, params, example):
    run = jax.jit(functools.partial(preferdiff.loss, made))
    return float(run(params, preferdiff.State(), jax.random.key(5), example)[0])


def test_without_preference_it_is_dreamrecs_objective():
    example, made = _example(), _parts(loss="huber", preference=0.0)
    params = _params()
    base = made.base._replace(
        config=dreamrec.DreamRecConfig(
            width=8, num_heads=2, num_steps=5, beta_stop=0.3, dropout_rate=0.0, loss="huber"
        )
    )
    run = jax.jit(functools.partial(dreamrec.loss, base))
    theirs = run(params, (), jax.random.key(5), example)[0]
    np.testing.assert_allclose(_value(made, params, example), theirs, rtol=1e-6)


def test_the_order_of_a_batch_does_not_matter_and_its_members_do():
    example, made, params = _example(), _parts(), _params()
    value = _value(made, params, example)
    turned = jax.tree.map(lambda leaf: jnp.roll(leaf, 2, axis=0), example)
    np.testing.assert_allclose(_value(made, params, turned), value, rtol=1e-6)
    # another target of one row changes the loss of the others through their mean
    near = example._replace(weight=jnp.array([1.0, 1, 1, 1, 1, 0]))
    assert abs(_value(made, params, near) - value) > 1e-4


def test_others_are_all_real_rows_but_ones_own():
    x0 = np.random.default_rng(0).normal(size=(5, 3))
    weight = np.array([1.0, 1, 0, 1, 1])
    want = [x0[[j for j in (0, 1, 3, 4) if j != b]].mean(axis=0) for b in range(5)]
    want[2] = x0[2]
    got = preferdiff.others_mean(jnp.asarray(x0), jnp.asarray(weight))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    alone = preferdiff.others_mean(jnp.asarray(x0), jnp.asarray([0.0, 1, 0, 0, 0]))
    np.testing.assert_allclose(alone, x0, rtol=1e-6)


def test_a_row_alone_in_a_batch_has_a_gradient():
    example, made, params = _example(1), _parts(), _params()
    loss = functools.partial(preferdiff.loss, made)
    grads = jax.jit(jax.grad(lambda p: loss(p, preferdiff.State(), jax.random.key(1), example)[0]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads(params)))


@pytest.mark.parametrize("over", ["batch", "example"])
def test_devices_that_share_a_batch_have_its_loss_and_its_gradient(over):
    made = _parts(preference_over=over)
    x0, shift = np.random.default_rng(1).normal(size=(2, 8, 3)).astype(np.float32)
    weight = np.array([1.0, 1, 1, 1, 1, 0, 1, 0], np.float32)  # uneven over two devices

    def value(scale, parts, x0, shift, weight):
        x0 = scale * x0
        others = preferdiff.others_mean(x0, weight, parts.axis_name)
        near, far = (losses.mse(clean + shift, clean**2) for clean in (x0, others))
        return preferdiff.objective(parts, near, far, weight)

    def shared(scale, *batch):
        found = jax.value_and_grad(value)(scale, made._replace(axis_name="data"), *batch)
        return jax.lax.pmean(found, "data")

    scale = jnp.float32(0.7)
    want = jax.value_and_grad(value)(scale, made, x0, shift, weight)
    halves = (each.reshape(2, 4, *each.shape[1:]) for each in (x0, shift, weight))
    devices = jax.devices()[:2]
    got = jax.pmap(shared, "data", in_axes=(None, 0, 0, 0), devices=devices)(scale, *halves)
    for one, each in zip(want, got, strict=True):
        np.testing.assert_allclose(each, [one, one], rtol=1e-5)


def test_cosine_does_not_see_lengths():
    estimate, target = jax.random.normal(jax.random.key(0), (2, 5, 4))
    want = losses.cosine(estimate, target)
    np.testing.assert_allclose(losses.cosine(estimate, 7.0 * target), want, rtol=1e-5)
    by_hand = [
        (1 - e @ t / (np.linalg.norm(e) * np.linalg.norm(t))) ** 2
        for e, t in zip(np.asarray(estimate), np.asarray(target), strict=True)
    ]
    np.testing.assert_allclose(want, by_hand, rtol=1e-5)


@pytest.mark.parametrize("start", ["zero", "noise"])
@pytest.mark.parametrize("kind", ["ddim", "mean", "one_step"])
def test_a_product_is_the_walk(kind, start):
    params, query = _params(), SequenceQuery(_example().seq, jnp.arange(6, dtype=jnp.int32))
    points = []
    for reverse in ("product", "walk"):
        sampler = SamplerConfig(kind=kind, steps=0 if kind == "one_step" else 3)
        made = _parts(sampler=sampler, start=start, reverse=reverse)
        assert (preferdiff.path_law(made, params) is None) == (reverse == "walk")
        sample = jax.jit(functools.partial(preferdiff.sample, made))
        points.append(sample(params, preferdiff.State(), jax.random.key(1), query))
    np.testing.assert_allclose(*points, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["heun", "dpmpp"])
def test_a_path_that_looks_back_is_walked(kind):
    made = _parts(sampler=SamplerConfig(kind=kind, steps=3))
    assert preferdiff.path_law(made, _params()) is None


def test_without_x_t_is_a_call_of_a_network_that_does_not_see_it():
    example, made, params = _example(), _parts(), _params()
    query = SequenceQuery(example.seq, example.row_id)
    blind = params["outer"]["kernel"].at[:8].set(0.0)
    params |= {"outer": params["outer"] | {"kernel": blind}}
    cond = made.net.apply({"params": params}, query.seq, method="encode")
    denoise = dreamrec.two_calls(made.net, params, cond)
    want = denoise(jnp.full((6, 8), 3.0), jnp.int32(0))
    got = preferdiff.without_x_t(made, params, preferdiff.State(), query)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"preference": 1.2}, "nearest valid value is 1"),
        ({"gamma": 0.0}, "model.gamma must be above 0"),
        ({"width": 6}, "multiple of 4"),
        ({"num_steps": 10}, "model.sampler.steps .*nearest valid value is 10"),
        ({"num_heads": 0}, "model.num-heads must be at least 1"),
    ],
)
def test_bad_settings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        PreferDiffConfig(**changes)


def test_the_released_protocol_ranks_items_only():
    model = preferdiff.build(PreferDiffConfig(width=8), DataSpec(4, 7, 4), protocol="official")
    head = model.head(_params(), preferdiff.State())
    assert (head.first, head.items) == (1, 7)
