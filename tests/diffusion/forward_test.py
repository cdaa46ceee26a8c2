"""Noise levels and reverse paths against tables built from betas, and against a flow's own."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.diffusion import forward, samplers, schedules, weights
from jaxrec_diff.diffusion.config import SamplerConfig, plan
from jaxrec_diff.diffusion.forward import Levels

PUBLISHED = {
    "dreamrec": schedules.linear(500),
    "dimerec": schedules.linear(50),
    "diffurec": schedules.trunc_lin(32),
    "diffuasr": schedules.linear_scaled(1000),
    "diffrec": schedules.fix_first(
        schedules.linear_var(40, scale=5e-3, noise_min=5e-3, noise_max=1e-2)
    ),
    "diffrec-tiny": schedules.linear_var(5, scale=1e-4, noise_min=5e-4, noise_max=5e-3),
}
EVERY = pytest.mark.parametrize("betas", PUBLISHED.values(), ids=PUBLISHED)


def from_betas(betas, ts):
    """abar and 1 - abar at each step and at the step it moves to, and beta, all from betas."""
    log_bar = np.cumsum(np.log1p(-betas))
    log_t, log_s = log_bar[ts], np.append(log_bar[ts[1:]], 0.0)
    return (
        np.exp(log_t),
        np.exp(log_s),
        -np.expm1(log_t),
        -np.expm1(log_s),
        -np.expm1(log_t - log_s),
    )


def grids(total):
    return [np.arange(total)[::-1], np.arange(total)[::-1][:: max(total // 5, 2)]]


@EVERY
def test_ancestral_rows_are_those_of_the_betas(betas):
    for ts in grids(len(betas)):
        bar_t, bar_s, rest_t, rest_s, beta = from_betas(betas, ts)
        want = {
            "a": np.sqrt(bar_s) * beta / rest_t,
            "b": np.sqrt(bar_t / bar_s) * rest_s / rest_t,
            "c": np.append(np.sqrt(beta * rest_s / rest_t)[:-1], 0.0),
        }
        got = samplers.ddpm_rows(forward.levels(betas), ts)
        large = samplers.ddpm_rows(forward.levels(betas), ts, noise="std_large")
        for name, column in want.items():
            np.testing.assert_allclose(getattr(got, name), column, rtol=1.1e-13)
        np.testing.assert_allclose(large.c[:-1], np.sqrt(beta)[:-1], rtol=1.1e-13)


@EVERY
def test_ddim_rows_are_those_of_the_betas(betas):
    for ts in grids(len(betas)):
        bar_t, bar_s, rest_t, rest_s, _ = from_betas(betas, ts)
        got = samplers.ddim_rows(forward.levels(betas), ts)
        np.testing.assert_allclose(got.b, np.sqrt(rest_s) / np.sqrt(rest_t), rtol=2.2e-16)
        # a is the difference of the two terms
        size = np.sqrt(bar_s) + np.sqrt(rest_s * bar_t / rest_t)
        want = np.sqrt(bar_s) - np.sqrt(rest_s * bar_t / rest_t)
        assert (np.abs(got.a - want) <= 2.2e-16 * size).all()


def test_tiny_noise_keeps_its_digits():
    # 1 - (1 - b)^2 = 2 b - b^2, of which a product of ones and betas keeps nothing
    levels = forward.levels(np.full(2, 1e-17))
    np.testing.assert_allclose(levels.noise**2, [1e-17, 2e-17], rtol=1e-12)
    assert (levels.signal == 1.0).all()


def flow(num_steps):
    t = np.arange(1, num_steps + 1) / num_steps
    return Levels(1.0 - t, t)


def test_the_ddim_row_of_a_flow_is_the_euler_step():
    # The path of a flow is straight: x_s = x_t + (s - t) v with v = (x_t - x0_hat) / t.
    levels = flow(8)
    for ts in (np.arange(8)[::-1], np.array([7, 4, 1])):
        t = levels.noise[ts]
        s = np.append(t[1:], 0.0)
        rows = samplers.ddim_rows(levels, ts)
        np.testing.assert_array_equal(rows.b, s / t)
        np.testing.assert_allclose(rows.a, 1.0 - s / t, rtol=0, atol=2.3e-16)
        assert (rows.c == 0.0).all()


@pytest.mark.parametrize("kind", samplers.PATHS)
def test_a_path_from_pure_noise_has_finite_rows(kind):
    steps, noisy = plan(SamplerConfig(kind=kind, eta=0.5), flow(4), keeps_noise=True)
    for column in steps:
        assert np.isfinite(column).all()
    assert noisy == (kind in ("ddpm", "ddim", "fixed_noise", "closed_form"))
    # no signal at the start: the first row is x0_hat put back to the level of the second
    if kind != "one_step":
        assert steps.a[0] == pytest.approx(0.25)
    betas = schedules.zero_terminal_snr(schedules.linear(4))
    assert all(
        np.isfinite(column).all()
        for column in plan(SamplerConfig(kind=kind), forward.levels(betas), keeps_noise=True)[0]
    )


def test_posterior_is_bayes_rule():
    # Precisions add: 1 / var = 1 / noise_s^2 + alpha^2 / step_var for x_t = alpha x_s + step.
    levels = flow(5)
    here, there = Levels(*(part[1:4] for part in levels)), Levels(*(part[:3] for part in levels))
    found = forward.posterior(here, there)
    alpha = here.signal / there.signal
    step_var = here.noise**2 - alpha**2 * there.noise**2
    np.testing.assert_allclose(found.step_var, step_var, rtol=1e-13)
    var = 1 / (1 / there.noise**2 + alpha**2 / step_var)
    np.testing.assert_allclose(found.var, var, rtol=1e-13)
    np.testing.assert_allclose(found.c2, var * alpha / step_var, rtol=1e-13)
    np.testing.assert_allclose(found.c1, var * there.signal / there.noise**2, rtol=1e-13)


def test_weights_of_a_flow_are_finite_but_for_none():
    levels = flow(4)
    np.testing.assert_allclose(forward.snr(levels), [9.0, 1.0, 1 / 9, 0.0])
    assert forward.logsnr(levels)[-1] == -np.inf
    np.testing.assert_allclose(weights.diffrec_x0(levels), [1.0, 8.0, 8 / 9, 1 / 9])


@pytest.mark.parametrize(
    "ts, message",
    [
        (np.array([0, 2]), "steps must fall from below 4"),
        (np.array([4, 0]), "steps must fall from below 4"),
        (np.array([3, 0]), "step 0 has none"),
    ],
)
def test_grids_that_make_no_sense_are_refused(ts, message):
    clean_first = Levels(np.array([1.0, 0.9, 0.5, 0.1]), np.array([0.0, 0.1, 0.5, 0.9]))
    with pytest.raises(ValueError, match=message):
        samplers.ddim_rows(clean_first, ts)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, t: forward.q_sample(TABLE, x, t, x[:, :1]),
        lambda x, t: forward.q_sample(TABLE, x, t[:1], x),
        lambda x, t: forward.extract(TABLE.signal[None], t, x),
        lambda x, t: forward.extract(TABLE.signal, t[:2], x),
        lambda x, t: forward.x0_from_eps(x, x[:, 0], 0.5, 0.5),
        lambda x, t: forward.x0_from_v(x[0], x[0], x, x),
        lambda x, t: forward.eps_from_score(x[0], x),
        lambda x, t: forward.levels(np.ones((2, 2)) / 9),
        lambda x, t: forward.tables(Levels(np.ones(2), np.ones(3))),
        lambda x, t: forward.posterior(flow(3), flow(4)),
        lambda x, t: samplers.ddpm_rows(Levels(np.ones(2), np.ones(3))),
    ],
)
def test_wrong_shapes_are_refused(wrong):
    with pytest.raises((AssertionError, ValueError)):
        wrong(jnp.ones((3, 2)), jnp.zeros(3, jnp.int32))


TABLE = forward.tables(forward.levels(schedules.linear(5)))


def test_a_level_of_the_wrong_shape_may_not_widen_a_point():
    with pytest.raises(AssertionError):
        forward.x0_from_v(jnp.ones(4), jnp.ones(4), jnp.ones((4, 1)), jnp.ones((4, 1)))
    chex.assert_shape(
        forward.x0_from_v(jnp.ones((4, 2)), jnp.ones((4, 2)), 0.5, jnp.ones((4, 1))), (4, 2)
    )
