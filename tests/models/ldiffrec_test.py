"""L-DiffRec against plain float64 loops over users, clusters and items."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.diffusion import process as diffusion_process
from jaxrec_diff.diffusion import row_process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.models import ldiffrec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.ldiffrec import LDiffRecConfig
from jaxrec_diff.nets import clustered, dropout
from jaxrec_diff.ops import rng as ops_rng
from jaxrec_diff.ops.ragged import Ragged
from jaxrec_diff.training import optim
from tests.models.compiled import compiled

ITEMS, KEY = 24, jax.random.key(3)
# Clusters of 13, 1 and 10 items, scattered over the catalogue.
CLUSTERS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [13, 1, 10])).astype(np.int32)
SPEC = DataSpec(num_users=8, num_items=ITEMS, max_len=5, exports={"clusters": CLUSTERS})
STRONG = ProcessConfig(num_steps=4, noise_scale=1.0, noise_min=0.1, noise_max=0.5, fix_first=False)
SMALL = LDiffRecConfig(clusters=3, encoder_dims=(8,), denoiser_dims=(5,), process=STRONG)
DEEP = dataclasses.replace(SMALL, encoder_dims=(8, 12), decoder="clustered")


def batch(rows=8, most=10, seed=0):
    rng = np.random.default_rng(seed)
    items, value = np.zeros((rows, most), np.int32), np.zeros((rows, most), np.float32)
    for b in range(rows):
        size = rng.integers(1, most + 1)
        items[b, :size] = rng.permutation(ITEMS)[:size] + 1
        value[b, :size] = rng.uniform(0.2, 1.0, size)
    row = jnp.arange(rows, dtype=jnp.int32)
    return Interactions(jnp.asarray(items), jnp.asarray(value), row, jnp.ones(rows), row)


def asked(of):
    return InteractionQuery(of.items, of.value, of.user, of.row_id)


def dense(of, value=None):
    out = np.zeros((len(of.items), ITEMS))
    for b, p in zip(*np.nonzero(np.asarray(of.items)), strict=True):
        out[b, of.items[b, p] - 1] = (of.value if value is None else value)[b, p]
    return out


def fresh(model, scale=2.0):
    variables = model.init(jax.random.key(0), batch())
    moved = jax.tree.map(  # biases start at zero, where a lost one would not be noticed
        lambda x: scale * x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape),
        variables.params,
    )
    return variables._replace(params=moved)


def dense_layer(p, name, x):
    return x @ p[name]["kernel"] + p[name]["bias"]


def encode(settings, params, x):
    """Means and log variances, float64[B, Z] each."""
    p, means, logs = jax.tree.map(np.float64, params), [], []
    for c in range(settings.clusters):
        e = p[f"encoder_{c}"]
        h = np.tanh(x[:, CLUSTERS == c] @ e["table"] + e["bias"])
        for layer in range(len(settings.encoder_dims) - 1):
            h = np.tanh(dense_layer(e, f"Dense_{layer}", h))
        half = h.shape[1] // 2
        means.append(h[:, :half])
        logs.append(h[:, half:])
    return np.concatenate(means, axis=1), np.concatenate(logs, axis=1)


def decode(settings, params, z):
    p = jax.tree.map(np.float64, params)
    if settings.decoder == "joint":
        return z @ p["decoder_0"]["table"].T + p["decoder_0"]["bias"]
    out, first = np.zeros((len(z), ITEMS)), 0
    for c in range(settings.clusters):
        d = p[f"decoder_{c}"]
        width = d["layers_0"]["kernel"].shape[0] if "layers_0" in d else d["table"].shape[1]
        h = z[:, first : first + width]
        first += width
        for layer in range(len(settings.encoder_dims) - 1):
            h = np.tanh(dense_layer(d, f"layers_{layer}", h))
        out[:, CLUSTERS == c] = h @ d["table"].T + d["bias"]
    return out


def denoise(params, z, t):
    p = jax.tree.map(np.float64, params)["denoiser"]
    half = p["step"]["kernel"].shape[0] // 2
    angle = np.broadcast_to(t, len(z))[:, None] * np.exp(-np.log(1e4) * np.arange(half) / half)
    e = dense_layer(p, "step", np.concatenate([np.cos(angle), np.sin(angle)], axis=1))
    h = np.tanh(z @ p["table_in"] + e @ p["step_in"] + p["bias_in"])
    return h @ p["table_out"].T + p["bias_out"]


def bars(process):
    v = np.linspace(process.noise_min, process.noise_max, process.num_steps)
    return 1 - v * process.noise_scale


@pytest.mark.parametrize(
    "sizes, count",
    [
        ((2804, 175377), 157_662_407),
        ((9495, 85454), 75_478_819),
        ((1850, 960), 1_956_780),
        ((94949,), 85_733_359),
    ],
)
def test_released_settings_have_the_released_number_of_parameters(sizes, count):
    given = np.repeat(np.arange(len(sizes)), sizes)
    spec = SPEC._replace(num_items=len(given), exports={"clusters": given})
    model = compiled(ldiffrec.build(LDiffRecConfig(clusters=len(sizes)), spec))
    shapes = jax.eval_shape(model.init, KEY, batch())
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(shapes.params)) == count


@pytest.mark.parametrize(
    "sizes, latent",
    [
        ((9495, 85454), (30, 270)),
        ((2804, 175377), (4, 296)),
        ((1850, 960), (197, 103)),
        ((957, 624, 1229), (102, 66, 132)),
        ((5, 3000, 2), (1, 298, 1)),  # released: 300 - 1 - 299 = 0 for the last
    ],
)
def test_latent_is_shared_by_size(sizes, latent):
    found = clustered.arrange(np.array(sizes), (300,))
    got = tuple(widths[0] for widths in found.widths)
    assert got == latent and found.latent == 300


def test_annealing():
    half = LDiffRecConfig(diffusion_weight=0.03)
    for epoch, want in ((0, 0.03), (100, 0.024), (400, 0.006), (417, 0.005), (2000, 0.005)):
        np.testing.assert_allclose(ldiffrec.diffusion_weight(half, epoch), want, rtol=1e-6)
    for n, want in ((0, 0.0), (10, 0.05), (60, 0.3), (10_000, 0.3)):
        np.testing.assert_allclose(ldiffrec.kl_weight(half, n), want, rtol=1e-6)
    still = LDiffRecConfig(diffusion_epochs=0, kl_steps=0)
    np.testing.assert_allclose(ldiffrec.diffusion_weight(still, 10_000), 0.03)
    np.testing.assert_allclose(ldiffrec.kl_weight(still, 0), 0.3)


def test_divergence_and_likelihood():
    zero, one = jnp.zeros((1, 4)), jnp.ones((1, 4))
    assert ldiffrec.divergence(zero, zero) == 0.0
    np.testing.assert_allclose(ldiffrec.divergence(one, zero), 2.0)
    np.testing.assert_allclose(ldiffrec.divergence(one, one), 4 * 0.859141, rtol=1e-6)
    items, value = jnp.array([[3, 1, 0]]), jnp.array([[2.0, 0.5, 0.0]])
    np.testing.assert_allclose(
        ldiffrec.likelihood(jnp.full((1, 3), 7.0), items, value), 2.5 * np.log(3), rtol=1e-6
    )
    # -sum_j x_j log softmax_j over dense rows in float64, and its gradient x.sum softmax - x
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5))
    dense = np.array([[0.0, 0.5, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.5]])
    items, value = np.array([[4, 2, 0], [5, 0, 0]]), np.array([[2.0, 0.5, 0], [1.5, 0, 0]])
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = jnp.asarray(logits, jnp.float32), jnp.asarray(items), jnp.asarray(value, jnp.float32)
    want = -np.sum(dense * np.log(share), axis=1)
    np.testing.assert_allclose(ldiffrec.likelihood(*given), want, rtol=1e-5)
    got = jax.grad(lambda x: ldiffrec.likelihood(x, *given[1:]).sum())(given[0])
    want = dense.sum(axis=1, keepdims=True) * share - dense
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("dataset, result", [
    ("amazon-book-clean", 0.245994750329), ("ml-1m-noisy", 0.250706533073)
])  # fmt: skip
def test_reverse_path_of_a_halving_network(dataset, result):
    process = config.preset("ldiffrec", dataset).experiment.model.process
    made = row_process.make(process, SamplerConfig(kind="mean"))
    got = diffusion_process.run(
        diffusion_process.Chain(made.steps, lambda x, t: 0.5 * x, jnp.ones((2, 3)))
    )
    np.testing.assert_allclose(got, result, rtol=5e-6)


@pytest.mark.parametrize("updates, examples", [(0, 0), (30, 8 * 250 + 3)])
@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        DEEP,
        dataclasses.replace(SMALL, clean_target=True, sampled_latent=False),
        dataclasses.replace(SMALL, process=dataclasses.replace(STRONG, predict="eps")),
    ],
    ids=["joint", "deep", "clean", "eps"],
)
def test_loss_is_its_three_terms(monkeypatch, settings, updates, examples):
    model, given = compiled(ldiffrec.build(settings, SPEC)), batch()
    params, extra = fresh(model)
    extra = extra._replace(updates=jnp.int32(updates), examples=jnp.int32(examples))
    rng = np.random.default_rng(2)
    t, inverse = np.array([0, 1, 2, 3, 0, 1, 2, 3]), rng.uniform(0.5, 2.0, 8)
    eps = rng.normal(size=(8, 8))
    monkeypatch.setattr(ops_rng, "normal", lambda *args: jnp.asarray(eps, jnp.float32))
    monkeypatch.setattr(
        row_process, "draw_steps", lambda *args: (jnp.asarray(t), jnp.asarray(inverse, jnp.float32))
    )
    keep = np.arange(10) % 4 > 0
    monkeypatch.setattr(
        dropout, "keep_mask",
        lambda key, shape, rate: jnp.asarray(keep if shape == (10,) else np.arange(8) % 2 == 0),
    )  # fmt: skip
    value, aux = model.loss(params, extra, KEY, given)

    x = dense(given, np.where(keep, given.value / 0.9, 0.0))
    mean, log = encode(settings, params, x)
    z0 = mean + (np.exp(0.5 * log) * eps if settings.sampled_latent else 0.0)
    bar = bars(STRONG)
    signal, rest = np.sqrt(bar[t])[:, None], np.sqrt(1 - bar[t])[:, None]
    zt = signal * z0 + rest * eps
    out = denoise(params, np.where(np.arange(8) % 2 == 0, zt / 0.5, 0.0), t)
    snr = bar / (1 - bar)
    if settings.process.predict == "x0":
        z0_hat, weight = out, np.append(1.0, snr[:-1] - snr[1:])[t]
        each = weight * np.mean((out - z0) ** 2, axis=1)
    else:
        z0_hat = (zt - rest * out) / signal
        kl = 0.5 * (snr[:-1] / snr[1:] - 1)
        each = np.where(
            t == 0,
            0.5 * np.mean((z0_hat - z0) ** 2, axis=1),
            np.append(0.0, kl)[t] * np.mean((out - eps) ** 2, axis=1),
        )
    logits = decode(settings, params, z0_hat)
    logp = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    nll = -np.sum(logp * (dense(given) if settings.clean_target else x), axis=1)
    kl = 0.5 * np.sum(mean**2 + np.exp(log) - log - 1, axis=1)
    lam = max(0.03 * (1 - (examples // 8) / 500), 0.005)
    want = lam * np.mean(each * inverse) + np.mean(nll) + min(0.3, updates / 200) * np.mean(kl)
    np.testing.assert_allclose(value, want, rtol=2e-4)
    np.testing.assert_allclose(aux.metrics["diffusion"], np.mean(each * inverse), rtol=5e-4)
    assert aux.state.updates == updates + 1 and aux.state.examples == examples + 8
    np.testing.assert_allclose(aux.state.history.losses[0, :2], each[[0, 4]], rtol=1e-3)


@pytest.mark.parametrize("settings", [SMALL, DEEP], ids=["joint", "deep"])
def test_scores_are_decoded_means_of_the_reverse_path(settings):
    model = compiled(ldiffrec.build(settings, SPEC))
    params, extra = fresh(model)
    z, _ = encode(settings, params, dense(batch()))
    bar = bars(STRONG)
    prev = np.append(1.0, bar[:-1])
    for i in reversed(range(4)):
        alpha = bar[i] / prev[i]
        c1 = (1 - alpha) * np.sqrt(prev[i]) / (1 - bar[i])
        c2 = (1 - prev[i]) * np.sqrt(alpha) / (1 - bar[i])
        z = c1 * denoise(params, z, i) + c2 * z
    head = model.head(params, extra)
    got = model.sample(params, extra, KEY, asked(batch())) @ head.table.T + head.bias
    np.testing.assert_allclose(got, decode(settings, params, z), rtol=2e-4, atol=2e-4)


def test_target_can_be_kept_from_the_encoders():
    # With lambda alone and no gradient through the input the encoders feel the target or nothing.
    def pull(detach):
        model = compiled(ldiffrec.build(dataclasses.replace(SMALL, detach_target=detach), SPEC))
        params, extra = fresh(model)
        grad = jax.grad(lambda p: model.loss(p, extra, KEY, batch())[1].metrics["diffusion"])
        blind = params | {"denoiser": jax.tree.map(jnp.zeros_like, params["denoiser"])}
        return max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grad(blind)["encoder_0"]))

    assert pull(True) == 0.0 < pull(False)


def test_the_checkpoint_says_which_item_is_in_which_cluster():
    model = compiled(ldiffrec.build(SMALL, SPEC))
    params, extra = fresh(model)
    np.testing.assert_array_equal(extra.cluster, CLUSTERS)
    others = SPEC._replace(exports={"clusters": np.sort(CLUSTERS)})
    elsewhere = compiled(ldiffrec.build(SMALL, others))
    for a, b in zip(
        (model.sample(params, extra, KEY, asked(batch())), *model.head(params, extra)),
        (elsewhere.sample(params, extra, KEY, asked(batch())), *elsewhere.head(params, extra)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_passes_are_counted_over_users_with_items():
    rows = Ragged(
        np.ones(9, np.int32), np.array([0, 3, 3]), np.array([3, 3, 9]), np.array([3, 3, 9])
    )
    model = compiled(ldiffrec.build(SMALL, SPEC._replace(user_items=rows)))
    params, extra = fresh(model)
    for seen, epoch in ((1, 0), (2, 1), (201, 100)):
        aux = model.loss(params, extra._replace(examples=jnp.int32(seen)), KEY, batch())[1]
        want = 0.03 * (1 - epoch / 500)
        np.testing.assert_allclose(aux.metrics["diffusion_weight"], want, rtol=1e-6)


def test_items_are_clustered_by_their_embeddings():
    truth = np.arange(ITEMS) % 2
    points = 5.0 * truth[:, None] + np.random.default_rng(0).normal(size=(ITEMS, 4))
    spec = SPEC._replace(exports={"items": points})
    settings = dataclasses.replace(SMALL, clusters=2)
    found = jax.jit(lambda: jnp.asarray(ldiffrec.clusters(settings, spec)))()  # also under a trace
    assert (
        len({(a, b) for a, b in zip(truth.tolist(), np.asarray(found).tolist(), strict=True)}) == 2
    )


def test_the_backbones_own_table_is_clustered_where_there_is_one():
    ego, ranked = np.random.default_rng(0).normal(size=(2, ITEMS, 4))
    settings = dataclasses.replace(SMALL, clusters=2)

    def found(settings, **exports):
        return ldiffrec.clusters(settings, SPEC._replace(exports=exports)).tolist()

    assert found(settings, items=ego) != found(settings, items=ranked)
    assert found(settings, items=ranked, ego_items=ego) == found(settings, items=ego)
    as_ranked = dataclasses.replace(settings, cluster_by="items")
    assert found(as_ranked, items=ranked, ego_items=ego) == found(settings, items=ranked)


def test_published_lists_do_not_depend_on_the_key_or_the_batch():
    published = config.preset("ltdiffrec", "ml-1m-clean").experiment.model
    settings = dataclasses.replace(SMALL, process=published.process, sampler=published.sampler)
    model = compiled(ldiffrec.build(settings, SPEC))
    params, extra = fresh(model)
    whole = model.sample(params, extra, KEY, asked(batch()))
    np.testing.assert_array_equal(
        whole, model.sample(params, extra, jax.random.key(8), asked(batch()))
    )
    part = jax.tree.map(lambda x: x[2:3], asked(batch()))
    np.testing.assert_allclose(
        model.sample(params, extra, KEY, part), whole[2:3], rtol=1e-5, atol=1e-6
    )


def test_two_learning_rates_by_path():
    experiment = config.preset("ldiffrec", "ml-1m-clean").experiment
    params, _ = fresh(compiled(ldiffrec.build(SMALL, SPEC)))
    labels = optim.labels(experiment.train.rules, params)
    assert set(jax.tree.leaves(labels.pop("denoiser"))) == {"0"}
    assert set(jax.tree.leaves(labels)) == {"default"}
    rate = experiment.train.learning_rate
    assert (rate, rate * experiment.train.rules[0].learning_rate) == (1e-3, 5e-4)


@pytest.mark.parametrize(
    "settings, exports, message",
    [
        ({}, {}, "model.clusters=2 needs embeddings of items"),
        ({}, {"items": np.zeros((5, 3))}, r"has shape \(5, 3\), but there are 24 items"),
        ({}, {"clusters": np.zeros(ITEMS, int)}, "must hold the numbers 0 to 1"),
        ({"clusters": 9, "encoder_dims": (8,)}, {}, "clusters=9 needs a unit a cluster"),
        ({"noise_steps": 9}, {}, r"noise-steps must lie in \[0, 5\], got 9"),
        ({"kl_weight": -1.0}, {}, "kl-weight must be at least 0"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(settings, exports, message):
    with pytest.raises(ValueError, match=message):
        ldiffrec.build(LDiffRecConfig(**settings), SPEC._replace(exports=exports))


def test_one_cluster_needs_no_embeddings():
    model = compiled(
        ldiffrec.build(dataclasses.replace(SMALL, clusters=1), SPEC._replace(exports={}))
    )
    params, extra = fresh(model)
    value, _ = model.loss(params, extra, KEY, batch())
    assert np.isfinite(value) and not np.asarray(extra.cluster).any()
