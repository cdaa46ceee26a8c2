"""DiffRec2 against numbers computed in float64 by a network written separately, and its laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import losses
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation import topk
from jaxrec_diff.models import diffrec2
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.diffrec2 import DiffRec2Config
from jaxrec_diff.ops import rng as ops_rng
from tests.models.compiled import applied, compiled
from tests.models.tables import padded

D, ITEMS, LENGTH = 8, 5, 3
TINY = {"width": D, "num_blocks": 2, "num_heads": 4}
SMALLER = TINY | {"num_blocks": 1}  # half as much to compile, where no golden number is asked
CONFIG = DiffRec2Config(**TINY, dropout_rate=0.0, embedding_dropout_rate=0.0)
SPEC = DataSpec(num_users=9, num_items=ITEMS, max_len=LENGTH)
EPS = np.cos(0.1 * np.arange(D))
SEQ = np.array([[2, 5, 0]])  # items 2, 5 and padding on the right

# n: noised embedding, estimate, sum of squares against E[4]
GOLDEN = {
    1: (
        [0.26001735, 0.9823356, 1.00398941, 0.9677889, 0.15238565, -0.97795435, 0.94355717,
         -0.98168029],
        [0.37973404, -1.00044272, -0.05343168, 1.31227848, 0.5502751, -0.25677912, 1.00511418,
         -1.93674829],
        6.73299393,
    ),
    500: (
        [1.02999438, 1.22771348, 1.21948734, 1.18566945, 0.92426759, 0.56576566, 1.05445242,
         0.4568174],
        [-0.92826777, -0.94053102, -0.38362264, 1.75377601, 0.2065634, -0.18595302, 1.43051196,
         -0.95247693],
        8.47101748,
    ),
    1000: (
        [1.00156821, 1.00116178, 0.98636302, 0.96140501, 0.92195202, 0.87129602, 0.83126107,
         0.75854141],
        [-0.09223116, -0.98358273, -0.9486195, 1.65887816, -0.74879531, -0.41200347, 1.62253234,
         -0.09617833],
        10.60469086,
    ),
}  # fmt: skip


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def fill(k, shape, scale=1.0):
    m = np.arange(np.prod(shape), dtype=np.float64)
    return (scale * np.sin(k + 0.37 * m**2)).reshape(shape)


def golden_params():
    """The recipe's tensors; its head has a column for padding, which is no class here."""

    def dense(k, inside, out):
        return {"kernel": fill(k, (inside, out), 0.5), "bias": np.full(out, 0.01)}

    norm = {"norm": {"scale": np.ones(D), "bias": np.zeros(D)}}

    def block(b):
        names = ("query", "key", "value", "out")
        square = {name: dense(100 * b + 2 + i, D, D) for i, name in enumerate(names)}
        feed = {"feed_in": dense(100 * b + 6, D, 32), "feed_out": dense(100 * b + 7, 32, D)}
        return square | feed | {"norm_attention": norm, "norm_feed": norm}

    tree = jax.tree.map(
        jnp.asarray,
        {
            "items": fill(1, (ITEMS + 2, D)),
            "positions": fill(11, (LENGTH + 1, D), 0.1),
            "head": fill(12, (D, ITEMS + 1)).T[1:],
            "bias": np.full(ITEMS, 0.01),
            "transformer": {"blocks_0": block(0), "blocks_1": block(1), "norm_out": norm},
        },
    )
    return padded(tree, "items", "head", "bias")


def estimate(xt, t, seq=SEQ, config=CONFIG, params=None):
    net = diffrec2.network(config, ITEMS, LENGTH)
    params = golden_params() if params is None else params
    seq = jnp.asarray(seq)

    def both(net, xt, t):
        return net.denoise(net.embed(seq), seq > 0, xt, t)

    return applied(net)({"params": params}, jnp.asarray(xt), jnp.asarray(t), method=both)


def logits(points):
    params = golden_params()
    return points @ params["head"][:ITEMS].T + params["bias"][:ITEMS]


def betas_of(num_steps=1000):
    return diffrec2.make_betas(DiffRec2Config(num_steps=num_steps))


def noised(item, n, eps, betas):
    bar = np.prod(1.0 - betas[:n])
    return np.sqrt(bar) * fill(1, (ITEMS + 2, D))[item] + np.sqrt(1.0 - bar) * eps


@pytest.mark.parametrize(
    "n, beta, bar, signal, noise, c1, c2, var",
    [
        (1, 1e-4, 0.9999, 0.99995, 0.01, 1, 0, 0),
        (2, 1.199199e-4, 0.99978009207, 0.99989004, 0.01482929, 0.5452915, 0.4547085, 5.45319e-5),
        (500, 1.00400400e-2, 0.078587242882, 0.28033416, 0.95990247, 0.00307007, 0.99410667,
         0.0100313554),
        (1000, 0.02, 4.0358297654e-05, 0.00635282, 0.99997982, 0.00012835, 0.98994868,
         0.0199999835),
    ],
)  # fmt: skip
def test_schedule(n, beta, bar, signal, noise, c1, c2, var):
    betas = betas_of()
    row = forward.posterior(forward.levels(betas))
    got = [betas, forward.alphas_cumprod(betas), row.c1, row.c2, row.var]
    want = [beta, bar, c1, c2, var]
    for values, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(values[n - 1], expected, rtol=4e-5, atol=1e-10)
    tables = forward.tables(forward.levels(betas))
    np.testing.assert_allclose(tables.signal[n - 1], signal, rtol=1e-6)
    np.testing.assert_allclose(tables.noise[n - 1], noise, rtol=1e-6)


def test_scaled_schedule_reaches_noise_in_few_steps():
    np.testing.assert_allclose(betas_of(32)[[0, -1]], [0.003125, 0.625], rtol=1e-12)


@pytest.mark.parametrize("n", GOLDEN)
@in_float64
def test_golden_estimates(n):
    point, want, squares = GOLDEN[n]
    # attention's scores are rounded to float32 by jax.nn.dot_product_attention
    xt = noised(4, n, EPS, betas_of())
    np.testing.assert_allclose(xt, point, atol=1e-8)
    got = estimate(xt[None], n - 1)
    np.testing.assert_allclose(got[0], want, atol=3e-7)
    apart = losses.mse(got, jnp.asarray(fill(1, (ITEMS + 2, D))[4][None])) * D
    np.testing.assert_allclose(apart, [squares], rtol=1e-6)


@in_float64
def test_rec_loss_of_the_clean_embedding():
    params = golden_params()
    clean = params["items"][4][None]
    want = [-0.2338052, -1.08545128, -1.64689006, 0.23991756, -0.41192227]
    np.testing.assert_allclose(logits(clean)[0], want, atol=1e-8)
    rec = diffrec2.cross_entropy(diffrec2.parts(CONFIG, SPEC), params, clean, jnp.array([4]))
    np.testing.assert_allclose(rec, [0.94040790], rtol=1e-8)


@in_float64
def test_efficient_inference_and_its_two_averages():
    eps = np.cos(0.1 * np.arange(D) + np.arange(4)[:, None])
    starts = noised(6, 1000, eps, betas_of())
    points = estimate(starts, 999, seq=np.repeat(SEQ, 4, axis=0))
    one = [3.68477932, 0.70459512, -0.38406256, 2.86862019, -0.6101868]
    np.testing.assert_allclose(logits(points[0]), one, atol=3e-7)
    mean = [3.60103208, 0.72698079, -0.25138697, 2.71013394, -0.61334398]
    np.testing.assert_allclose(logits(points).mean(axis=0), mean, atol=3e-7)
    np.testing.assert_allclose(logits(points.mean(axis=0)), mean, atol=3e-7)
    by_vector = [0.66543931, 0.03757715, 0.01412616, 0.27302116, 0.00983622]
    np.testing.assert_allclose(jax.nn.softmax(logits(points.mean(axis=0))), by_vector, atol=1e-8)
    by_prob = np.array([0.65821933, 0.03943023, 0.01416498, 0.27847966, 0.0097058])
    # the pooled scores of the head are the log of the mean probability, up to log S
    params = golden_params()
    pooled = diffrec2._as_logits(diffrec2.parts(CONFIG, SPEC), params, points[None])
    table = jnp.pad(params["head"][:ITEMS], ((0, 0), (0, 1)), constant_values=1.0)
    found = topk.top(
        pooled, table, params["bias"][:ITEMS], k=ITEMS, score_pooling="mixture", chunk=2
    )
    np.testing.assert_allclose(
        np.exp(found.scores[0]) / 4, by_prob[np.asarray(found.items[0]) - 1], atol=1e-8
    )
    assert found.items[0].tolist() == (1 + np.argsort(-by_prob)).tolist()


@in_float64
def test_full_chain_of_three_steps():
    betas = np.array([0.1, 0.2, 0.3])
    row = forward.posterior(forward.levels(betas))
    np.testing.assert_allclose(row.c1, [1, 0.67763093, 0.51322266], atol=1e-8)
    np.testing.assert_allclose(row.c2, [0, 0.31943828, 0.47230808], atol=1e-8)
    np.testing.assert_allclose(row.var, [0, 0.07142857, 0.16935484], atol=1e-8)
    steps = process.Steps(
        *(jnp.asarray(column) for column in samplers.ddpm_rows(forward.levels(betas)))
    )
    start = jnp.asarray(noised(6, 3, EPS, betas)[None])
    path = process.trajectory(process.Chain(steps, estimate, start))[1:]
    want = [
        [-0.09460078, 1.288384, 1.0167706, 0.24362127, 0.72518746, -0.46506612, -0.39090901,
         0.40490998],
        [0.02039704, 1.25592765, 0.71406351, -0.28190345, 1.32364913, -1.04068546, -0.5189376,
         -0.60098817],
        [-0.47172526, 0.37202845, 0.33687196, -0.23728773, 2.33042431, -0.76944392, -0.44264228,
         -1.11822552],
    ]  # fmt: skip
    np.testing.assert_allclose(path[:, 0], want, atol=3e-7)
    scores = [-1.83618515, -2.95916522, -3.20749294, 0.83242826, 0.56959259]
    np.testing.assert_allclose(logits(path[-1])[0], scores, atol=3e-7)


@in_float64
def test_order_matters_and_padding_does_not():
    xt = noised(4, 500, EPS, betas_of())[None]
    swapped = estimate(xt, 499, seq=[[5, 2, 0]])
    assert np.abs(swapped - estimate(xt, 499)).max() > 0.01
    params = golden_params()
    params["items"] = params["items"].at[0].set(7.0)
    np.testing.assert_allclose(estimate(xt, 499, params=params), estimate(xt, 499), atol=1e-7)
    # a history keeps its distance to the noised place, however many places of padding there are
    np.testing.assert_allclose(estimate(xt, 499, seq=[[2, 5]]), estimate(xt, 499), atol=1e-7)


@in_float64
def test_blind_history_is_computed_once_for_all_steps_and_seeds():
    config = DiffRec2Config(**TINY, history_blind=True)
    net = diffrec2.network(config, ITEMS, LENGTH)
    params, seq = {"params": golden_params()}, jnp.asarray(SEQ)
    history = applied(net)(params, seq, method="embed")
    memory = applied(net)(params, history, seq > 0, method="remember")
    seeds = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, D)))
    for t in (0, 3):
        together = applied(net)(params, memory, seq > 0, seeds, jnp.int32(t), method="follow")
        for s in range(4):
            alone = estimate(seeds[:, s], t, config=config)
            np.testing.assert_allclose(together[:, s], alone, atol=1e-12)
    # and it is another function: the history of the paper's network sees the step
    assert np.abs(alone - estimate(seeds[:, -1], 3)).max() > 1e-2


def example(rows=32, seed=0):
    rng = np.random.default_rng(seed)
    seq = rng.integers(1, ITEMS + 1, (rows, LENGTH))
    seq *= np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (rows, 1))
    target = rng.integers(1, ITEMS + 1, rows)
    return Sequences(jnp.asarray(seq), jnp.asarray(target), jnp.ones(rows), jnp.arange(rows))


def gradients(**settings):
    config = DiffRec2Config(**SMALLER, schedule="linear", num_steps=4, beta_stop=0.3, **settings)
    model = compiled(diffrec2.build(config, SPEC))
    variables = model.init(jax.random.key(0), example())
    grad = jax.grad(lambda p: model.loss(p, variables.state, jax.random.key(1), example())[0])
    return jax.jit(grad)(variables.params)


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_each_loss_trains_its_own_parameters():
    rec, mse = gradients(mse_weight=0.0), gradients(rec_weight=0.0)
    assert largest((rec["transformer"], rec["positions"])) == 0 < largest(rec["head"])
    assert largest((mse["head"], mse["bias"])) == 0 < largest(mse["transformer"])
    assert largest(mse["items"]) > 0 and largest(rec["items"]) > 0
    frozen = gradients(rec_weight=0.0, stop_grad_target=True)
    assert np.abs(frozen["items"] - mse["items"]).max() > 0
    assert largest(gradients(mse_weight=0.0, ce_weight=1.0)["transformer"]) > 0


def test_loss_is_the_mean_of_its_parts_in_a_plain_loop():
    # no dropout, one step n = 1: random are only the noise of x_t and that of h0
    settings = {"dropout_rate": 0.0, "embedding_dropout_rate": 0.0, "beta_item": 0.25}
    config = DiffRec2Config(
        **TINY, schedule="linear", num_steps=1, beta_start=1.0, beta_stop=1.0, **settings
    )
    model, batch = compiled(diffrec2.build(config, SPEC)), example(6)
    params, state = model.init(jax.random.key(0), batch)
    _, aux = model.loss(params, state, jax.random.key(5), batch)
    # beta = 1: x_t is noise alone
    k_item, k_eps = jax.random.split(jax.random.key(5), 4)[1:3]
    xt, apart_from_item = (ops_rng.normal(k, batch.row_id, (D,)) for k in (k_eps, k_item))
    apart, rec = [], []
    for i in range(6):
        out = estimate(xt[i : i + 1], 0, seq=batch.seq[i : i + 1], config=config, params=params)
        clean = np.asarray(params["items"][batch.target[i]], np.float64)
        apart.append(np.mean((np.asarray(out[0], np.float64) - clean) ** 2))
        h0 = clean + 0.5 * np.asarray(apart_from_item[i])  # at n = 1 only the head sees it
        scores = np.asarray(params["head"][:ITEMS], np.float64) @ h0
        scores = scores + np.asarray(params["bias"][:ITEMS])
        rec.append(np.log(np.exp(scores).sum()) - scores[int(batch.target[i]) - 1])
    np.testing.assert_allclose(aux.metrics["mse"], np.mean(apart), rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["rec"], np.mean(rec), rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["loss"], np.mean(apart) + np.mean(rec), rtol=1e-4)
    summed = compiled(diffrec2.build(
        DiffRec2Config(**TINY, **settings, schedule="linear", num_steps=1, beta_start=1.0,
                       beta_stop=1.0, mse_reduction="sum", mse_weight=0.5),
        SPEC,
    ))  # fmt: skip
    value = summed.loss(params, state, jax.random.key(5), batch)[0]
    np.testing.assert_allclose(value, 0.5 * D * np.mean(apart) + np.mean(rec), rtol=1e-4)


def test_importance_sampler_oracle():
    history = timesteps.History(
        jnp.asarray(np.repeat([[1.0], [4.0], [9.0], [16.0]], 10, axis=1)), jnp.full(4, 10)
    )
    p = timesteps.importance_probs(history)
    want = 0.999 * np.array([1, 4, 9, 16]) / 30 + 0.001 / 4
    np.testing.assert_allclose(p, want, rtol=1e-6)
    squares = timesteps.History(jnp.sqrt(history.losses), history.count)
    # losses whose root mean squares are 1, 2, 3, 4
    p = timesteps.importance_probs(squares)
    np.testing.assert_allclose(p, [0.10015, 0.20005, 0.29995, 0.39985], rtol=1e-6)
    np.testing.assert_allclose(
        1 / (4 * p), [2.49625562, 1.24968758, 0.83347225, 0.62523446], rtol=1e-6
    )
    np.testing.assert_allclose(jnp.sum(p * jnp.array([1.0, 4, 9, 16]) / (4 * p)), 30 / 4, rtol=1e-6)


def test_history_of_losses_fills_and_then_steers_the_steps():
    config = DiffRec2Config(**SMALLER, schedule="linear", num_steps=4, beta_stop=0.3)
    model = compiled(diffrec2.build(config, SPEC))
    params, state = model.init(jax.random.key(0), example())
    loss = model.loss
    for step in range(5):
        state = loss(params, state, jax.random.key(step), example())[1].state
    assert state.count.tolist() == [10] * 4
    p = timesteps.importance_probs(state)
    assert np.ptp(p) > 1e-3  # the nearly clean step is easier than the noisy ones


def test_efficient_and_full_are_reported_side_by_side():
    config = DiffRec2Config(**SMALLER, schedule="linear", num_steps=4, beta_stop=0.3, num_seeds=3)
    batch = example()
    query = SequenceQuery(batch.seq, batch.row_id)
    model = compiled(diffrec2.build(config, SPEC))
    params, state = model.init(jax.random.key(0), batch)
    other = compiled(diffrec2.build(
        DiffRec2Config(**SMALLER, schedule="linear", num_steps=4, beta_stop=0.3, num_seeds=3,
                       inference="full"),
        SPEC,
    ))  # fmt: skip
    key = jax.random.key(0)
    np.testing.assert_allclose(
        model.variants["full"](params, state, query),
        other.sample(params, state, key, query),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        other.variants["efficient"](params, state, query),
        model.sample(params, state, key, query),
        rtol=1e-5,
    )


def test_chain_starts_from_the_noised_unknown_item():
    made, asked = diffrec2.parts(DiffRec2Config(**TINY, num_steps=1000), SPEC), jnp.array([3, 8])
    query = SequenceQuery(jnp.repeat(SEQ, 2, axis=0), asked)
    params, key = golden_params(), jax.random.key(5)
    start = diffrec2.chain(made, params, (), key, query).start
    eps = ops_rng.normal(jax.random.split(key, 3)[0], asked, (D,))
    bar = np.prod(1.0 - np.linspace(1e-4, 0.02, 1000))
    expected = np.sqrt(bar) * fill(1, (ITEMS + 2, D))[-1] + np.sqrt(1.0 - bar) * eps
    np.testing.assert_allclose(start, expected, rtol=1e-5, atol=1e-6)


def test_more_seeds_shrink_the_variance_as_one_over_their_number():
    # Same user in many rows: rows draw their own noise.
    spread = {}
    rows = 400
    query = SequenceQuery(jnp.tile(jnp.array([[2, 5, 0]]), (rows, 1)), jnp.arange(rows))
    for seeds in (1, 8):
        config = DiffRec2Config(
            **SMALLER, schedule="linear", num_steps=4, beta_stop=0.9, num_seeds=seeds
        )
        model = compiled(diffrec2.build(config, SPEC))
        params, state = model.init(jax.random.key(0), example())
        found = model.sample(params, state, jax.random.key(1), query)
        spread[seeds] = float(jnp.var(found, axis=0).sum())
    assert 6.0 < spread[1] / spread[8] < 10.5


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"width": 10, "num_heads": 4}, "multiple of 8"),
        ({"beta_item": -1.0}, "beta-item"),
        ({"num_seeds": 0}, "num-seeds"),
        ({"sampler": SamplerConfig(kind="closed_form")}, "nearest is ddpm"),
        ({"num_steps": 8, "sampler": SamplerConfig(steps=9)}, "nearest valid value is 8"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        DiffRec2Config(**settings)


def test_too_few_steps_for_the_scaled_schedule_are_refused_before_training():
    with pytest.raises(ValueError, match="at least 20"):
        diffrec2.build(DiffRec2Config(num_steps=8), SPEC)


def test_one_step_over_a_thousand_is_one_row_of_the_schedule():
    # fewer reverse steps: betas recomputed over the visited ones
    betas = betas_of()
    ts = schedules.subset(1000, 10)
    rows = samplers.ddpm_rows(forward.levels(betas), ts[::-1])
    visited = 1.0 - np.exp(np.diff(np.cumsum(np.log1p(-betas))[ts], prepend=0.0))
    np.testing.assert_allclose(samplers.ddpm_rows(forward.levels(visited)).a, rows.a, rtol=1e-9)


@pytest.mark.parametrize("mask_mode", ["key", "query"])
def test_several_lengths_change_no_estimate(mask_mode):
    config = DiffRec2Config(
        **SMALLER, schedule="linear", num_steps=4, beta_stop=0.3, mask_mode=mask_mode,
        dropout_rate=0.0, embedding_dropout_rate=0.0,
    )  # fmt: skip
    model = compiled(diffrec2.build(config, SPEC))
    seq = jnp.array([[2, 0, 0], [4, 0, 0], [1, 3, 5], [5, 2, 0]])
    whole = Sequences(seq, jnp.array([1, 2, 3, 4]), jnp.ones(4), jnp.arange(4))
    parts = whole._replace(seq=(seq[:2, :1], seq[2:]))
    params, state = model.init(jax.random.key(0), whole)
    loss = model.loss
    for name, value in loss(params, state, jax.random.key(1), whole)[1].metrics.items():
        cut = loss(params, state, jax.random.key(1), parts)[1].metrics[name]
        np.testing.assert_allclose(cut, value, rtol=1e-5)


def test_importance_weights_reach_the_loss():
    config = DiffRec2Config(**SMALLER, schedule="linear", num_steps=4, beta_stop=0.3)
    model, batch = compiled(diffrec2.build(config, SPEC)), example(8)
    params, _ = model.init(jax.random.key(0), batch)
    before = timesteps.History(
        jnp.repeat(jnp.array([[1.0], [2], [3], [4]]), 10, 1), jnp.full(4, 10)
    )
    key = jax.random.key(2)
    value, aux = model.loss(params, before, key, batch)
    t, weight = timesteps.importance(jax.random.split(key, 4)[0], batch.row_id, before)
    # the state keeps the unweighted errors, newest last, in the order of the batch
    newest = {n: list(aux.state.losses[n][10 - int((t == n).sum()) :]) for n in range(4)}
    squared = np.array([newest[int(n)].pop(0) for n in t])
    np.testing.assert_allclose(aux.metrics["mse"], np.mean(weight * squared), rtol=1e-5)
    assert abs(np.mean(squared) - aux.metrics["mse"]) > 1e-3
    np.testing.assert_allclose(value, aux.metrics["mse"] + aux.metrics["rec"], rtol=1e-6)
