"""DDRM against float64 values, closed forms and networks written by hand."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import InteractionQuery, Triplets
from jaxrec_diff.diffusion import forward, process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation import rank, topk
from jaxrec_diff.models import ddrm
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.ddrm import DDRMConfig
from jaxrec_diff.nets.guided import GuidedMLP
from jaxrec_diff.ops.ragged import Ragged
from tests.models.compiled import applied, compiled

USERS, ITEMS, WIDTH = 6, 8, 4
KEY = jax.random.key(1)
ROWS = [[1, 2, 3], [3, 4], [7], [8, 1], [2, 5, 7, 1], [6]]

LIGHTGCN_ML1M = dict(num_steps=50, noise_scale=1e-2, noise_min=1e-4, noise_max=1e-3)
MF_ML1M = dict(num_steps=20, noise_scale=1e-4, noise_min=1e-4, noise_max=1e-3)
SGL_ML1M = dict(num_steps=50, noise_scale=1e-3, noise_min=1e-4, noise_max=1e-3)
MF_YELP = dict(num_steps=50, noise_scale=1e-4, noise_min=1e-3, noise_max=1e-1)
MF_AMAZON = dict(num_steps=3, noise_scale=1e-3, noise_min=1e-4, noise_max=1e-3)
LIGHTGCN_YELP = dict(num_steps=30, noise_scale=1e-4, noise_min=1e-4, noise_max=1e-2)
SGL_YELP = dict(num_steps=50, noise_scale=1e-4, noise_min=1e-3, noise_max=1e-2)
SGL_AMAZON = dict(num_steps=3, noise_scale=1e-4, noise_min=1e-4, noise_max=1e-3)


def spec(seed=0, **exports):
    rng = np.random.default_rng(seed)
    stop = np.cumsum([len(row) for row in ROWS])
    start = stop - [len(row) for row in ROWS]
    flat = np.array([item for row in ROWS for item in row], np.int32)
    tables = {
        "users": rng.normal(size=(USERS, WIDTH)).astype(np.float32),
        "items": rng.normal(size=(ITEMS, WIDTH)).astype(np.float32),
    }
    return DataSpec(
        USERS, ITEMS, 5, user_items=Ragged(flat, start, stop, stop), exports=tables | exports
    )


def example(rows=4):
    rng = np.random.default_rng(2)
    user, positive, negative = (jnp.asarray(rng.integers(1, USERS, rows)) for _ in range(3))
    return Triplets(user, positive, negative, jnp.ones(rows), jnp.arange(rows))


def query(users):
    none = jnp.zeros((len(users), 1), jnp.int32)
    return InteractionQuery(none, none * 1.0, jnp.asarray(users), jnp.arange(len(users)))


def copies(which, scale=1.0):
    """Parameters of a network that returns `scale` times its vector x or its guidance c, exactly:
    relu(v) - relu(-v) = v."""
    eye, shape = np.eye(WIDTH), (2 * WIDTH + 10, 2 * WIDTH)
    kernel = np.zeros(shape)
    first = 0 if which == "x" else WIDTH + 10
    kernel[first : first + WIDTH] = np.concatenate([eye, -eye], axis=1)
    return {
        "kernel_in": jnp.asarray(kernel, jnp.float32),
        "bias_in": jnp.zeros(2 * WIDTH),
        "step": {"kernel": jnp.ones((10, 10)), "bias": jnp.ones(10)},
        "outer": {
            "kernel": jnp.asarray(scale * np.concatenate([eye, -eye]), jnp.float32),
            "bias": jnp.zeros(WIDTH),
        },
    }


def small(**kwargs):
    return DDRMConfig(dims=(2 * WIDTH,), dropout_rate=0.0, **(LIGHTGCN_ML1M | kwargs))


def test_schedules_are_the_reference_values():
    def table(settings, t):
        betas = ddrm.betas_of(DDRMConfig(**settings))
        post, rest = (
            forward.posterior(forward.levels(betas)),
            forward.one_minus_alphas_cumprod(betas),
        )
        return betas[t], rest[t], post.c1[t], post.c2[t]

    for settings, t, want in (
        (LIGHTGCN_ML1M, 0, (1e-5, 1e-5, 1.0, 0.0)),
        (LIGHTGCN_ML1M, 1,
         (1.836736529537e-07, 1.018367181616e-05, 0.018036002917, 0.981963997084)),
        (LIGHTGCN_ML1M, 2,
         (1.836736868155e-07, 1.036734363247e-05, 0.017716471845, 0.982283528157)),
        (LIGHTGCN_ML1M, 49,
         (1.836752723250e-07, 1.899991899967e-05, 0.009667069859, 0.990332930143)),
        (MF_ML1M, 1, (4.736842029729e-09, 1.000473679458e-05, 0.000473457567, 0.999526542436)),
        (MF_ML1M, 19, (4.736842473818e-09, 1.008999910079e-05, 0.000469456790, 0.999530543207)),
        (SGL_ML1M, 49, (1.836736496230e-08, 1.089999109005e-05, 0.001685071564, 0.998314928434)),
        (MF_YELP, 49, (2.020427959382e-07, 1.989990198992e-05, 0.010152854327, 0.989847145673)),
    ):  # fmt: skip
        np.testing.assert_allclose(table(settings, t), want, rtol=1e-8, atol=3e-11)
    for settings, c1 in (
        (MF_AMAZON, 0.041284244412),
        (LIGHTGCN_YELP, 0.003106260939),
        (SGL_YELP, None),
        (SGL_AMAZON, 0.004459839483),
    ):
        low, high = (
            Fraction(settings["noise_scale"]) * Fraction(settings[end])
            for end in ("noise_min", "noise_max")
        )
        rest = 1 - (1 - Fraction(1e-5)) * (1 - high) / (1 - low)
        found = table(settings, -1)
        np.testing.assert_allclose(found[1], float(rest), rtol=1e-9)
        if c1 is not None:
            np.testing.assert_allclose(found[2], c1, rtol=1e-8)
    tables = forward.tables(forward.levels(ddrm.betas_of(DDRMConfig(**LIGHTGCN_ML1M))))
    np.testing.assert_allclose(tables.signal[49], 0.9999904999953751, rtol=1e-7)
    np.testing.assert_allclose(
        np.asarray(tables.noise)[[0, 49]], [0.003162277660162, 0.004358889652156], 1e-6
    )


@pytest.mark.parametrize(
    ("settings", "extra", "factor", "want"),
    [
        (LIGHTGCN_ML1M, 0, 0.5, 0.363132778881),
        (LIGHTGCN_ML1M, 12, 0.5, 0.342621211947),
        (MF_ML1M, 0, 0.5, 0.497765348350),
        (SGL_ML1M, 0, 0.5, 0.478922309418),
        (LIGHTGCN_ML1M, 0, 1.0, 1.0),
        (LIGHTGCN_ML1M, 12, 1.0, 1.0),
    ],
)
def test_linear_networks_shrink_the_start_as_computed(settings, extra, factor, want):
    config = DDRMConfig(**settings, extra_steps=extra)
    steps, noisy = ddrm.reverse_steps(config, forward.levels(ddrm.betas_of(config)))
    assert not noisy
    start = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    got = process.run(process.Chain(steps, lambda xt, t: factor * xt, start))
    np.testing.assert_allclose(got, want * start, rtol=3e-5)
    constant = process.run(process.Chain(steps, lambda xt, t: jnp.full_like(xt, 0.7), start))
    np.testing.assert_allclose(constant, 0.7, rtol=1e-6)


@pytest.mark.parametrize(("extra", "want"), [(0, 0.526315664818), (12, 0.468404371355)])
def test_what_is_left_of_the_start_before_the_last_step(extra, want):
    config = DDRMConfig(**LIGHTGCN_ML1M, extra_steps=extra)
    steps, _ = ddrm.reverse_steps(config, forward.levels(ddrm.betas_of(config)))
    assert steps.t.tolist() == list(range(49 + extra, -1, -1))
    before = jax.tree.map(lambda column: column[:-1], steps)
    got = process.run(process.Chain(before, lambda xt, t: jnp.zeros_like(xt), jnp.ones((1, 1))))
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_more_steps_than_levels_repeat_the_last_coefficients():
    config = DDRMConfig(**LIGHTGCN_ML1M, extra_steps=12)
    betas = ddrm.betas_of(config)
    longer, _ = ddrm.reverse_steps(config, forward.levels(betas))
    plain, _ = ddrm.reverse_steps(DDRMConfig(**LIGHTGCN_ML1M), forward.levels(betas))
    network = lambda xt, t: jnp.cos(xt + 0.1 * t)
    start = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    want, post = start, forward.posterior(forward.levels(betas))
    for t in range(61, 49, -1):
        want = post.c1[49] * network(want, t) + post.c2[49] * want
    want = process.run(process.Chain(plain, network, want))
    np.testing.assert_allclose(process.run(process.Chain(longer, network, start)), want, rtol=1e-5)
    assert 62 == int(50 * 1.25) == len(longer.t)


def test_a_network_that_returns_its_guidance_gives_the_backbone():
    model = compiled(ddrm.build(small(), spec()))
    state = model.init(KEY, example()).state
    params = {"user": copies("x"), "item": copies("c")}
    users = np.arange(USERS)
    points = model.sample(params, state, KEY, query(users))
    np.testing.assert_allclose(points, spec().exports["users"], rtol=1e-5, atol=1e-6)
    backbone = model.variants["backbone"](params, state, query(users))
    np.testing.assert_array_equal(backbone, spec().exports["users"])
    table = rank.item_rows(model.head(params, state))
    np.testing.assert_array_equal(table, spec().exports["items"])


@pytest.mark.parametrize("extra", [0, 3])
def test_the_identity_without_noise_gives_the_mean_item(extra):
    model = compiled(ddrm.build(small(start_noise=False, extra_steps=extra), spec()))
    state = model.init(KEY, example()).state
    params = {"user": copies("c"), "item": copies("x")}
    users = np.arange(USERS)
    items = spec().exports["items"].astype(np.float64)
    want = np.array([np.mean([items[i - 1] for i in row], axis=0) for row in ROWS])
    got = model.sample(params, state, KEY, query(users))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.variants["mean_item"](params, state, query(users)), want, rtol=1e-6
    )


def test_the_start_is_noised_to_the_last_level_by_row():
    # with the identity the end is the start
    noisy = small(noise_scale=1.0, noise_min=0.01, noise_max=0.5, beta_fixed=False)
    model = compiled(ddrm.build(noisy, spec()))
    state = model.init(KEY, example()).state
    params = {"user": copies("c"), "item": copies("x")}
    asked = query(np.zeros(4000, np.int32))
    sample = model.sample
    got = np.asarray(sample(params, state, KEY, asked), np.float64)
    centre = np.sqrt(0.5) * np.asarray(state.means[0], np.float64)
    # products of c1 + c2 fall a little short of 1 once levels are large
    steps, _ = ddrm.reverse_steps(noisy, forward.levels(ddrm.betas_of(noisy)))
    shrink = float(np.prod(np.asarray(steps.a, np.float64) + np.asarray(steps.b, np.float64)))
    np.testing.assert_allclose(got.mean(axis=0), shrink * centre, atol=0.04)
    np.testing.assert_allclose(got.std(axis=0), shrink * np.sqrt(0.5), rtol=0.05)
    part = jax.tree.map(lambda x: x[5:8], asked)
    np.testing.assert_allclose(sample(params, state, KEY, part), got[5:8], rtol=1e-5)


def pair_of_vectors():
    """a and b with a.b = 1.5 and a mean squared difference of .065, n with b.n = .5."""
    middle, half = np.zeros(WIDTH), np.zeros(WIDTH)
    half[1] = np.sqrt(0.065 * WIDTH) / 2
    middle[0] = np.sqrt(1.5 + half @ half)
    a, b = middle + half, middle - half
    return a, b, 0.5 * b / (b @ b)


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        (dict(reconstruction=0.4, gamma=1.0), 0.174925792432),
        (dict(reconstruction=0.4, gamma=0.0), 0.213957012511),
        (dict(reconstruction=0.0), 0.313261687518),
        (dict(reconstruction=1.0), 0.065),
        (dict(reconstruction=0.4, gamma=1.0, reweight="none"), 0.213957012511),
        # alone in its batch an example has the mean weight
        (dict(reconstruction=0.4, gamma=1.0, reweight="softmax"), 0.213957012511),
    ],
)
def test_loss_of_the_reference_example(settings, want):
    a, b, n = pair_of_vectors()
    users, items = np.zeros((USERS, WIDTH)), np.zeros((ITEMS, WIDTH))
    users[2], items[4], items[6] = a, b, n
    tables = {"users": users.astype(np.float32), "items": items.astype(np.float32)}
    model = compiled(ddrm.build(small(**settings), spec(**tables)))
    state = model.init(KEY, example()).state
    # each network returns its guidance: the user is restored as b and the item as a
    params = {"user": copies("c"), "item": copies("c")}
    rows = Triplets(*(jnp.array([value]) for value in (2, 5, 7)), jnp.ones(1), jnp.arange(1))
    value, aux = model.loss(params, state, KEY, rows)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["bpr"], 0.313261687518, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["reconstruction"], 0.065, rtol=1e-5)


def test_weights_of_the_reference_scores():
    one = jnp.ones(1)
    for score, gamma, want in (
        (0.0, 1.0, 0.5),
        (2.0, 0.3, 0.962637463966),
        (-1.0, 0.9, 0.306684570034),
        (0.5, 0.05, 0.976574880360),
        (-3.0, 0.0, 1.0),
    ):
        got = ddrm.pair_weights(DDRMConfig(gamma=gamma), score * one, one)
        np.testing.assert_allclose(got, want, rtol=1e-6)
    score, weight = jnp.array([1.0, -2.0, 0.5, 90.0]), jnp.array([1.0, 1.0, 1.0, 0.0])
    config = DDRMConfig(reweight="softmax", gamma=0.7)
    raw = np.exp(0.7 * np.array([1.0, -2.0, 0.5]))
    got = ddrm.pair_weights(config, score, weight)
    np.testing.assert_allclose(got, np.append(3 * raw / raw.sum(), 0.0), rtol=1e-6)
    for reweight in ("sigmoid_pow", "softmax"):
        config = DDRMConfig(reweight=reweight, gamma=0.7)
        slope = jax.grad(lambda s, c=config: jnp.sum(ddrm.pair_weights(c, s, weight) * 2.0))(score)
        np.testing.assert_array_equal(slope, 0.0)


def test_the_two_sides_are_noised_apart():
    # Vectors of zeros and networks that return what they see: the restored pair is its noise.
    flat = dict(noise_scale=1.0, noise_min=0.49, noise_max=0.5, beta_fixed=False)
    zeros = {
        name: np.zeros((n, WIDTH), np.float32) for name, n in (("users", USERS), ("items", ITEMS))
    }
    model = compiled(ddrm.build(small(**flat), spec(**zeros)))
    state, rows = model.init(KEY, example()).state, example(8000)
    params = {"user": copies("x"), "item": copies("x")}
    metrics = model.loss(params, state, KEY, rows)[1].metrics
    np.testing.assert_allclose(metrics["reconstruction"], 0.495, rtol=0.03)
    first, second = np.sqrt(0.495) * np.random.default_rng(5).normal(size=(2, 200_000, WIDTH))
    apart, same = (np.mean(np.log1p(np.exp(-(first * x).sum(axis=1)))) for x in (second, first))
    np.testing.assert_allclose(metrics["bpr"], apart, atol=0.03)
    assert abs(apart - same) > 0.3


def test_the_network_is_the_concatenation_x_time_guidance():
    net = GuidedMLP(3, (4, 6), "sigmoid")
    rng = np.random.default_rng(0)
    x, cond = rng.normal(size=(2, 5, 3)).astype(np.float32)
    t = np.array([0, 1, 7, 49, 61])
    given = [jnp.asarray(each) for each in (x, t, cond)]
    params = jax.jit(net.init)(KEY, *given)["params"]
    got = applied(net)({"params": params}, *given)
    host = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    affine = lambda z, layer: z @ host[layer]["kernel"] + host[layer]["bias"]
    sigmoid = lambda z: 1.0 / (1.0 + np.exp(-z))
    angle = t[:, None] * np.exp(-np.log(1e4) * np.arange(5) / 5)
    code = affine(np.concatenate([np.cos(angle), np.sin(angle)], axis=1), "step")
    z = np.concatenate([x, code, cond], axis=1) @ host["kernel_in"] + host["bias_in"]
    for layer in ("inner_0", "inner_1"):
        z = affine(sigmoid(z), layer)
    np.testing.assert_allclose(got, affine(sigmoid(z), "outer"), rtol=1e-5, atol=1e-6)
    assert host["inner_0"]["kernel"].shape == (6, 4)


@pytest.mark.parametrize(
    ("dims", "want"),
    [
        ((100, 1000), 404_274),
        ((200, 600), 362_774),
        ((200, 1000), 604_374),
        ((200, 1100), 664_774),
        ((300, 1000), 804_474),
    ],
)
def test_counts_of_parameters(dims, want):
    row = jnp.zeros((1, 64))
    shapes = jax.eval_shape(GuidedMLP(64, dims).init, KEY, row, jnp.zeros(1, jnp.int32), row)
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == want


def test_initial_weights_have_the_released_spread():
    row = jnp.zeros((1, 64))
    init = jax.jit(GuidedMLP(64, (200, 1000)).init)
    params = init(KEY, row, jnp.zeros(1, jnp.int32), row)["params"]
    for kernel in (params["kernel_in"], params["inner_0"]["kernel"], params["outer"]["kernel"]):
        np.testing.assert_allclose(np.std(kernel), np.sqrt(2.0 / sum(kernel.shape)), rtol=0.03)
        assert np.abs(kernel).max() > 3 * np.std(kernel)  # a normal, not cut at two deviations
    np.testing.assert_allclose(np.std(params["bias_in"]), 1e-3, rtol=0.1)


def test_layers_propagate_the_first_tables():
    rng = np.random.default_rng(4)
    ego = {
        f"ego_{side}": rng.normal(size=(count, WIDTH)).astype(np.float32)
        for side, count in (("users", USERS), ("items", ITEMS))
    }
    degree = np.array([sum(i in row for row in ROWS) for i in range(1, ITEMS + 1)])
    adjacency = np.zeros((USERS, ITEMS))
    for user, row in enumerate(ROWS):
        for item in row:
            adjacency[user, item - 1] = 1.0 / np.sqrt(len(row) * degree[item - 1])
    users, items = (ego[name].astype(np.float64) for name in ("ego_users", "ego_items"))
    once = adjacency @ items, adjacency.T @ users
    found = ddrm.vectors(DDRMConfig(layers=1), spec(**ego))
    np.testing.assert_allclose(found.users, (users + once[0]) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.items, (items + once[1]) / 2, rtol=1e-5, atol=1e-6)
    within = jax.jit(lambda: ddrm.build(DDRMConfig(layers=1), spec(**ego)).init(KEY, example()))
    np.testing.assert_allclose(within().state.users[:USERS], found.users, rtol=1e-6)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in once]
    found = ddrm.vectors(DDRMConfig(layers=1, readout="normalized_sum"), spec(**ego))
    np.testing.assert_allclose(found.users, users + unit[0], rtol=1e-5, atol=1e-6)
    # without layers the backbone's own vectors, and without first tables those it has
    plain = ddrm.vectors(DDRMConfig(), spec(**ego))
    np.testing.assert_array_equal(plain.users, spec().exports["users"])
    zero = ddrm.vectors(DDRMConfig(layers=0), spec(**ego))
    np.testing.assert_array_equal(zero.items, ego["ego_items"])


def test_shapes_of_the_embedding():
    given = spec().exports
    unit = ddrm.vectors(DDRMConfig(embedding="unit_norm"), spec())
    np.testing.assert_allclose(np.linalg.norm(unit.items, axis=1), 1.0, rtol=1e-6)
    scaled = ddrm.vectors(DDRMConfig(embedding="unit_variance"), spec())
    np.testing.assert_allclose(scaled.items.std(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(scaled.users * given["items"].std(), given["users"], rtol=1e-5)
    found = [
        topk.top(jnp.asarray(v.users), jnp.asarray(v.items), k=ITEMS).items
        for v in (scaled, ddrm.vectors(DDRMConfig(), spec()))
    ]
    np.testing.assert_array_equal(*found)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="closed_form"):
        DDRMConfig(sampler=SamplerConfig(kind="closed_form"))
    with pytest.raises(ValueError, match="model.extra-steps=2"):
        DDRMConfig(extra_steps=2, sampler=SamplerConfig(kind="ddim"))
    with pytest.raises(ValueError, match="model.noise-max must be at least"):
        DDRMConfig(noise_min=1e-2, noise_max=1e-3)
    with pytest.raises(ValueError, match="satisfy 0 < min <= max < 1"):
        DDRMConfig(noise_scale=10.0, noise_max=0.5)
    with pytest.raises(ValueError, match="must be 8 rows"):
        ddrm.build(DDRMConfig(), spec(items=np.zeros((7, WIDTH), np.float32)))
    with pytest.raises(ValueError, match="its items 3;"):
        ddrm.build(DDRMConfig(), spec(items=np.zeros((ITEMS, 3), np.float32)))
