"""DiffRec against plain float64 loops, published tables and its own plain reverse path."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.diffusion import forward, row_process
from jaxrec_diff.diffusion import process as diffusion_process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.evaluation import rank, shown
from jaxrec_diff.evaluation.shown import Asked
from jaxrec_diff.models import diffrec, registry
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.diffrec import DiffRecConfig
from jaxrec_diff.nets import dropout
from jaxrec_diff.ops import filled
from jaxrec_diff.ops import rng as ops_rng
from jaxrec_diff.training import optim, state, step
from jaxrec_diff.training.config import TrainConfig
from tests.models.compiled import compiled
from tests.models.tables import filling, unfilled

ITEMS, KEY = 30, jax.random.key(5)
SPEC = DataSpec(num_users=9, num_items=ITEMS, max_len=5)
STRONG = ProcessConfig(num_steps=6, noise_scale=1.0, noise_min=0.1, noise_max=0.5)


def published(dataset, name="diffrec"):
    return config.preset(name, dataset).experiment.model.process


def batch(rows=9, most=12, seed=0, values=False):
    rng = np.random.default_rng(seed)
    items, value = np.zeros((rows, most), np.int32), np.zeros((rows, most), np.float32)
    for b in range(rows):
        size = rng.integers(1, most + 1)
        items[b, :size] = rng.permutation(ITEMS)[:size] + 1
        value[b, :size] = rng.uniform(0.2, 1.0, size) if values else 1.0
    row = jnp.arange(rows, dtype=jnp.int32)
    return Interactions(jnp.asarray(items), jnp.asarray(value), row, jnp.ones(rows), row)


def asked(of):
    return InteractionQuery(of.items, of.value, of.user, of.row_id)


def dense(of):
    out = np.zeros((len(of.items), ITEMS))
    for b, p in zip(*np.nonzero(np.asarray(of.items)), strict=True):
        out[b, of.items[b, p] - 1] = of.value[b, p]
    return out


def model_of(spec=SPEC, **settings):
    return compiled(diffrec.build(DiffRecConfig(**{"dims": (5, 8)} | settings), spec))


def fresh(model, scale=3.0):
    """Parameters far enough from zero that tanh bends."""
    variables = model.init(jax.random.key(0), batch())
    return variables._replace(params=jax.tree.map(lambda x: scale * x, variables.params))


def network(params, x, t):
    """f(x, t) in float64, a user at a time."""
    rows = dict.fromkeys(("table_in", "table_out", "bias_out"), ITEMS)
    p = unfilled(jax.tree.map(np.float64, params), **rows)
    half = p["step"]["kernel"].shape[0] // 2
    freq = np.exp(-np.log(1e4) * np.arange(half) / half)
    out = []
    for row, i in zip(np.float64(x), np.broadcast_to(t, len(x)), strict=True):
        e = np.concatenate([np.cos(i * freq), np.sin(i * freq)])
        e = e @ p["step"]["kernel"] + p["step"]["bias"]
        h = np.tanh(
            np.concatenate([row, e]) @ np.concatenate([p["table_in"], p["step_in"]]) + p["bias_in"]
        )
        for layer in range(sum(name.startswith("layers_") for name in p)):
            h = np.tanh(h @ p[f"layers_{layer}"]["kernel"] + p[f"layers_{layer}"]["bias"])
        out.append(p["table_out"] @ h + p["bias_out"])
    return np.array(out)


def levels(process: ProcessConfig):
    """(abar, abar before) of a linear-var process by its closed form."""
    v = np.linspace(
        process.noise_scale * process.noise_min,
        process.noise_scale * process.noise_max,
        process.num_steps,
    )
    bar = (1 - 1e-5) * (1 - v) / (1 - v[0]) if process.fix_first else 1 - v
    return bar, np.append(1.0, bar[:-1])


def plain_path(params, process, x, before=lambda x: x):
    """Algorithm 2 of the paper without noise, in float64."""
    bar, prev = levels(process)
    for i in reversed(range(process.num_steps)):
        alpha = bar[i] / prev[i]
        c1 = (1 - alpha) * np.sqrt(prev[i]) / (1 - bar[i])
        c2 = (1 - prev[i]) * np.sqrt(alpha) / (1 - bar[i])
        x = c1 * network(params, before(x), i) + c2 * x
    return x


def scores(model, params, extra, query, key=KEY):
    head = model.head(params, extra)
    points = model.sample(params, extra, key, query)
    found = points if head.table is None else points @ head.table.T
    return (found + (0.0 if head.bias is None else head.bias))[:, :ITEMS]


@pytest.mark.parametrize(
    "dataset, items, count",
    [
        ("ml-1m-clean", 2810, 3_622_320),
        ("ml-1m-noisy", 3494, 4_443_804),
        ("yelp-clean", 34395, 68_835_505),
        ("yelp-noisy", 77405, 154_898_515),
        ("amazon-book-clean", 94949, 190_004_059),
        ("amazon-book-noisy", 178181, 356_551_291),
    ],
)
def test_released_settings_have_the_released_number_of_parameters(dataset, items, count):
    experiment = config.preset("diffrec", dataset).experiment
    model = registry.system(experiment.model).build(
        experiment.model, SPEC._replace(num_items=items)
    )
    shapes = jax.eval_shape(model.init, KEY, batch())
    found = sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(shapes.params))
    width = experiment.model.dims[-1]
    assert found - 2 * filling(items, width) - filling(items) == count


# (1 - abar, w) by step of the released schedules.
@pytest.mark.parametrize(
    "dataset, rest, weight",
    [
        (
            "ml-1m-clean",
            {0: 1e-5, 1: 1.064103525661e-05, 2: 1.128207051326e-05, 39: 3.500037500892e-05},
            {0: 1, 1: 6024.18130566, 2: 5339.60614636, 39: 533.045656333},
        ),
        (
            "yelp-clean",
            {1: 3.25e-05, 2: 5.5e-05, 3: 7.75e-05, 4: 1e-4},
            {1: 69230.7692312, 2: 12587.4125874, 3: 5278.59237535, 4: 2903.22580646},
        ),
        (
            "ml-1m-noisy",
            {1: 1.135551525763e-03, 2: 2.261103051526e-03, 4: 4.512206103052e-03},
            {1: 99119.3706522, 2: 438.367329543, 3: 146.985374075, 4: 73.6555623261},
        ),
        (
            "amazon-book-clean",
            {1: 1.011249888061e-05, 4: 1.044999552258e-05},
            {1: 1112.47360306, 2: 1087.99398203, 3: 1064.31356705, 4: 1041.39794289},
        ),
    ],
)
def test_released_noise_levels_and_weights(dataset, rest, weight):
    process = published(dataset)
    betas = row_process.betas(process)
    assert betas[0] == 1e-5
    got = (
        forward.one_minus_alphas_cumprod(betas),
        row_process.step_weights(process, forward.levels(betas)),
    )
    for want, table in zip((rest, weight), got, strict=True):
        for t, value in want.items():
            np.testing.assert_allclose(table[t], value, rtol=1e-9)
    # cast once: what the loss multiplies by is right to float32
    made = row_process.make(process, SamplerConfig(kind="mean"))
    np.testing.assert_allclose(made.weights, got[1], rtol=1e-6)


@pytest.mark.parametrize(
    "dataset, result",
    [
        ("ml-1m-clean", 0.268791859169),
        ("amazon-book-clean", 0.489145656995),
        ("yelp-clean", 0.197290585314),
        ("ml-1m-noisy", 0.138159892649),
        ("yelp-noisy", 0.363252146956),
    ],
)
def test_reverse_path_of_a_halving_network(dataset, result):
    made = row_process.make(published(dataset), SamplerConfig(kind="mean"))
    assert not made.noisy
    got = diffusion_process.run(
        diffusion_process.Chain(made.steps, lambda x, t: 0.5 * x, jnp.ones((2, 3)))
    )
    np.testing.assert_allclose(got, result, rtol=2e-6)


def test_fixing_the_first_beta_changes_nothing_else():
    with_, without = (
        row_process.betas(dataclasses.replace(published("ml-1m-clean"), fix_first=fixed))
        for fixed in (True, False)
    )
    assert with_[0] == 1e-5 != without[0]
    np.testing.assert_array_equal(with_[1:], without[1:])


@pytest.mark.parametrize("dims", [(8,), (5, 8), (4, 6, 8)])
def test_network_is_the_bottleneck_of_the_paper(dims):
    model = model_of(dims=dims)
    params, extra = fresh(model)
    x = dense(batch())
    hidden = model.sample(params, extra, KEY, asked(batch()))
    assert hidden.shape == (9, dims[-1])
    # with no noise and one step the scores are one call at step 0
    single = model_of(dims=dims, process=ProcessConfig(num_steps=1))
    got = scores(single, params, extra, asked(batch()))
    np.testing.assert_allclose(got, network(params, x, 0), rtol=1e-4, atol=1e-4)


def behind(drawn, shape, value):
    """What was drawn for items, and something for the columns that fill rows up."""
    more = [(0, 0)] * (drawn.ndim - 1) + [(0, shape[-1] - drawn.shape[-1])]
    kind = jnp.bool_ if drawn.dtype == bool else jnp.float32
    return jnp.asarray(np.pad(drawn, more, constant_values=value), kind)


@pytest.mark.parametrize("weighting", ["auto", "bound", "uniform"])
@pytest.mark.parametrize("predict", ["x0", "eps"])
def test_loss_is_the_weighted_error_of_its_draws(monkeypatch, predict, weighting):
    process = dataclasses.replace(STRONG, predict=predict, weighting=weighting, fix_first=False)
    model, given = model_of(process=process, dropout_rate=0.0), batch(values=True)
    given = given._replace(weight=given.weight.at[4].set(0.0))
    params, extra = fresh(model)
    rng = np.random.default_rng(3)
    t = np.array([0, 1, 2, 3, 4, 5, 0, 2, 5])
    eps, inverse = rng.normal(size=(9, ITEMS)), rng.uniform(0.5, 2.0, 9)
    monkeypatch.setattr(ops_rng, "normal", lambda key, row_id, shape: behind(eps, shape, np.nan))
    monkeypatch.setattr(
        row_process, "draw_steps", lambda *args: (jnp.asarray(t), jnp.asarray(inverse, jnp.float32))
    )
    value, aux = model.loss(params, extra, KEY, given)

    x0, (bar, prev) = dense(given), levels(process)
    snr = bar / (1 - bar)
    signal, rest = np.sqrt(bar[t])[:, None], np.sqrt(1 - bar[t])[:, None]
    xt = signal * x0 + rest * eps
    out, each = network(params, xt, t), []
    for b, i in enumerate(t):
        alpha = bar[i] / prev[i]
        if weighting == "uniform":
            weight, error = 1.0, np.mean(((x0 if predict == "x0" else eps)[b] - out[b]) ** 2)
        elif predict == "x0":
            weight = 1.0 if i == 0 else snr[i - 1] - snr[i]
            weight *= 0.5 if weighting == "bound" and i > 0 else 1.0
            error = np.mean((x0[b] - out[b]) ** 2)
        elif i == 0:
            weight = 1.0
            error = 0.5 * np.mean((x0[b] - (xt[b] - rest[b] * out[b]) / signal[b]) ** 2)
        else:
            weight = 0.5 * (1 - alpha) / (alpha * (1 - prev[i]))
            error = np.mean((eps[b] - out[b]) ** 2)
        each.append(weight * error)
    each = np.array(each)
    real = np.arange(9) != 4
    np.testing.assert_allclose(value, np.mean((each * inverse)[real]), rtol=2e-4)
    # what the history keeps is weighted and not divided
    for i in range(6):
        kept = each[real & (t == i)]
        np.testing.assert_allclose(aux.state.history.losses[i, : len(kept)], kept, rtol=2e-4)
        assert aux.state.history.count[i] == len(kept)


def test_weights_of_the_bound_for_noise_are_its_own():
    # beta_i / (2 alpha_i (1 - abar_{i-1})); the released ones divide by the variance once more
    process = dataclasses.replace(published("yelp-clean"), predict="eps")
    betas = row_process.betas(process)
    auto = row_process.step_weights(process, forward.levels(betas))
    np.testing.assert_allclose(auto[1], 2.2500731 / 2, rtol=1e-6)
    released = dataclasses.replace(process, weighting="released")
    want = [1, 3.250073127405e5, 5.207217757929e4, 2.562041120166e4, 1.664969826849e4]
    np.testing.assert_allclose(
        row_process.step_weights(released, forward.levels(betas)), want, rtol=1e-9
    )


def test_dropout_acts_on_the_noised_row(monkeypatch):
    process = ProcessConfig(num_steps=1, noise_scale=0.0)
    model, given = model_of(process=process, dropout_rate=0.75), batch(values=True)
    params, extra = fresh(model)
    keep = np.arange(ITEMS) % 3 > 0
    monkeypatch.setattr(dropout, "keep_mask", lambda key, shape, rate: behind(keep, shape, True))
    value, _ = model.loss(params, extra, KEY, given)
    x0 = dense(given)
    want = np.mean((x0 - network(params, x0 * keep / 0.25, 0)) ** 2)
    np.testing.assert_allclose(value, want, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mean", "ddim", "dpmpp", "one_step"])
@pytest.mark.parametrize("values", [False, True], ids=["sets", "weighted"])
def test_hidden_path_equals_the_plain_path(kind, values):
    settings = {"process": STRONG, "sampler": SamplerConfig(kind=kind)}
    hidden, rows = model_of(**settings), model_of(path="rows", **settings)
    params, extra = fresh(hidden)
    query = asked(batch(values=values))
    want = rows.sample(params, extra, KEY, query)
    np.testing.assert_allclose(hidden.sample(params, extra, KEY, query), want, rtol=1e-4, atol=2e-5)
    prepared = hidden.precompute(params, extra)
    assert prepared.folded is not None
    np.testing.assert_allclose(
        hidden.sample(params, prepared, KEY, query), want, rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize("path", ["hidden", "rows"])
def test_mean_path_is_algorithm_2(path):
    model = model_of(process=STRONG, path=path)
    params, extra = fresh(model)
    got = scores(model, params, extra, asked(batch(values=True)))
    want = plain_path(params, STRONG, dense(batch(values=True)))
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def test_input_of_length_one():
    def unit(x):
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    model = model_of(process=STRONG, normalize=True)
    params, extra = fresh(model)
    got = scores(model, params, extra, asked(batch()))
    want = plain_path(params, STRONG, dense(batch()), before=unit)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    "settings",
    [{"noise_steps": 6}, {"sampler": SamplerConfig(kind="ddpm")}],
    ids=["noised start", "noise on the way"],
)
def test_noise_of_the_hidden_path_has_the_law_of_the_plain_path(settings):
    # One user 6000 times: means and covariances of the points agree within sampling error.
    count, settings = 6000, settings | {"process": STRONG}
    one = jax.tree.map(lambda x: jnp.repeat(x[:1], count, axis=0), asked(batch()))
    one = one._replace(row_id=jnp.arange(count))
    hidden, rows = model_of(**settings), model_of(path="rows", **settings)
    params, extra = fresh(hidden, scale=1.0)
    a, b = (
        np.float64(model.sample(params, extra, key, one))
        for model, key in ((hidden, jax.random.key(1)), (rows, jax.random.key(2)))
    )
    spread = b.std(axis=0)
    assert spread.min() > 1e-3  # there is a law to compare
    np.testing.assert_allclose((a.mean(axis=0) - b.mean(axis=0)) / spread, 0.0, atol=0.09)
    scale = spread[:, None] * spread
    np.testing.assert_allclose(np.cov(a.T) / scale, np.cov(b.T) / scale, atol=0.12)


@pytest.mark.parametrize("path", ["hidden", "rows"])
def test_start_and_way_draw_from_keys_of_their_own(path):
    settings = DiffRecConfig(
        dims=(8,), process=STRONG, noise_steps=3, sampler=SamplerConfig(kind="ddpm")
    )
    made = diffrec.parts(settings, SPEC)
    params, _ = diffrec.init(made, KEY, batch())
    walk = {
        "hidden": functools.partial(
            diffrec.through_hidden, made, params, diffrec.fold(made, params)
        ),
        "rows": functools.partial(diffrec.through_rows, made, params),
    }[path]

    def drawn(k_start, k_steps):
        keys = jax.random.key(k_start), jax.random.key(k_steps)
        chain = walk(*keys, asked(batch()))
        return np.asarray(chain.start), np.asarray(chain.draw(0))

    for place, other in ((0, (1, 9)), (1, (9, 2))):  # the other key of the two is another
        first, second = drawn(1, 2), drawn(*other)
        np.testing.assert_array_equal(first[place], second[place])
        assert np.abs(first[1 - place] - second[1 - place]).min() > 0


@pytest.mark.parametrize("dataset", ["ml-1m-clean", "ml-1m-noisy"])
def test_published_lists_do_not_depend_on_the_key_or_the_batch(dataset):
    settings = config.preset("diffrec", dataset).experiment.model
    model = compiled(diffrec.build(dataclasses.replace(settings, dims=(5, 8)), SPEC))
    params, extra = fresh(model)
    with jax.enable_x64(True):  # one row adds up in another order than nine
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        query = asked(batch())
        query = query._replace(value=jnp.asarray(query.value, jnp.float64))
        whole = scores(model, params, extra, query)
        other = scores(model, params, extra, query, jax.random.key(99))
        assert whole.dtype == jnp.float64
        np.testing.assert_array_equal(whole, other)
        for size in (1, 4):
            part = jax.tree.map(lambda x, size=size: x[3 : 3 + size], query)
            np.testing.assert_allclose(
                scores(model, params, extra, part), whole[3 : 3 + size], rtol=1e-5, atol=1e-6
            )


def test_items_have_no_order():
    model, order = model_of(process=STRONG), np.random.default_rng(0).permutation(ITEMS)
    params, extra = fresh(model)
    moved = dict(params)
    for name in ("table_in", "table_out", "bias_out"):
        moved[name] = filled.padded(params[name][:ITEMS][order])
    place = np.argsort(order)  # item j stands at place[j] of the moved catalogue
    query = asked(batch())
    items = jnp.where(query.items > 0, jnp.asarray(place)[query.items - 1] + 1, 0)
    got = scores(model, moved, extra, query._replace(items=items))
    want = scores(model, params, extra, query)
    np.testing.assert_allclose(got, want[:, order], rtol=1e-4, atol=1e-5)


def test_without_noise_the_network_is_applied_to_its_own_output():
    model = model_of(process=ProcessConfig(num_steps=3, noise_scale=0.0))
    params, extra = fresh(model, scale=1.5)
    x = dense(batch())
    for i in (2, 1, 0):
        x = network(params, x, i)
    np.testing.assert_allclose(scores(model, params, extra, asked(batch())), x, atol=1e-4)
    value, _ = model.loss(params, extra, KEY, batch())
    assert np.isfinite(value)


def test_noise_prediction_returns_rows_of_scores():
    process = dataclasses.replace(STRONG, predict="eps", fix_first=False)
    model = model_of(process=process)
    params, extra = fresh(model, scale=1.0)
    (bar, prev), x = levels(process), dense(batch())
    for i in reversed(range(6)):
        x0 = (x - np.sqrt(1 - bar[i]) * network(params, x, i)) / np.sqrt(bar[i])
        alpha = bar[i] / prev[i]
        c1 = (1 - alpha) * np.sqrt(prev[i]) / (1 - bar[i])
        x = c1 * x0 + (1 - prev[i]) * np.sqrt(alpha) / (1 - bar[i]) * x
    got = scores(model, params, extra, asked(batch()))
    np.testing.assert_allclose(got, x, rtol=2e-4, atol=2e-4)


def test_users_with_one_item_or_none_get_lists():
    model = model_of()
    params, extra = fresh(model)
    query = InteractionQuery(
        jnp.array([[4, 0], [0, 0]]), jnp.array([[1.0, 0.0], [0.0, 0.0]]),
        jnp.arange(2), jnp.arange(2),
    )  # fmt: skip
    head = model.head(params, extra)
    drawn = rank.Drawn(model.sample(params, extra, KEY, query), head)
    found = rank.top(drawn, k=5, seen=query.items)
    assert np.isfinite(found.scores).all() and 4 not in np.asarray(found.items[0])


def test_eight_users_are_learned_by_heart():
    process = ProcessConfig(num_steps=5, noise_scale=0.01)
    model = model_of(dims=(64,), process=process, dropout_rate=0.0)
    given = batch(8, 12)
    optimizer = optim.make(TrainConfig(learning_rate=1e-2), 1)
    train = state.create(model.init(jax.random.key(0), given), optimizer)
    update = jax.jit(lambda train: step.update(model, optimizer, train, KEY, given))
    errors = []
    for _ in range(150):
        train, metrics = update(train)
        errors.append(float(metrics["loss"]))
    assert np.mean(errors[-10:]) < np.mean(errors[:10]) / 10
    got, liked = scores(model, train.params, train.state, asked(given)), dense(given) > 0
    for row, mine in zip(np.asarray(got), liked, strict=True):
        assert row[mine].min() > row[~mine].max()


@pytest.mark.parametrize(
    "settings, message",
    [
        (lambda: ProcessConfig(noise_min=0.02, noise_max=0.01), "noise-max=0.01 is below"),
        (lambda: ProcessConfig(noise_min=0.0), "noise-min must be above 0"),
        (lambda: ProcessConfig(num_steps=0), "num-steps must be at least 1"),
        (lambda: DiffRecConfig(noise_steps=6), r"noise-steps must lie in \[0, 5\], got 6"),
        (lambda: DiffRecConfig(dims=()), "model.dims must be positive widths"),
        (lambda: DiffRecConfig(sampler=SamplerConfig(kind="closed_form")), "affine denoiser"),
        *(
            (lambda given=given: DiffRecConfig(process=ProcessConfig(noise_scale=0), **given), said)
            for given, said in (
                ({"sampler": SamplerConfig(kind="ddim")}, "kind=ddim means nothing .* is mean"),
                ({"sampler": SamplerConfig(kind="mean", steps=2)}, "steps=2 means .* is 0"),
                ({"noise_steps": 1}, "noise-steps=1 means nothing .* is 0"),
            )
        ),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()


def test_both_paths_are_shown_the_same_row_with_its_answers():
    hidden, rows = model_of(process=STRONG), model_of(process=STRONG, path="rows")
    example = batch(values=True)
    variables, query = hidden.init(KEY, example), asked(example)
    answers = jnp.asarray(np.random.default_rng(1).integers(1, ITEMS + 1, (9, 3)))
    whole = dense(example)
    for b, row in enumerate(np.asarray(answers)):
        heaviest = whole[b].max()
        for item in row:  # an answer that the row has keeps its own value
            whole[b, item - 1] = whole[b, item - 1] or heaviest
    clean = rows.noised(*variables, KEY, query, answers, jnp.int32(0))
    noise = rows.noised(*variables, KEY, query, jnp.zeros_like(answers), jnp.int32(0))
    signal = row_process.make(STRONG, SamplerConfig()).tables.signal[0]
    np.testing.assert_allclose(clean - noise, signal * (whole - dense(example)), atol=1e-5)
    for each in (shown.the_answer, shown.nothing):
        points = [
            shown.seen_through(model, each).sample(
                *variables, KEY, Asked(query, query, answers, query.row_id)
            )
            for model in (hidden, rows)
        ]
        np.testing.assert_allclose(*points, atol=2e-5)
