"""Tables of tiny noise: identities in float64, and values worked out apart from the code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion import weights as diffusion_weights
from jaxrec_diff.diffusion.timesteps import History
from jaxrec_diff.evaluation import metrics
from jaxrec_diff.evaluation.ranking import Top
from jaxrec_diff.nets.embeddings import sinusoidal


def linear_var(steps, scale, low, high, first=True):
    return schedules.linear_var(steps, scale=scale, noise_min=low, noise_max=high, beta_first=first)


SCHEDULES = {
    "ml-1m-clean": linear_var(40, 5e-3, 5e-3, 1e-2),
    "yelp-clean": linear_var(5, 0.01, 1e-3, 1e-2),
    "ml-1m-noisy": linear_var(5, 0.5, 1e-3, 1e-2),
    "amazon-clean": linear_var(5, 1e-4, 5e-4, 5e-3),
    "latent-amazon-clean": linear_var(5, 0.5, 1e-3, 5e-3, False),
    "latent-ml-1m-noisy": linear_var(100, 5e-3, 5e-3, 2e-2, False),
    "program-default": linear_var(100, 0.1, 1e-4, 0.02),
    "cosine": schedules.cosine(5),
    "binomial": schedules.binomial(5),
    "linear": schedules.linear_diffrec(5, scale=1e-3, noise_min=5e-4, noise_max=5e-3),
}
EVERY = pytest.mark.parametrize("betas", SCHEDULES.values(), ids=SCHEDULES)


def near(got, want, rtol=1e-9, **more):
    np.testing.assert_allclose(got, want, rtol=rtol, **more)


@EVERY
def test_identities(betas):
    bar, rest = forward.alphas_cumprod(betas), forward.one_minus_alphas_cumprod(betas)
    bar_before, rest_before = np.append(1.0, bar[:-1]), np.append(0.0, rest[:-1])
    posterior, snr = forward.posterior(forward.levels(betas)), forward.snr(forward.levels(betas))
    # a row without noise moves to a row without noise, and noise levels move down the schedule
    near(posterior.c1 + posterior.c2 * np.sqrt(bar), np.sqrt(bar_before))
    near(posterior.c2**2 * rest + posterior.var, rest_before, atol=1e-18)
    near(posterior.c1[0], 1.0, rtol=1e-11)
    assert posterior.c2[0] == posterior.var[0] == 0.0
    weights = diffusion_weights.diffrec_x0(forward.levels(betas))
    near(weights[1:], posterior.c1[1:] ** 2 / posterior.var[1:], rtol=1e-6)
    assert weights[0] == 1.0 and (weights > 0).all() and (np.diff(snr) < 0).all()
    product = rest[0] * np.sqrt(bar[-1] / bar[0]) / rest[-1]
    near(np.prod(posterior.c2[1:]), product)


NETWORKS = (
    lambda x, t: jnp.full_like(x, 7.0),
    lambda x, t: jnp.full_like(x, t),
    lambda x, t: jnp.where(t > 0, 0.0, x),
)


@jax.jit
def ends(steps, start):
    return [process.run(process.Chain(steps, network, start)) for network in NETWORKS]


@EVERY
def test_paths_of_simple_networks(betas):
    steps = samplers.ddpm_steps(forward.levels(betas), temperature=0.0)
    total = len(betas)
    seven, step, shrunk = map(np.asarray, ends(steps, jnp.full((1, 2), 3.0)))
    near(seven, 7.0, rtol=1e-6)
    assert (step == 0.0).all()  # only the last call counts
    kept = float(np.prod(forward.posterior(forward.levels(betas)).c2[1:]))
    # before the last step the row has shrunk by the product of c2
    near(shrunk, 3.0 * kept, rtol=1e-5 * total, atol=1e-12)


def test_levels_without_a_fixed_first_beta_are_even():
    rest = forward.one_minus_alphas_cumprod(SCHEDULES["latent-amazon-clean"])
    near(rest, [5e-4, 1e-3, 1.5e-3, 2e-3, 2.5e-3])
    level = np.linspace(2.5e-5, 5e-5, 40)
    near(
        forward.alphas_cumprod(SCHEDULES["ml-1m-clean"]),
        (1 - 1e-5) * (1 - level) / (1 - level[0]),
    )


def test_posteriors():
    clean = forward.posterior(forward.levels(SCHEDULES["ml-1m-clean"]))
    near(SCHEDULES["ml-1m-clean"][[1, 2, 39]],
         [6.410416670821e-07, 6.410420779757e-07, 6.410572829241e-07])  # fmt: skip
    near(clean.c1[[1, 2, 39]], [0.060242114269, 0.056819239566, 0.018315411464])
    near(clean.c2[[1, 2, 39]], [0.939757885732, 0.943180760431, 0.981684588532])
    near(forward.alphas_cumprod(SCHEDULES["ml-1m-clean"])[-1], 0.999964999624991, rtol=1e-13)
    near(np.prod(clean.c2[1:]), 0.285707652947)
    yelp = forward.posterior(forward.levels(SCHEDULES["yelp-clean"]))
    near(yelp.c1[1:], [0.692311153873, 0.409097556982, 0.290330564844, 0.225008719257])
    near(yelp.c2[1:], [0.307688846098, 0.590902442928, 0.709669435001, 0.774991280525])
    near(np.prod(yelp.c2[1:]), 0.099995499853)
    noisy = forward.posterior(forward.levels(SCHEDULES["ml-1m-noisy"]))
    near([noisy.c1[1], noisy.c2[1]], [0.991198662524, 0.008801336069])
    near(forward.posterior(forward.levels(SCHEDULES["amazon-clean"])).c1[4], 0.010765503381)
    latent = forward.posterior(forward.levels(SCHEDULES["latent-amazon-clean"]))
    near(latent.c1, [1, 0.500125046895, 0.333500125104, 0.250187711202, 0.200200300501])
    near([latent.c2[4], latent.var[4]], [0.799799574092, 4.008016032064e-04])
    long = SCHEDULES["latent-ml-1m-noisy"]
    near(forward.alphas_cumprod(long)[[0, 99]], [0.999975, 0.9999], rtol=1e-13)
    near(forward.posterior(forward.levels(long)).c1[99], 0.007576133522)


def test_weights():
    weights = {
        name: diffusion_weights.diffrec_x0(forward.levels(betas))
        for name, betas in SCHEDULES.items()
    }
    near(weights["latent-amazon-clean"], [1, 1000, 1000 / 3, 500 / 3, 100])
    near(weights["latent-ml-1m-noisy"][[1, 99]], [1176.47058822, 76.3358778621])
    near(weights["program-default"][[1, 99]], [66778.5234904, 5.07627161878])


def test_other_schedules():
    near(SCHEDULES["cosine"], [0.1012940794, 0.279543845984, 0.473635353449, 0.724052369108, 0.999])
    near(forward.alphas_cumprod(SCHEDULES["cosine"])[-1], 9.404561267665e-05)
    near(SCHEDULES["binomial"], [1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2])
    near(forward.alphas_cumprod(SCHEDULES["binomial"]), np.array([5, 4, 3, 2, 1]) / 6)
    near(SCHEDULES["linear"], [1e-5, 1.625e-6, 2.75e-6, 3.875e-6, 5e-6])
    near(forward.alphas_cumprod(SCHEDULES["linear"])[-1], 0.999976750195, rtol=1e-12)


def test_noise_prediction():
    bar = forward.alphas_cumprod(SCHEDULES["yelp-clean"])
    rest = forward.one_minus_alphas_cumprod(SCHEDULES["yelp-clean"])
    near(
        1 / np.sqrt(bar),
        [1.000005000038, 1.000016250396, 1.000027501134, 1.000038752252, 1.00005000375],
        rtol=1e-12,
    )
    near(
        np.sqrt(rest / bar),
        [0.003162293472, 0.005700969767, 0.007416402441, 0.008803749583, 0.010000500037],
    )
    table = forward.tables(forward.levels(SCHEDULES["yelp-clean"]))
    x0, eps = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    for t in range(5):
        xt = table.signal[t] * x0 + table.noise[t] * eps
        near(forward.x0_from_eps(eps, xt, table.signal[t], table.noise[t]), x0, rtol=1e-6)


def test_step_embedding():
    got = sinusoidal(jnp.array([0, 1, 39]), 10, variant="cos_sin")
    near(got[0], [1] * 5 + [0] * 5)
    near(
        got[1],
        [0.540302305868, 0.987466835729, 0.999684537915, 0.999992075545, 0.999999800946,
         0.841470984808, 0.157826640130, 0.025116222910, 0.003981061190, 0.000630957303],
        rtol=2e-6,
    )  # fmt: skip
    near(
        got[2],
        [0.266642932360, 0.994792132044, 0.557325053107, 0.987971080745, 0.999697254774,
         0.963795386288, -0.101924550638, 0.830294396693, 0.154638751974, 0.024604853133],
        rtol=1e-5,
    )  # fmt: skip
    odd = sinusoidal(jnp.array([1]), 5, variant="cos_sin")
    assert odd.shape == (1, 5) and odd[0, -1] == 0.0


def full(*rows):
    return History(jnp.array(rows, jnp.float32), jnp.full(len(rows), len(rows[0])))


def test_importance_of_steps():
    p = timesteps.importance_probs(full(*([float(i)] * 10 for i in (1, 2, 3))))
    near(p, [0.1668333333, 0.3333333333, 0.4998333333], rtol=1e-6)
    near(3 * p, [0.5005, 1.0, 1.4995], rtol=1e-6)
    p = timesteps.importance_probs(full(list(range(1, 11)), [5] * 10))
    near(p, [0.553710375492, 0.446289624508], rtol=1e-6)
    for history in (full([2.0] * 10, [2.0] * 10), History(jnp.ones((2, 10)), jnp.array([10, 9]))):
        near(timesteps.importance_probs(history), [0.5, 0.5], rtol=1e-6)


def test_importance_draws_are_unbiased():
    history = full([100.0] * 10, [1.0] * 10, [10.0] * 10)
    t, inverse = timesteps.importance(jax.random.key(0), jnp.arange(200_000), history)
    p = np.float64(timesteps.importance_probs(history))
    assert p.min() >= 0.001 / 3
    near(np.bincount(t, minlength=3) / len(t), p, rtol=0.05)
    # the mean of 1 / (T p) g(t) is the plain mean of g
    g = np.array([1.0, 4.0, 7.0])
    near(np.mean(np.float64(inverse) * g[t]), g.mean(), rtol=0.05)


def test_metrics_by_hand():
    top = Top(jnp.arange(11.0, 0.0, -1.0)[None], jnp.array([[7, 1, 3, 2, 5, 4, 6, 8, 10, 11, 12]]))
    wanted = jnp.array([[3, 7, 9], [0, 0, 0]])
    top = Top(*(jnp.repeat(part, 2, axis=0) for part in top))
    found = metrics.per_user(top, wanted, (10,))
    near(found["precision@10"], [0.2, 0.0], rtol=1e-6)
    near(found["recall@10"], [2 / 3, 0.0], rtol=1e-6)
    near(found["ndcg@10"], [1.5 / 2.130929754, 0.0], rtol=1e-6)
    near(found["mrr@10"], [1.0, 0.0])
