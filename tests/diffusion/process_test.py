"""The one scan, and that every function of the diffusion keeps the type of what it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.diffusion import (
    closed_form,
    forward,
    guidance,
    process,
    samplers,
    schedules,
    sphere,
    timesteps,
)
from jaxrec_diff.diffusion.forward import Forward, Levels
from jaxrec_diff.diffusion.process import Chain, Steps

LEVELS = forward.levels(schedules.linear(5, start=0.05, stop=0.3))


def halving(xt, t):
    return 0.5 * xt


def by_hand(rows, x, z=None, project=lambda x: x):
    """All points of a path in a plain loop, float64."""
    points, before = [np.asarray(x, np.float64)], np.zeros(np.shape(x))
    for i in range(len(rows.t)):
        x0_hat = 0.5 * points[-1]
        xs = rows.a[i] * x0_hat + rows.b[i] * points[-1] + rows.e[i] * before
        points.append(project(xs if z is None else xs + rows.c[i] * z[i]))
        before = x0_hat
    return np.stack(points)


@pytest.mark.parametrize("rows", [samplers.ddpm_rows(LEVELS), samplers.dpmpp_rows(LEVELS)])
@pytest.mark.parametrize("on_sphere", [False, True])
def test_run_and_trajectory_are_a_plain_loop(rows, on_sphere):
    rng = np.random.default_rng(0)
    start, z = rng.normal(size=(2, 3)), rng.normal(size=(5, 2, 3))
    plain = (
        {"project": lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)} if on_sphere else {}
    )
    want = by_hand(rows, start, z, **plain)
    more = {"project": sphere.normalize} if on_sphere else {}
    chain = Chain(
        samplers.cast(rows), halving, jnp.asarray(start, jnp.float32),
        samplers.draw_given(jnp.asarray(z, jnp.float32)), **more,
    )  # fmt: skip
    np.testing.assert_allclose(process.trajectory(chain), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(process.run(chain), process.trajectory(chain)[-1])
    np.testing.assert_allclose(process.run(chain, unroll=2), want[-1], rtol=1e-5, atol=1e-6)


def test_a_path_without_rows_ends_where_it_starts():
    none = Steps(jnp.zeros(0, jnp.int32), *jnp.zeros((4, 0)))
    chain = Chain(none, halving, jnp.ones((2, 3)))
    np.testing.assert_array_equal(process.run(chain), chain.start)
    np.testing.assert_array_equal(process.trajectory(chain), chain.start[None])


def test_a_denoiser_or_a_table_of_the_wrong_shape_is_refused():
    steps = samplers.ddim_steps(LEVELS)
    with pytest.raises(AssertionError):
        process.run(Chain(steps, lambda xt, t: xt[:, :1], jnp.ones((2, 3))))
    with pytest.raises(AssertionError):
        process.run(Chain(steps._replace(a=steps.a[:2]), halving, jnp.ones((2, 3))))
    with pytest.raises(AssertionError):
        process.run(Chain(steps, halving, jnp.ones((2, 3)), project=lambda x: x[:, :1]))


def test_adding_a_sampler_is_a_function_and_a_word(monkeypatch):
    from jaxrec_diff.diffusion.config import SamplerConfig, plan

    euler = lambda levels, ts, settings: samplers.ddim_rows(levels, ts)
    monkeypatch.setitem(samplers.PATHS, "euler", euler)
    steps, noisy = plan(SamplerConfig(kind="euler", steps=2), LEVELS)
    np.testing.assert_array_equal(steps.t, [4, 1])
    assert not noisy


X = [[0.3, -1.2, 0.7], [1.0, 0.5, -0.25]]
KEY = jax.random.key(0)


def tables():
    return forward.tables(LEVELS)


def history(x):
    return timesteps.History(jnp.abs(x), jnp.full(len(x), 3, jnp.int32))


def unit(x):
    return x / jnp.linalg.norm(x.astype(jnp.float32), axis=-1, keepdims=True).astype(x.dtype)


def chain_of(path):
    def end(x):
        draw = samplers.draw_given(jnp.ones((7, 2, 3)))
        return process.run(Chain(path(LEVELS), halving, x, draw))

    return end


STEPS = jnp.array([1, 3])
FUNCTIONS = {
    "q_sample": lambda x: forward.q_sample(tables(), x, STEPS, x),
    "q_sample_masked": lambda x: forward.q_sample(tables(), x, STEPS, x, mask=x > 0),
    **{
        f"to_x0_eps_{kind}": lambda x, kind=kind: jnp.stack(
            forward.to_x0_eps(x, x, tables().signal[2], tables().noise[2], kind)
        )
        for kind in ("x0", "eps", "v", "score")
    },
    "v_from_x0_eps": lambda x: forward.v_from_x0_eps(x, x, tables().signal[2], tables().noise[2]),
    "ddpm": chain_of(samplers.ddpm_steps),
    "ddim": chain_of(samplers.ddim_steps),
    "dpmpp": chain_of(samplers.dpmpp_steps),
    "one_step": chain_of(samplers.one_step),
    "repeat_first": chain_of(lambda levels: samplers.repeat_first(samplers.ddim_steps(levels), 2)),
    "trajectory": lambda x: process.trajectory(Chain(samplers.ddim_steps(LEVELS), halving, x)),
    "warm_start": lambda x: samplers.warm_start(tables(), x, 3, x),
    "normalize": sphere.normalize,
    "project_tangent": lambda x: sphere.project_tangent(unit(x), x[::-1]),
    "exp_map": lambda x: sphere.exp_map(unit(x), 0.1 * x),
    "sphere_q_sample": lambda x: sphere.q_sample(tables().noise, unit(x), STEPS, x),
    "sphere_q_sample_free": lambda x: sphere.q_sample(
        tables().noise, unit(x), STEPS, x, project=False
    ),
    "classifier_free": lambda x: guidance.classifier_free(
        halving, lambda xt, t: 0.1 * xt, 2.0
    )(x, jnp.int32(1)),
    "classifier": lambda x: guidance.classifier(
        halving, lambda x: -jnp.sum(x**2, axis=-1), tables(), 1.5
    )(x, jnp.int32(1)),
    "classifier_universal": lambda x: guidance.classifier(
        halving, lambda x: -jnp.sum(x**2, axis=-1), tables(), 1.5, on="x0_hat"
    )(x, jnp.int32(1)),
    "drop": lambda x: guidance.drop(jnp.array([True, False]), x, x[:1]),
    "importance_probs": lambda x: timesteps.importance_probs(history(x)),
    "importance": lambda x: timesteps.importance(KEY, jnp.arange(2), history(x))[1],
    "update_history": lambda x: timesteps.update_history(history(x), STEPS % 2, x[:, 0]).losses,
}  # fmt: skip
WHOLE = {  # needs an eigendecomposition, which bfloat16 has not
    "closed_form": lambda x: closed_form.apply(
        closed_form.closed_form(samplers.ddpm_steps(LEVELS), x.T @ x / 9, jnp.tile(x, (3, 1))[:5]),
        x,
        x,
    ),
}


@pytest.mark.parametrize("name", [*FUNCTIONS, *WHOLE])
def test_results_have_the_type_of_what_goes_in(name):
    function = jax.jit((FUNCTIONS | WHOLE)[name])  # one small program, not one an operation
    with jax.enable_x64(True):
        exact = np.asarray(function(jnp.asarray(X, jnp.float64)))
        assert exact.dtype == jnp.float64
        single = function(jnp.asarray(X, jnp.float32))
        assert single.dtype == jnp.float32
    plain = function(jnp.asarray(X, jnp.float32))
    assert plain.dtype == jnp.float32
    found = [(single, 3e-5), (plain, 3e-5)]
    if name in FUNCTIONS:
        half = function(jnp.asarray(X, jnp.bfloat16))
        assert half.dtype == jnp.bfloat16
        found.append((half.astype(jnp.float32), 0.06))
    for value, tolerance in found:
        scale = max(np.abs(exact).max(), 0.1)
        np.testing.assert_allclose(value, exact, rtol=tolerance, atol=tolerance * scale)


def test_float64_is_not_rounded_on_the_way():
    with jax.enable_x64(True):
        start = np.asarray(X)
        for rows, steps in (
            (samplers.ddim_rows(LEVELS), samplers.ddim_steps(LEVELS)),
            (samplers.dpmpp_rows(LEVELS), samplers.dpmpp_steps(LEVELS)),
        ):
            got = process.run(Chain(steps, halving, jnp.asarray(start)))
            np.testing.assert_allclose(got, by_hand(rows, start)[-1], rtol=1e-13)
        table = forward.tables(LEVELS)
        got = forward.q_sample(table, jnp.asarray(start), STEPS, jnp.asarray(start))
        want = (LEVELS.signal + LEVELS.noise)[np.asarray(STEPS), None] * start
        np.testing.assert_allclose(got, want, rtol=1e-15)


def test_steps_are_drawn_as_int32():
    with jax.enable_x64(True):
        for t in (
            timesteps.uniform(KEY, jnp.arange(4), 5),
            timesteps.antithetic_rows(KEY, jnp.arange(4), 5),
            timesteps.importance(KEY, jnp.arange(4), history(jnp.asarray(X)))[0],
        ):
            assert t.dtype == jnp.int32
        after = timesteps.update_history(history(jnp.asarray(X)), STEPS % 2, jnp.ones(2))
        assert after.count.dtype == jnp.int32


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: sphere.exp_map(x, x[:1]),
        lambda x: sphere.project_tangent(x, x[:, :1]),
        lambda x: sphere.q_sample(tables().noise, x, STEPS[:1], x),
        lambda x: guidance.drop(jnp.ones(3, bool), x, x[:1]),
        lambda x: guidance.drop(jnp.ones(2, bool), x, x.T),
        lambda x: guidance.classifier_free(halving, lambda xt, t: xt[:1], 1.0)(x, 0),
        lambda x: timesteps.uniform(KEY, jnp.zeros((2, 1)), 5),
        lambda x: timesteps.categorical(KEY, jnp.arange(2), x),
        lambda x: timesteps.update_history(history(x), STEPS % 2, x[:, :1]),
        lambda x: timesteps.importance_probs(timesteps.History(x[0], jnp.ones(3, jnp.int32))),
        lambda x: closed_form.closed_form(samplers.ddpm_steps(LEVELS), x, jnp.ones((5, 3))),
        lambda x: closed_form.closed_form(samplers.ddpm_steps(LEVELS), x.T @ x, jnp.ones((4, 3))),
        lambda x: samplers.warm_start(tables(), x, 0, x[:1]),
    ],
)
def test_wrong_shapes_are_refused(wrong):
    with pytest.raises(AssertionError):
        wrong(jnp.asarray(X, jnp.float32))


def test_levels_and_tables_are_what_they_say():
    assert isinstance(LEVELS, Levels) and isinstance(tables(), Forward)
    np.testing.assert_allclose(LEVELS.signal**2 + LEVELS.noise**2, 1.0, rtol=1e-15)
