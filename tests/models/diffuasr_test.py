"""DiffuASR against formulas, and what its guidance and its frozen rows are for."""

import dataclasses
import math
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import Prefixes, SequenceQuery
from jaxrec_diff.diffusion import forward, guidance, samplers, schedules
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models import diffuasr, diffuasr_guidance, diffuasr_rows
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.diffuasr import DiffuASRConfig
from jaxrec_diff.models.readers import Reader
from jaxrec_diff.nets import plain as nets_plain
from jaxrec_diff.training import optim, state, step
from jaxrec_diff.training.config import TrainConfig
from tests.models.compiled import applied, compiled

ITEMS, LENGTH = 12, 3
_RNG = np.random.default_rng(5)
ROWS = _RNG.normal(1.5, 3.0, (ITEMS, 4)).astype(np.float32)
SPEC = DataSpec(
    num_users=6,
    num_items=ITEMS,
    max_len=5,
    exports={"items": ROWS},
    prefix_len=LENGTH,
    reader=Reader({"gain": np.float32(0.02)}, lambda params, x: params["gain"] * x.sum(axis=1)),
)

SEQ = jnp.array([[3, 4, 5, 0, 0], [7, 1, 2, 9, 12], [11, 0, 0, 0, 0]])
QUERY = SequenceQuery(SEQ, jnp.arange(3))
BATCH = Prefixes(jnp.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), SEQ, jnp.ones(3), jnp.arange(3))
KEY = jax.random.key(1)


def config(**settings):
    plain = {"denoiser": "mlp", "mlp_hidden": 16, "num_steps": 50, "dropout_rate": 0.0}
    few = {"sampler": SamplerConfig(kind="ddim", steps=4)}
    return DiffuASRConfig(**(plain | few | settings))


def generator(settings, spec=SPEC):
    """The functions of a generator, bound to its parts."""
    made = diffuasr.parts(settings, spec)
    names = ("init", "loss", "points", "log_prob")
    bound = {name: jax.jit(partial(getattr(diffuasr, name), made)) for name in names}
    return SimpleNamespace(**bound)


def started(settings):
    made = generator(settings)
    return made, *made.init(jax.random.key(0), BATCH)


def tables(t):
    betas = schedules.linear_scaled(1000)
    bar = np.cumprod(1.0 - betas)[t]
    return np.sqrt(bar), np.sqrt(1.0 - bar)


def test_reverse_path_of_the_released_sampler():
    betas = schedules.linear_scaled(1000)
    ts = schedules.subset(1000, 5, "leading")[::-1]
    assert ts.tolist() == [800, 600, 400, 200, 0]
    bar = forward.alphas_cumprod(betas)
    np.testing.assert_allclose(
        bar[ts], [0.00150752105978, 0.0255674922655, 0.193572009667, 0.656347005519, 0.9999],
        rtol=1e-10,
    )  # fmt: skip
    rows = samplers.ddim_rows(forward.levels(betas), ts)
    np.testing.assert_allclose(
        np.stack([rows.b, rows.a], axis=1),
        [[0.987878384782, 0.121542216173], [0.909718265623, 0.29450571376],
         [0.652795676845, 0.522943124734], [0.0170584644095, 0.986130041876], [0.0, 1.0]],
        rtol=1e-9, atol=1e-12,
    )  # fmt: skip
    walked = np.array([1.0, -0.5, 0.25, 2.0])
    for i, expected in enumerate(
        [[1.97420147346, -0.75816786359, 0.340064924088, 5.52255626814],
         [3.85771255691, -1.0388971796, 0.399752799906, 13.5593157933],
         [6.14376945645, -1.16616560209, 0.371311159688, 24.0073357613],
         [6.94090036756, -0.910812379955, 0.230230161365, 28.989427318],
         [6.93224700543, -0.9043639018, 0.228205351226, 28.981876448]]
    ):  # fmt: skip
        signal, noise = np.sqrt(bar[ts[i]]), np.sqrt(1.0 - bar[ts[i]])
        x0_hat = forward.x0_from_eps(0.9 * np.tanh(walked), walked, signal, noise)
        walked = rows.a[i] * x0_hat + rows.b[i] * walked
        np.testing.assert_allclose(walked, expected, rtol=1e-9)


def test_direction_and_size_of_both_classifier_guidances():
    # <x, u> = .425; the paper's correction of eps at t = 400 and the released one
    u, x = jnp.array([0.2, -0.4, 0.1]), jnp.array([[1.0, -0.5, 0.25]])
    betas = schedules.linear_scaled(1000)
    table = forward.tables(forward.levels(betas))
    log_prob = lambda x: jax.nn.log_sigmoid(x @ u)
    zero_noise = lambda xt, t: xt / table.signal[t]
    guided = guidance.classifier(zero_noise, log_prob, table, 1.0, on="xt")
    t = jnp.int32(400)
    eps = forward.eps_from_x0(guided(x, t), x, table.signal[t], table.noise[t])
    np.testing.assert_allclose(eps[0], [-0.07100069, 0.14200138, -0.03550035], rtol=1e-4)
    released = diffuasr_guidance.released_correction(log_prob, x, 1.0)
    np.testing.assert_allclose(released[0], [0.00079064, -0.00158128, 0.00039532], rtol=1e-4)


def test_frozen_rows_are_standardised_and_known_rows_alone_count():
    made, params, extra = started(config())
    rows = np.asarray(extra["items"])[: ITEMS + 1]
    assert "items" not in params
    np.testing.assert_allclose(rows[1:].mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(rows[1:].var(axis=0).mean(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.ptp(rows[1:, 0]) / np.ptp(rows[1:, 1]),
                               np.ptp(ROWS[:, 0]) / np.ptp(ROWS[:, 1]), rtol=1e-5)  # fmt: skip
    counts = np.r_[np.zeros(4, int), np.ones(8, int)]
    known = generator(config(), SPEC._replace(item_counts=counts))
    rows = np.asarray(known.init(KEY, BATCH).state["items"])[: ITEMS + 1]
    np.testing.assert_allclose(rows[5:].mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(rows[5:].var(axis=0).mean(), 1.0, rtol=1e-5)


def test_noise_loss_is_that_of_a_plain_loop():
    made, params, extra = started(config(guidance="none"))
    k_t, k_eps, _, _ = jax.random.split(KEY, 4)
    rows = np.asarray(extra["items"], np.float64)[: ITEMS + 1]
    drawn = [int(jax.random.randint(jax.random.fold_in(k_t, k), (), 0, 50)) for k in (0, 1)]
    t = [drawn[0], 49 - drawn[0], drawn[1]]  # pairs of rows share a draw
    bar = np.cumprod(1.0 - schedules.linear_scaled(50))
    net = nets_plain.PlainDenoiser(16)
    total = 0.0
    for b in range(3):
        eps = np.asarray(jax.random.normal(jax.random.fold_in(k_eps, b), (LENGTH, 4)), np.float64)
        xt = np.sqrt(bar[t[b]]) * rows[BATCH.prefix[b]] + np.sqrt(1 - bar[t[b]]) * eps
        seen = [j for j in SEQ[b].tolist() if j]
        cond = np.mean([rows[j] for j in seen], axis=0)
        args = [jnp.asarray(v, jnp.float32)[None] for v in (xt, t[b], cond)]
        out = applied(net)({"params": params["net"]}, args[0], args[1].astype(int), args[2])[0]
        total += np.mean((eps - np.asarray(out)) ** 2) / 3
    value, aux = made.loss(params, extra, KEY, BATCH)
    np.testing.assert_allclose(value, total, rtol=1e-4)
    assert aux.metrics["noise"] == value


def test_conditions_ignore_order_and_a_weight_of_zero_is_no_guidance():
    made, params, extra = started(config(guidance_weight=0.0))
    plain = made.points(params, extra, KEY, QUERY)
    turned = QUERY._replace(seq=jnp.array([[5, 3, 4, 0, 0], [12, 9, 2, 1, 7], [11, 0, 0, 0, 0]]))
    np.testing.assert_allclose(made.points(params, extra, KEY, turned), plain, rtol=2e-3, atol=1e-4)
    guided = generator(config(guidance_weight=1.5), SPEC)
    moved = guided.points(params, extra, KEY, QUERY)
    assert np.abs(moved - plain).max() > 1e-3
    # with the null condition equal to the condition there is nothing to extrapolate from
    official = config(compat="official", items="trained", width=4, guidance_weight=3.0)
    released = generator(official, SPEC)
    params, extra = released.init(KEY, BATCH)
    one = QUERY._replace(seq=SEQ[:, :1])
    params = params | {"items": params["items"].at[1:].set(params["null"])}
    same = released.points(params, extra, KEY, one)
    none = generator(config(compat="official", items="trained", width=4, guidance="none"), SPEC)
    np.testing.assert_allclose(none.points(params, extra, KEY, one), same, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("on", ["x0_hat", "xt"])
def test_guidance_raises_what_the_recommender_thinks_of_the_next_item(on):
    means = []
    for weight in (0.0, 0.3):
        made, params, extra = started(
            config(guidance="classifier", guidance_weight=weight, classifier_on=on)
        )
        points = made.points(params, extra, KEY, QUERY)  # the same noise
        means.append(np.asarray(made.log_prob(params, extra, KEY, QUERY, points)))
    assert (means[1] >= means[0] - 1e-6).all()
    assert means[1].mean() > means[0].mean() + 1e-3


def outsiders(key, row, seq):
    """For every place an item that is not in the history, from the list of all of those."""
    free = [item for item in range(1, ITEMS + 1) if item not in seq]
    drawn = jax.random.randint(jax.random.fold_in(key, row), (len(seq),), 0, len(free))
    return [free[i] for i in drawn]


@pytest.mark.parametrize("pool", ["mean", "sum"])
@pytest.mark.parametrize("target", ["item", "softmax", "all", "bpr", "cond"])
def test_what_the_recommender_is_asked_is_that_of_a_plain_loop(target, pool):
    settings = config(guidance="classifier", classifier_target=target, pool=pool)
    made, params, extra = started(settings)
    points = np.random.default_rng(0).normal(size=(3, LENGTH, 4))
    rows = ROWS.astype(np.float64)
    scale = math.sqrt(sum(rows[:, d].var() for d in range(4)) / 4)
    log_sigmoid = lambda z: -math.log1p(math.exp(-z))
    k_other = jax.random.split(KEY, 3)[2]
    expected = []
    for b in range(3):
        f = [sum(0.02 * (rows[:, d].mean() + scale * points[b, m, d]) for m in range(LENGTH))
             for d in range(4)]  # fmt: skip
        score = lambda item, f=f: sum(f[d] * rows[item - 1, d] for d in range(4))
        history = [item for item in SEQ[b].tolist() if item]
        if target == "item":
            value = log_sigmoid(score(history[0]))
        elif target == "softmax":
            value = score(history[0]) - math.log(
                sum(math.exp(score(item)) for item in range(1, ITEMS + 1))
            )
        elif target == "all":
            value = sum(log_sigmoid(score(item)) for item in history) / len(history)
        elif target == "bpr":
            others = outsiders(k_other, b, SEQ[b].tolist())
            pairs = list(zip(history, others, strict=False))
            value = sum(log_sigmoid(score(i) - score(j)) for i, j in pairs) / len(pairs)
        else:
            count = len(history) if pool == "mean" else 1
            c = [sum(rows[item - 1, d] for item in history) / count for d in range(4)]
            value = -sum((f[d] - c[d]) ** 2 for d in range(4)) / 4
        expected.append(value)
    found = made.log_prob(params, extra, KEY, QUERY, jnp.asarray(points, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("compat", ["paper", "official"])
@pytest.mark.parametrize("target", ["bpr", "cond"])
def test_questions_about_the_whole_history_do_not_depend_on_the_batch(target, compat):
    settings = config(
        guidance="classifier", classifier_target=target, compat=compat, guidance_weight=0.3
    )
    made, params, extra = started(settings)
    whole = made.points(params, extra, KEY, QUERY)
    for row in range(3):
        alone = made.points(params, extra, KEY, jax.tree.map(lambda x, b=row: x[b : b + 1], QUERY))
        np.testing.assert_allclose(alone[0], whole[row], rtol=1e-4, atol=1e-4)
    plain, *_ = started(dataclasses.replace(settings, guidance_weight=0.0))
    assert np.abs(plain.points(params, extra, KEY, QUERY) - whole).max() > 1e-4
    value, aux = made.loss(params, extra, KEY, BATCH)
    unguided, _ = plain.loss(params, extra, KEY, BATCH)
    assert np.isfinite(value) and (abs(value - unguided) > 1e-7) == (compat == "official")


@pytest.mark.parametrize("target", ["all", "bpr", "cond"])
def test_guidance_raises_what_is_asked_of_the_whole_history(target):
    # an untrained network's estimate of x_0 is of unit size, that of the noise makes x_0 explode
    settings = config(
        guidance="classifier", guidance_weight=1.0, classifier_target=target, predict="x0",
        classifier_on="xt",
    )  # fmt: skip
    guided, params, extra = started(settings)
    plain, *_ = started(dataclasses.replace(settings, guidance_weight=0.0))
    before, after = (
        np.asarray(
            guided.log_prob(params, extra, KEY, QUERY, made.points(params, extra, KEY, QUERY))
        )
        for made in (plain, guided)
    )
    assert (after > before).all(), (before, after)


@pytest.mark.parametrize("compat", ["paper", "official"])
def test_the_released_code_asks_about_the_wrong_end_of_a_history(compat):
    settings = config(
        guidance="classifier", guidance_weight=100.0 if compat == "official" else 1.0,
        compat=compat, classifier_on="xt", predict="x0",
    )  # fmt: skip
    made, params, extra = started(settings)
    points = {
        name: made.points(params, extra, KEY, QUERY._replace(seq=jnp.array([seq] * 3)))
        for name, seq in (
            ("plain", [7, 1, 2, 9, 0]), ("first", [1, 7, 2, 9, 0]), ("last", [7, 1, 9, 2, 0]),
        )
    }  # fmt: skip
    # the condition knows no order; what is asked about does
    moved = {name: np.abs(points[name] - points["plain"]).max() for name in ("first", "last")}
    asked, other = ("last", "first") if compat == "official" else ("first", "last")
    assert moved[asked] > 1e-3 and moved[other] < moved[asked] / 20, moved


def test_released_guidance_acts_in_the_loss_as_well():
    common = dict(items="frozen", guidance="classifier", guidance_weight=50.0)
    paper, params, extra = started(config(**common))
    released = generator(config(compat="official", **common), SPEC)
    first, second = (made.loss(params, extra, KEY, BATCH)[0] for made in (paper, released))
    assert abs(float(first - second)) > 1e-6


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_rows_that_are_trained_shrink_unless_rounding_keeps_them_apart(weight):
    rng = np.random.default_rng(0)
    drawn = [jnp.asarray(rng.integers(1, ITEMS + 1, (64, width))) for width in (LENGTH, 5)]
    batch = Prefixes(*drawn, jnp.ones(64), jnp.arange(64))
    settings = config(items="trained", width=4, guidance="none", rounding_weight=weight)
    made = compiled(diffuasr.build(settings, SPEC))
    optimizer = optim.make(TrainConfig(learning_rate=1e-2), 1)
    update = jax.jit(lambda train: step.update(made, optimizer, train, KEY, batch))
    train = state.create(made.init(jax.random.key(0), batch), optimizer)
    losses = []
    for _ in range(250):
        train, metrics = update(train)
        losses.append(float(metrics["noise"]))
    # without it the noise loss falls to almost nothing, and nothing was learnt: items are random
    assert (metrics["spread_left"] < 0.1) == (weight == 0.0)
    assert (np.mean(losses[-20:]) < 0.2) == (weight == 0.0)


def test_rounding_is_the_cross_entropy_of_cosines_with_the_right_rows(monkeypatch):
    settings = config(items="trained", width=4, guidance="none", predict="x0", rounding_weight=0.5)
    made, params, extra = started(settings)
    rows = np.asarray(params["items"], np.float64)[: ITEMS + 1]
    # a network that finds the items exactly: what is left is how close the other rows are
    exact = jnp.asarray(rows[np.asarray(BATCH.prefix)], jnp.float32)
    monkeypatch.setattr(diffuasr, "predict", lambda *args: exact)
    cosines = rows[1:] @ rows[1:].T / np.outer(*2 * [np.linalg.norm(rows[1:], axis=1)]) / 0.1
    each = np.log(np.exp(cosines).sum(axis=1)) - np.diag(cosines)
    expected = np.mean(each[np.asarray(BATCH.prefix) - 1])
    value, aux = made.loss(params, extra, KEY, BATCH)
    np.testing.assert_allclose(aux.metrics["rounding"], expected, rtol=1e-4)
    np.testing.assert_allclose(value, 0.5 * expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "spec", "word"),
    [
        (dict(denoiser="sunet", channels=8), SPEC._replace(prefix_len=10), "16 channels can"),
        (dict(), SPEC._replace(exports={}), "--backbone=sasrec"),
        (dict(guidance="classifier"), SPEC._replace(reader=None), "classifier_free"),
        (dict(), SPEC._replace(prefix_len=0), "at least 1"),
    ],
)
def test_what_cannot_work_is_refused_before_training(settings, spec, word):
    with pytest.raises(ValueError, match=word):
        diffuasr.build(config(**settings), spec)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (dict(channels=12), "16 is one"),
        (dict(num_steps=10), "at least 21"),
        (dict(rounding_weight=1.0), "model.items=trained"),
        (dict(sampler=SamplerConfig(kind="one_step")), "ddim does"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        DiffuASRConfig(**settings)


@pytest.mark.slow
def test_clusters_are_generated_from_frozen_rows():
    # 10 clusters of 30 items; a user's items are of one cluster, and so should be what came before
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 64))
    cluster = np.arange(300) // 30
    rows = (centres[cluster] + 0.5 * rng.normal(size=(300, 64))).astype(np.float32)
    spec = DataSpec(2000, 300, 6, exports={"items": rows}, prefix_len=10)
    settings = DiffuASRConfig(guidance="none", sampler=SamplerConfig(kind="ddim", steps=20))
    made = compiled(diffuasr.build(settings, spec))
    optimizer = optim.make(TrainConfig(learning_rate=1e-3), 1)

    @jax.jit
    def update(train, i):
        key = jax.random.fold_in(KEY, i)
        k_group, k_item = jax.random.split(key)
        group = jax.random.randint(k_group, (64, 1), 0, 10)
        drawn = 30 * group + jax.random.randint(k_item, (64, 16), 1, 31)
        batch = Prefixes(drawn[:, :10], drawn[:, 10:], jnp.ones(64), jnp.arange(64))
        return step.update(made, optimizer, train, KEY, batch)[0]

    first = Prefixes(jnp.ones((64, 10), int), jnp.ones((64, 6), int), jnp.ones(64), jnp.arange(64))
    train = state.create(made.init(jax.random.key(0), first), optimizer)
    for i in range(1000):
        train = update(train, i)
    group = np.arange(100) % 10
    seq = jnp.asarray(30 * group[:, None] + rng.integers(1, 31, (100, 6)))
    query = SequenceQuery(seq.astype(jnp.int32), jnp.arange(100))
    points = made.sample(train.params, train.state, KEY, query)
    found = np.asarray(rank.nearest(rank.Drawn(points, made.head(train.params, train.state))))
    assert ((found - 1) // 30 == group[:, None]).mean() > 0.9


@pytest.mark.parametrize("count", [3, 64, 65, 150])
def test_rows_in_parts(count):
    rows = {"seq": jnp.arange(2 * count).reshape(count, 2), "row": jnp.arange(count)}
    sizes = []

    def run(part):
        sizes.append(part["row"].shape[0])
        return part["seq"] * 10 + part["row"][:, None]

    out = diffuasr_rows.in_parts(run, rows, 64)
    np.testing.assert_array_equal(out, run(rows))
    assert sizes[0] == {3: 3, 64: 64, 65: 33, 150: 50}[count]
