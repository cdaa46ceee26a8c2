"""A flow's path, its time laws and its rows, against float64 numbers made without this code."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.diffusion import forward, process, samplers, straight, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.diffusion.straight import PathConfig

X0, EPS = np.array([1, -0.5, 0.25]), np.array([0.3, -1.2, 0.7])
START = np.array([1, -0.5, 0.25])
KINDS = ("ddim", "heun", "dpmpp", "fixed_noise")


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def rows_of(kind, count, shift=1.0):
    return samplers.PATHS[kind](forward.straight(count, shift), None, SamplerConfig(kind=kind))


def chain(kind, count, f, x=START, told=lambda t: t):
    """The package's chain of `count` even times, its network `f` told times and not steps."""
    rows = rows_of(kind, count)
    start = jnp.asarray(x, jnp.float64)[None]
    times = jnp.asarray(told(forward.straight(count).noise))
    draw = (lambda i: start) if kind == "fixed_noise" else None
    return Chain(samplers.cast(rows), lambda xt, t: f(xt, times[t]), start, draw)


def toy(x, t):
    return jnp.tanh(0.5 * x + t)


def gauss(x, t):
    """The exact denoiser of data N(.7, .3)."""
    a = 1.0 - t
    return 0.7 + a * 0.3 * (x - a * 0.7) / (a**2 * 0.3 + t**2)


@in_float64
def test_the_path():
    for t, want in (
        (0.25, [0.825, -0.675, 0.3625]),
        (0.5, [0.65, -0.85, 0.475]),
        (0.75, [0.475, -1.025, 0.5875]),
        (0.9, [0.37, -1.13, 0.655]),
    ):
        got = straight.noised(jnp.asarray(X0)[None], jnp.array([t]), jnp.asarray(EPS)[None])
        np.testing.assert_allclose(got[0], want, rtol=1e-12)
        np.testing.assert_allclose((got[0] - X0) / t, [-0.7, -0.7, 0.45], rtol=1e-12)
    logsnr = forward.logsnr(forward.straight(20))
    np.testing.assert_allclose(logsnr[[4, 17]], [2.1972245773, -4.3944491547], rtol=1e-10)
    # the same through the levels of the grid
    table = forward.tables(forward.straight(4))
    got = forward.q_sample(table, jnp.asarray(X0)[None], jnp.array([2]), jnp.asarray(EPS)[None])
    np.testing.assert_allclose(got[0], [0.475, -1.025, 0.5875], rtol=1e-12)


U = [0.05, 0.25, 0.5, 0.75, 0.95]
LAWS = {
    "mode 1": (
        lambda u: timesteps.mode(u),
        [0.9061558297, 0.6464466094, 0.5, 0.3535533906, 0.0938441703],
    ),
    "mode .5": (
        lambda u: timesteps.mode(u, 0.5),
        [0.9280779149, 0.6982233047, 0.5, 0.3017766953, 0.0719220851],
    ),
    "mode -1": (
        lambda u: timesteps.mode(u, -1.0),
        [0.9938441703, 0.8535533906, 0.5, 0.1464466094, 0.0061558297],
    ),
    "cosmap": (timesteps.cosmap, [0.0729596573, 0.2928932188, 0.5, 0.7071067812, 0.9270403427]),
}


@in_float64
@pytest.mark.parametrize("name", LAWS)
def test_time_laws(name):
    law, want = LAWS[name]
    np.testing.assert_allclose(law(jnp.array(U)), want, rtol=1e-9)


@in_float64
def test_the_logit_normal_law():
    u = jax.scipy.stats.norm.cdf(jnp.array([-1.5, -0.5, 0.0, 0.5, 1.5]))
    want = [0.5249791875, 0.6681877722, 0.7310585786, 0.785834983, 0.8698915256]
    np.testing.assert_allclose(timesteps.logit_normal(u, 1.0, 0.6), want, rtol=1e-9)
    # which is that of the other orientation in terms of noise
    np.testing.assert_allclose(timesteps.logit_normal(1.0 - u, -1.0, 0.6), 1 - np.array(want))


MOMENTS = {  # mean, variance, P(t < .1), P(.25 < t < .75)
    ("uniform", 1.0, 0.0): (0.5, 0.08333333, 0.1, 0.5),
    ("mode", 1.0, 0.0): (0.5, 0.05304860, 0.053526, 0.692969),
    ("mode", 0.5, 0.0): (0.5, 0.06676822, 0.070769, 0.604333),
    ("mode", -1.0, 0.0): (0.5, 0.12500000, 0.204833, 0.333333),
    ("cosmap", 1.0, 0.0): (0.5, 0.06830989, 0.070446, 0.590334),
    ("logit_normal", 0.6, 1.0): (0.71645879, 0.01332877, None, None),
    ("logit_normal", 1.0, 0.0): (0.5, 0.04337904, None, None),
    ("logit_normal", 0.6, -1.0): (0.28354121, 0.01332877, None, None),
}


@pytest.mark.parametrize(("law", "scale", "mean"), MOMENTS)
def test_drawn_times_have_the_moments_of_their_law(law, scale, mean):
    config = PathConfig(time_law=law, time_scale=scale, time_mean=mean, start=0.0)
    t = np.asarray(straight.draw_times(config, jax.random.key(0), jnp.arange(100_000)), np.float64)
    first, second, low, middle = MOMENTS[law, scale, mean]
    # spread evenly, a mean over 100,000 is good to far more digits than of independent draws
    np.testing.assert_allclose([t.mean(), t.var()], [first, second], atol=2e-5)
    if low is not None:
        found = [(t < 0.1).mean(), ((t > 0.25) & (t < 0.75)).mean()]
        np.testing.assert_allclose(found, [low, middle], atol=1e-4)
    later = straight.draw_times(
        PathConfig(time_law=law, time_scale=scale, time_mean=mean, start=0.25),
        jax.random.key(0), jnp.arange(9),
    )  # fmt: skip
    np.testing.assert_allclose(later, 0.75 * t[:9], rtol=1e-5)


def test_low_discrepancy():
    index = jnp.arange(1000, dtype=jnp.int32)
    u = np.stack([timesteps.low_discrepancy(jax.random.key(k), index) for k in range(200)])
    assert 0 <= u.min() and u.max() < 1
    # each is uniform over keys, and all of one key are closer to even than draws of their own
    np.testing.assert_allclose(u[:, 7].mean(), 0.5, atol=0.06)
    np.testing.assert_allclose(u[:, 7].var(), 1 / 12, atol=0.02)
    apart = np.abs(np.sort(u, axis=1) - (np.arange(1000) + 0.5) / 1000).max(axis=1)
    assert apart.max() < 3 / 1000  # of independent draws: about 27 / 1000
    # the steps are those of the golden ratio, whatever the batch and however far
    golden = (math.sqrt(5) - 1) / 2
    far = jnp.array([0, 5, 2**30], jnp.int32)
    got = np.asarray(timesteps.low_discrepancy(jax.random.key(3), far), np.float64)
    assert got[1] == u[3, 5]
    steps = (got - got[0] - np.array([0, 5, 2**30]) * (round(golden * 2**32) / 2**32)) % 1.0
    assert np.minimum(steps, 1 - steps).max() < 1e-6


def test_rows():
    euler = rows_of("ddim", 4)
    np.testing.assert_allclose(euler.a, [0.25, 1 / 3, 0.5, 1.0], rtol=1e-14)
    np.testing.assert_allclose(euler.b, [0.75, 2 / 3, 0.5, 0.0], rtol=1e-14)
    heun = rows_of("heun", 4)
    np.testing.assert_array_equal(heun.t, [3, 2, 2, 1, 1, 0, 0])  # of times 1 .75 .75 .5 .5 .25 .25
    np.testing.assert_allclose(heun.a, [0.25, 1 / 6, 1 / 3, 0.25, 0.5, 0.5, 1.0], rtol=1e-14)
    np.testing.assert_allclose(heun.b, [0.75, 1, 2 / 3, 1, 0.5, 1, 0], rtol=1e-14)
    np.testing.assert_allclose(heun.e, [0, -1 / 6, 0, -0.25, 0, -0.5, 0], rtol=1e-14)
    dpmpp = rows_of("dpmpp", 4)
    np.testing.assert_allclose(dpmpp.a, [0.25, 1 / 3, 0.75, 1.0], rtol=1e-14)
    np.testing.assert_allclose(dpmpp.b, euler.b, rtol=1e-14)
    np.testing.assert_allclose(dpmpp.e, [0, 0, -0.25, 0], atol=1e-15)
    fixed = rows_of("fixed_noise", 4)
    np.testing.assert_allclose(np.stack(fixed[1:]), np.outer([0.25, 1, -0.25, 0], np.ones(4)))
    one = rows_of("one_step", 4)
    assert [float(column[0]) for column in one] == [3, 1, 0, 0, 0]
    churn = samplers.ddim_rows(forward.straight(4), np.array([2, 1]), eta=1.0)
    got = [column[0] for column in churn[1:4]]
    np.testing.assert_allclose(got, [4 / 9, 2 / 9, 0.4714045208], rtol=1e-10)
    shifted = forward.straight(4, shift=3.0).noise
    np.testing.assert_allclose(shifted, [0.5, 0.75, 0.9, 1.0], rtol=1e-14)


PATHS = {
    "ddim": [
        [0.9762870634, -0.2162127619, 0.3898252676], [0.9324998057, 0.0445873311, 0.5057072493],
        [0.8397757553, 0.2620278299, 0.5712777745], [0.5849061241, 0.3635876712, 0.4896796745],
    ],
    "heun": [
        [0.9662499028, -0.2277063345, 0.3778536246], [0.9008225659, 0.0140535542, 0.4716790744],
        [0.7396588458, 0.1842061737, 0.4764515639], [0.5510092517, 0.3293536486, 0.4528071239],
    ],
    "dpmpp": [
        [0.9762870634, -0.2162127619, 0.3898252676], [0.9324998057, 0.0445873311, 0.5057072493],
        [0.815307359, 0.2403480329, 0.5461220462], [0.5767998277, 0.3541439135, 0.4800590612],
    ],
    "fixed_noise": [
        [0.9762870634, -0.2162127619, 0.3898252676], [0.937518386, 0.0503341173, 0.5116930707],
        [0.8745580154, 0.2957536442, 0.6088490629], [0.7736158011, 0.5152863504, 0.6723063024],
    ],
    "one_step": [[0.9051482536, 0.6351489524, 0.8093010702]],
}  # fmt: skip


@in_float64
@pytest.mark.parametrize("kind", PATHS)
def test_paths_of_a_toy(kind):
    path = np.asarray(process.trajectory(chain(kind, 4, toy)))[1:, 0]
    points = path[[1, 3, 5, 6]] if kind == "heun" else path  # behind its corrections
    np.testing.assert_allclose(points, PATHS[kind], rtol=1e-8, atol=2e-10)


@in_float64
def test_thirty_steps_of_euler():
    end = process.run(chain("ddim", 30, toy))
    np.testing.assert_allclose(end[0], [0.2398491119, 0.1408609144, 0.1951434307], rtol=1e-8)


@in_float64
@pytest.mark.parametrize(
    ("count", "want"),
    [
        (1, [0.9049673834, 0.6345519876, 0.8089557591]),
        (4, [0.7734014261, 0.5147753149, 0.6719710637]),
        (30, [0.7136896011, 0.4670489118, 0.6148674732]),
    ],
)
def test_the_released_loop_at_the_released_times(count, want):
    made = straight.make(PathConfig(), count, SamplerConfig(kind="fixed_noise"))
    walk = chain("fixed_noise", count, toy, told=lambda t: made.times)
    np.testing.assert_allclose(process.run(walk)[0], want, rtol=1e-8)
    # whose end is the mean of what its network said
    said, x = [], walk.start
    for x in process.trajectory(walk)[:-1]:
        said.append(toy(x, made.times[count - 1 - len(said)]))
    np.testing.assert_allclose(process.run(walk), np.mean(said, axis=0), rtol=1e-14)
    draw = straight.noise(made, jax.random.key(0), jnp.arange(1), walk.start)
    np.testing.assert_array_equal(draw(jnp.int32(2)), walk.start)


def test_what_rows_weigh_as_noise():
    start = jnp.ones((2, 3))
    for kind, eta in (("ddim", 0.0), ("heun", 0.0), ("dpmpp", 0.0), ("one_step", 0.0)):
        made = straight.make(PathConfig(), 4, SamplerConfig(kind=kind, eta=eta))
        assert straight.noise(made, jax.random.key(0), jnp.arange(2), start) is None
    made = straight.make(PathConfig(), 4, SamplerConfig(kind="ddim", eta=0.5))
    drawn = straight.noise(made, jax.random.key(0), jnp.arange(2), start)(jnp.int32(0))
    assert drawn.shape == (2, 3) and np.abs(drawn - start).min() > 0


EXACT = 0.7 + math.sqrt(0.3) * START
ERRORS = {  # N: euler, heun, dpmpp, released
    2: (0.31695333, 0.26369889, 0.31695333, 0.43233794),
    4: (0.16927711, 0.06350131, 0.13306224, 0.38163712),
    8: (0.09041919, 0.01380614, 0.01425746, 0.35684330),
    16: (0.04698091, 0.00311520, 0.00617578, 0.34409147),
    32: (0.02398261, 0.00073418, 0.00327873, 0.33761711),
}


@in_float64
@pytest.mark.parametrize("count", ERRORS)
def test_published_errors(count):
    np.testing.assert_allclose(EXACT, [1.2477225575, 0.4261387212, 0.8369306394], atol=6e-11)
    got = [np.abs(process.run(chain(kind, count, gauss))[0] - EXACT).max() for kind in KINDS]
    np.testing.assert_allclose(got, ERRORS[count], rtol=0, atol=6e-9)


@in_float64
def test_orders():
    def order(kind):
        errors = [np.abs(process.run(chain(kind, n, gauss))[0] - EXACT).max() for n in (128, 512)]
        return math.log(errors[0] / errors[1], 4)

    found = {kind: order(kind) for kind in KINDS}
    np.testing.assert_allclose(found["ddim"], 1.0, atol=0.02)
    np.testing.assert_allclose(found["heun"], 2.0, atol=0.02)
    assert abs(found["fixed_noise"]) < 0.01


@in_float64
@pytest.mark.parametrize(
    ("kind", "count", "want"),
    [
        ("one_step", 4, [0.7, 0.7, 0.7]),
        ("ddim", 4, [1.078445443, 0.5107772785, 0.7946113607]),
        ("heun", 4, [1.1842212454, 0.4578893773, 0.8210553113]),
        ("dpmpp", 4, [1.1146603179, 0.4926698411, 0.8036650795]),
        ("fixed_noise", 4, [0.8660854403, 0.6169572799, 0.7415213601]),
    ],
)
def test_ends_under_the_exact_denoiser_of_a_gaussian(kind, count, want):
    np.testing.assert_allclose(process.run(chain(kind, count, gauss))[0], want, rtol=1e-8)


@in_float64
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_true_answer_is_walked_to_along_the_line(kind, shift):
    rows, times = rows_of(kind, 6, shift), forward.straight(6, shift).noise
    x = eps = jnp.asarray(EPS)[None]  # pure noise at t = 1
    walk = Chain(samplers.cast(rows), lambda xt, t: jnp.asarray(X0)[None], x, lambda i: eps)
    path = process.trajectory(walk if kind == "fixed_noise" else walk._replace(draw=None))
    at = np.append(times[::-1], 0.0)
    if kind == "heun":  # a corrector moves nowhere where the estimate stays
        at = np.append(np.repeat(at[:-1], 2)[:1], np.repeat(at[1:-1], 2))
        at = np.append(at, 0.0)
    for t, point in zip(at, path, strict=True):
        np.testing.assert_allclose(point[0], (1 - t) * X0 + t * EPS, rtol=1e-12, atol=1e-14)


@in_float64
def test_heun_rows_are_a_heun_step():
    f, x, times = toy, jnp.asarray(START)[None], np.append(forward.straight(5).noise[::-1], 0.0)
    path = process.trajectory(chain("heun", 5, f))
    for i, (t, s) in enumerate(zip(times[:-2], times[1:-1], strict=True)):
        slope = (x - f(x, t)) / t
        ahead = x + (s - t) * slope
        x = x + 0.5 * (s - t) * (slope + (ahead - f(ahead, s)) / s)
        np.testing.assert_allclose(path[2 * i + 2], x, rtol=1e-14, atol=1e-16)


@in_float64
def test_heun_is_of_second_order_on_levels_of_betas():
    # Data N(.7, .3) under a variance-preserving path: a = cos w, n = sin w.
    def error(count, kind):
        w = np.linspace(0, 1.5, count + 1)[1:]
        levels = forward.Levels(np.cos(w), np.sin(w))
        a, n = (jnp.asarray(level) for level in levels)

        def denoise(x, t):
            return 0.7 + a[t] * 0.3 * (x - a[t] * 0.7) / (a[t] ** 2 * 0.3 + n[t] ** 2)

        rows = samplers.PATHS[kind](levels, None, SamplerConfig(kind=kind))
        end = process.run(Chain(samplers.cast(rows), denoise, jnp.asarray(START)[None]))[0]
        spread = math.sqrt(0.3 / (0.3 * math.cos(1.5) ** 2 + math.sin(1.5) ** 2))
        return np.abs(end - (0.7 + spread * (START - math.cos(1.5) * 0.7))).max()

    order = {k: math.log(error(128, k) / error(512, k), 4) for k in ("ddim", "heun")}
    np.testing.assert_allclose(order["ddim"], 1.0, atol=0.03)
    assert order["heun"] > 1.9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"time_scale": 1.8}, r"model.path.time-scale .*nearest valid value is 1\.7519383938"),
        ({"time_scale": -1.1}, "model.path.time-scale .*nearest valid value is -1"),
        ({"start": 1.0}, "model.path.start .*nearest valid value is 0.5"),
        ({"shift": 0.0}, "model.path.shift must be above 0"),
        ({"time_mean": math.inf}, "model.path.time-mean must be a finite number"),
    ],
)
def test_bad_settings(changes, said):
    with pytest.raises(ValueError, match=said):
        PathConfig(**changes)
    PathConfig(time_law="logit_normal", time_scale=3.0)


def test_the_released_loop_is_refused_where_no_flow_keeps_its_noise():
    with pytest.raises(ValueError, match="loop of a flow.* the nearest is ddim"):
        plan(SamplerConfig(kind="fixed_noise"), forward.straight(4))
