"""The toolbox against float64 reference values; setting R is T = 5, betas linear 1e-4 .. 0.02."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import losses
from jaxrec_diff.diffusion import (
    closed_form,
    forward,
    guidance,
    process,
    samplers,
    schedules,
    sphere,
    timesteps,
    weights,
)
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.ops import rng as ops_rng

R = np.linspace(1e-4, 0.02, 5)
LEVELS = forward.levels(R)
X0, EPS, Z = np.array([1, -0.5, 0.25]), np.array([0.3, -1.2, 0.7]), np.array([-0.4, 0.9, 0.1])
X3 = np.array([1.03683637579, -0.700191118309, 0.367407266813])


def same(got, want, rtol=1e-9):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=2e-12)


def toy(x, t):
    return jnp.tanh(0.5 * x + 0.1 * t)


def walk(rows, x, z=None):
    """The path in a plain loop, float64."""
    x, before = np.asarray(x, np.float64), np.zeros(np.shape(x))
    for i, t in enumerate(rows.t):
        x0 = np.tanh(0.5 * x + 0.1 * t)
        x = rows.a[i] * x0 + rows.b[i] * x + rows.e[i] * before
        if z is not None:
            x = x + rows.c[i] * z[i]
        before = x0
    return x


@pytest.mark.parametrize(
    ("betas", "last_beta", "last_bar"),
    [
        (schedules.linear(5), 0.02, 0.950629868239),
        (schedules.quad(5), 0.02, 0.961033345518),
        (schedules.sigmoid(5), 0.019950794799, 0.950576142104),
        (schedules.cosine(5), 0.999, 9.404561267665e-05),
        (schedules.cosine_clip(5), 0.9999, 9.404561267664e-06),
        (schedules.sqrt(5), 0.999, 1.065827364116e-04),
        (schedules.exp(5), 0.888975013567, 0.002381558914),
        (schedules.trunc_lin(5), 0.21, 0.520846447),
        (schedules.trunc_cos(5), 0.728445870661, 0.079373233584),
        (schedules.binomial(5), 0.5, 1 / 6),
        (
            schedules.linear_var(5, scale=0.1, noise_min=1e-3, noise_max=0.01),
            2.251745102455e-04,
            0.999089918992,
        ),
        (
            schedules.linear_diffrec(5, scale=0.1, noise_min=1e-3, noise_max=0.01),
            1e-3,
            0.997342532355,
        ),
        (schedules.linear_scaled(1000), 0.02, 4.035829765375676e-05),
        (schedules.linear_scaled(50), 0.4, 7.744765699226731e-06),
        (schedules.trunc_lin(32), 0.635, 9.901298766552524e-07),
        (schedules.exp(200), 0.04888828285727498, 0.006252649406601193),
        (schedules.exp(500), 0.0198207344348, 0.00634619410059),
        (schedules.linear(500), 0.02, 0.00635271079702),
        (schedules.cosine_clip(2000), 0.9999, 6.05572543281e-11),
        (schedules.sqrt(500), 0.999, 9.60052201209e-07),
    ],
)
def test_schedules(betas, last_beta, last_bar):
    same(betas[-1], last_beta, 2e-9)
    same(forward.alphas_cumprod(betas)[-1], last_bar, 2e-9)
    assert (forward.tables(forward.levels(betas)).noise > 0).all()


def test_whole_schedules_of_five_steps():
    same(schedules.sqrt(5)[:4], [0.441742813057, 0.335114358533, 0.386775533329, 0.531741019886])
    same(schedules.trunc_cos(5)[:3], [0.020253513193, 0.155464828796, 0.309721467891])
    same(schedules.exp(5)[:2], [0.195874558333, 0.509828524943])
    same(
        schedules.zero_terminal_snr(R)[1:], [0.193304796945, 0.3982043778179, 0.6756987482832, 1.0]
    )
    same(schedules.pw_lin(20)[[0, 9, 10, 19]], [0.015, 0.005, 0.005, 1.0])


def test_subsets():
    want = {
        "leading": [0, 200, 400, 600, 800],
        "trailing": [199, 399, 599, 799, 999],
        "linspace": [0, 250, 500, 749, 999],
        "quad": [0, 50, 200, 450, 800],
        "trunc": [199, 399, 599, 799, 999],
        "strided": [0, 249, 499, 749, 999],
    }
    for spacing, ts in want.items():
        assert np.abs(schedules.subset(1000, 5, spacing) - ts).max() <= (spacing == "linspace")


@pytest.mark.parametrize("start", [1e-4, 5e-8])
def test_noise_level_matches_exact_arithmetic(start):
    betas = np.linspace(start, 10 * start, 7)
    exact = 1 - math.prod(1 - Fraction(float(b)) for b in betas)
    same(forward.one_minus_alphas_cumprod(betas)[-1], float(exact), 1e-12)


def test_posterior_of_r():
    got = forward.posterior(LEVELS)
    same(got.c1, [1, 0.980723470689, 0.660667116, 0.497524815754, 0.398986681898])
    same(got.c2, [0, 0.0192764657085, 0.339326333736, 0.502446252824, 0.600936482729])
    same(got.var, [0, 9.80772510541e-05, 0.00342749631506, 0.00760661592849, 0.0121407503429], 1e-8)
    same(np.log(got.var[1:3]), [-9.22975511376, -5.67592522164])
    same(np.log(got.step_var[1:3]), [-5.28342875405, -4.60018264448])
    same(got.step_var, R)
    signal = np.sqrt(forward.alphas_cumprod(R))
    same(got.c1 + got.c2 * signal, np.append(1.0, signal[:-1]), 1e-12)


def test_q_sample_and_changes_of_variable():
    with jax.enable_x64(True):
        bar = forward.alphas_cumprod(R)
        table = forward.Forward(jnp.sqrt(bar), jnp.sqrt(1 - bar))
        t = jnp.arange(5)
        got = forward.q_sample(table, jnp.tile(X0, (5, 1)), t, jnp.tile(EPS, (5, 1)))
        same(got[3], X3)
        same(got[4], [1.04166066826, -0.754133935189, 0.399286358171])
        a, n = table.signal[3], table.noise[3]
        v = forward.v_from_x0_eps(X0, EPS, a, n)
        same(v, [0.122353299259, -1.09532296508, 0.646151607824])
        score = -EPS / n
        same(score, [-1.73293129666, 6.93172518662, -4.04350635886])
        for kind, out in (("x0", X0), ("eps", EPS), ("v", v), ("score", score)):
            x0, eps = forward.to_x0_eps(out, got[3], a, n, kind)
            same(x0, X0, 1e-8)
            same(eps, EPS, 1e-8)
        kept = forward.q_sample(table, X0[None], t[3:4], EPS[None], mask=jnp.array([[1, 0, 1]]))
        same(kept[0, 1], X0[1])


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        (
            samplers.ddpm_rows(LEVELS, temperature=0.0),
            [0.190388426257, 0.0760268763263, 0.141258149672],
        ),
        (samplers.ddim_rows(LEVELS), [0.234219556858, 0.0175949616269, 0.137857734658]),
        (
            samplers.ddim_rows(LEVELS, np.array([4, 2, 0])),
            [0.286744240994, 0.0350266322655, 0.178498971408],
        ),
        (
            samplers.ddim_rows(LEVELS, np.array([4, 0])),
            [0.349538624813, 0.0598491585556, 0.231546730869],
        ),
        (
            samplers.dpmpp_rows(LEVELS, np.array([4, 2, 0])),
            [0.149016672853, -0.0165233705383, 0.0655336967123],
        ),
    ],
)
def test_deterministic_chains(rows, want):
    same(walk(rows, X0), want)
    steps = samplers.cast(rows)
    got = process.run(Chain(steps, toy, jnp.asarray(X0, jnp.float32)[None]))
    np.testing.assert_allclose(got[0], want, rtol=2e-5, atol=1e-6)


def test_stochastic_chain_and_eta_one_is_ancestral():
    given = [[0.1, 0.2, 0.3], [-0.1, 0.4, -0.2], [0.5, -0.5, 0], [0.2, 0.1, -0.3], [9, 9, 9]]
    want = [0.19729693739, 0.0776118825346, 0.140627898245]
    for rows in (samplers.ddpm_rows(LEVELS), samplers.ddim_rows(LEVELS, eta=1.0)):
        same(walk(rows, X0, np.array(given)), want)
    z = jnp.asarray(given, jnp.float32)[:, None]
    x = jnp.asarray(X0, jnp.float32)[None]
    chain = Chain(samplers.ddpm_steps(LEVELS), toy, x, samplers.draw_given(z))
    got = process.run(chain)
    np.testing.assert_allclose(got[0], want, rtol=2e-5)
    path = process.trajectory(chain)
    np.testing.assert_array_equal(path[0], x)
    np.testing.assert_array_equal(path[-1], got)
    assert len(path) == 6


def test_plan_rows():
    grid = np.array([4, 2, 0])
    ddim = samplers.ddim_rows(LEVELS, grid, eta=1.0)
    same(ddim.b[:2], [0.301938283932, 0.00654101243625], 1e-8)
    same(ddim.a[:2], [0.697994179, 0.993458797696], 1e-8)
    same(ddim.c, [0.103303318006, 0.00996748952526, 0], 1e-8)
    multi = samplers.dpmpp_rows(LEVELS, grid)
    same(multi.a[:2], [0.451876919172, 2.82489788752], 1e-8)
    same(multi.e[:2], [0, -1.90551386475], 1e-8)
    single = samplers.dpmpp_rows(LEVELS, grid, final="index0")
    same(walk(single, [0.9, -1.1, 0.6]), [0.277355219818, -0.16014210046, 0.209322032322], 1e-8)
    large = samplers.ddpm_rows(LEVELS, noise="std_large")
    same(large.c[:2], np.sqrt(R[[4, 3]]))
    same(samplers.ddpm_rows(LEVELS, noise="var_small").c[1], 0.00760661592849)


def test_true_answers_stay_on_the_marginals():
    bar = forward.alphas_cumprod(R)
    for rows in (samplers.ddim_rows(LEVELS), samplers.dpmpp_rows(LEVELS)):
        x, before = np.sqrt(bar[4]) * X0 + np.sqrt(1 - bar[4]) * EPS, X0
        for i in range(4):
            x = rows.a[i] * X0 + rows.b[i] * x + rows.e[i] * before
            same(x, np.sqrt(bar[3 - i]) * X0 + np.sqrt(1 - bar[3 - i]) * EPS)


def test_another_schedule_does_not_compile_again_nor_grow():
    traces = []

    def counted(x, t):
        traces.append(1)
        return toy(x, t)

    run = jax.jit(lambda steps, x: process.run(Chain(steps, counted, x)))
    for steps in (
        samplers.ddim_steps(LEVELS),
        samplers.ddpm_steps(forward.levels(0.5 * R)),
        samplers.dpmpp_steps(LEVELS),
    ):
        run(steps, jnp.ones((2, 3)))
    assert len(traces) == 1
    sizes = {
        jax.jit(lambda s, x: process.run(Chain(s, toy, x)))
        .lower(samplers.ddim_steps(forward.levels(np.linspace(1e-4, 0.02, n))), jnp.ones((2, 3)))
        .as_text()
        .count("stablehlo.")
        for n in (10, 300)
    }
    assert len(sizes) == 1


def test_rows_draw_alike_in_any_batch():
    key = jax.random.key(0)
    steps = samplers.ddpm_steps(LEVELS)

    def points(rows):
        start = ops_rng.normal(key, rows, (3,))
        return process.run(Chain(steps, toy, start, samplers.draw_rows(key, rows, (3,))))

    np.testing.assert_array_equal(points(jnp.arange(6))[2:5], points(jnp.arange(2, 5)))


def test_guidance():
    guided = guidance.classifier_free(
        lambda x, t: jnp.array([0.2, -0.3, 0.1]), lambda x, t: jnp.array([-0.1, 0.1, 0.4]), 2.0
    )
    np.testing.assert_allclose(guided(0, 0), [0.8, -1.1, -0.5], rtol=1e-6)
    with jax.enable_x64(True):
        middle = jnp.array([0.0, 1.0, 0.0])

        def log_prob(x):
            return -0.5 * jnp.sum((x - middle) ** 2, -1)

        bar = forward.alphas_cumprod(R)
        table = forward.Forward(jnp.sqrt(bar), jnp.sqrt(1 - bar))
        denoise = guidance.classifier(lambda x, t: jnp.asarray(X0)[None], log_prob, table, 1.5)
        got = denoise(jnp.asarray(X3)[None], jnp.int32(3))
        same(got[0], [0.952675218913, -0.422397425131, 0.23323026769], 1e-8)


def test_loss_weights():
    same(
        weights.diffrec_x0(LEVELS),
        [1, 9806.7443329, 127.34690224, 32.5415328732, 13.1120703281],
    )
    same(weights.diffrec_eps(LEVELS)[1:3], [520088.700153, 572.411095469])
    same(
        weights.elbo_eps(LEVELS)[1:],
        [25.5044350077, 0.980968460211, 0.502692551608, 0.340481959062],
    )
    same(weights.min_snr(LEVELS, 5, "eps")[:2], [0.000500050005, 0.0260070357112], 1e-8)
    same(weights.min_snr(LEVELS, 5, "v")[4], 0.246850658806)
    same(weights.min_snr(LEVELS, 100, "x0")[:3], [100, 100, 64.9087648613])


def test_losses_of_hand():
    got = losses.sampled_softmax(jnp.array([1.0]), jnp.array([[0.0, 2.0]]))
    np.testing.assert_allclose(got, math.log(math.e + 1 + math.e**2) - 1, rtol=1e-6)
    logits = jnp.array([[1.0, 0.0, 2.0]])
    np.testing.assert_allclose(losses.cross_entropy(logits, jnp.array([0])), got, rtol=1e-6)
    np.testing.assert_allclose(
        losses.bpr(jnp.array([1.0]), jnp.array([0.0])), math.log1p(math.exp(-1)), rtol=1e-6
    )
    mean = losses.weighted_mean(jnp.array([1.0, 5.0, 9.0]), jnp.array([1.0, 1.0, 0.0]))
    assert float(mean) == 3.0


def test_timesteps():
    history = timesteps.History(
        jnp.array([[1.0, 2.0], [0.5, 0.5], [3.0, 1.0]]), jnp.array([2, 2, 2])
    )
    want = [0.366208252385, 0.116033141627, 0.517758605988]
    np.testing.assert_allclose(timesteps.importance_probs(history), want, rtol=2e-6)
    t, weight = timesteps.importance(jax.random.key(0), jnp.arange(4000), history)
    np.testing.assert_allclose(np.bincount(t) / 4000, want, atol=0.03)
    np.testing.assert_allclose(weight, (1 / (3 * np.array(want)))[t], rtol=1e-5)
    same(timesteps.fixed_step_weights(4), np.array([1, 1, 0.5, 0.5]) / 3)


def test_history_equals_a_loop():
    rng, steps, length = np.random.default_rng(0), 4, 3
    history, plain = timesteps.init_history(steps, length), [[] for _ in range(steps)]
    update = jax.jit(timesteps.update_history)
    for _ in range(12):
        t = rng.integers(0, steps, 7)
        values, weight = rng.normal(size=7), rng.integers(0, 2, 7)
        history = update(history, jnp.asarray(t), jnp.asarray(values, jnp.float32), weight)
        for step, value, w in zip(t, values, weight, strict=True):
            if w:
                plain[step] = [*plain[step], value][-length:]
        assert history.count.tolist() == [len(p) for p in plain]
        for row, values in zip(history.losses, plain, strict=True):
            np.testing.assert_allclose(row[: len(values)], values, rtol=1e-6)
    first = timesteps.update_history(
        timesteps.init_history(2, 3), jnp.array([0, 1, 0, 0, 0]), jnp.arange(1.0, 6.0)
    )
    assert first.losses.tolist() == [[3, 4, 5], [2, 0, 0]] and first.count.tolist() == [3, 1]


def test_sphere():
    with jax.enable_x64(True):
        e, u = jnp.array([0.6, 0.8, 0.0]), jnp.array([0.1, 0.2, -0.3])
        v = sphere.project_tangent(e, u)
        same(v, [-0.032, 0.024, -0.3])
        moved = sphere.exp_map(e, v)
        same(moved, [0.541215425291, 0.787274107213, -0.29544093071])
        same(sphere.exp_map(e, 3 * v), [0.285868028155, 0.554788115367, -0.781338350221])
        same(sphere.exp_map(e, u), [0.656170664702, 0.940016183377, -0.293048836984])
        x = jnp.array([1.0, 0.0, 0.0])
        same(sphere.exp_map(x, jnp.array([0, 0.3, 0.4])), [0.87758256189, 0.287655323163,
                                                           0.383540430884])  # fmt: skip
        scale = jnp.sqrt(1 - forward.alphas_cumprod(R))
        got = sphere.q_sample(scale, e[None], jnp.array([3]), u[None])
        same(got[0], [0.593639413744, 0.803055077018, -0.0519113641157])
        for function in (lambda v: sphere.exp_map(x, v), sphere.normalize):
            assert np.isfinite(jax.jacobian(function)(jnp.zeros(3))).all()
        c = forward.posterior(LEVELS)
        mean = c.c1[3] * jnp.array([0.0, 1, 0]) + c.c2[3] * got[0]
        z = jnp.array([0.2, -0.1, 0.4])
        same(
            sphere.normalize(mean + jnp.sqrt(c.var[3]) * z),
            [0.33354529675, 0.942688192594, 0.00930089029947],
            1e-8,
        )


@pytest.mark.parametrize("rows", [samplers.ddpm_rows(LEVELS), samplers.ddim_rows(LEVELS)])
def test_affine_chains_in_closed_form(rows):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        weight, shifts = rng.normal(size=(3, 3)) / 3, rng.normal(size=(5, 3))
        u, mean, cov = rng.normal(size=3), np.zeros(3), np.eye(3)
        for i in range(5):
            step = rows.a[i] * weight + rows.b[i] * np.eye(3)
            mean = mean @ step + rows.a[i] * (u + shifts[i])
            cov = step.T @ cov @ step + rows.c[i] ** 2 * np.eye(3)
        steps = process.Steps(*(jnp.asarray(column) for column in rows))
        law = closed_form.closed_form(steps, jnp.asarray(weight), jnp.asarray(shifts))
        same(closed_form.apply(law, u, np.zeros(3)), mean, 1e-10)
        np.testing.assert_allclose(law.factor.T @ law.factor, cov, atol=1e-12)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: schedules.linear(0),
        lambda: schedules.linear(5, start=-1.0),
        lambda: schedules.linear(5, stop=1.5),
        lambda: schedules.linear_scaled(10),
        lambda: schedules.named("cosin", 5),
        lambda: schedules.subset(10, 11),
        lambda: schedules.linear_var(5, scale=1, noise_min=0.2, noise_max=0.1),
        lambda: samplers.ddpm_steps(LEVELS, np.array([0, 2])),
    ],
)
def test_what_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError):
        bad()
