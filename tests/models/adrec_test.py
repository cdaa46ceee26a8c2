"""ADRec against numbers of an independent implementation in float64, which agree with the released
network's (d = 8, L = 4, five items), and what must hold of it."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.models import adrec
from jaxrec_diff.models.adrec import ADRecConfig
from jaxrec_diff.models.adrec_places import looked_up
from jaxrec_diff.models.contract import DataSpec, Thaw
from jaxrec_diff.models.network import call
from jaxrec_diff.ops import filled
from jaxrec_diff.ops import rng as ops_rng
from jaxrec_diff.training import optim
from jaxrec_diff.training.config import TrainConfig
from tests.nets.transformer_test import affine, fill, unit_norm

SPEC = DataSpec(num_users=2, num_items=5, max_len=4)
TINY = ADRecConfig(
    width=8, dropout_rate=0.0, history_dropout_rate=0.0, sampler=SamplerConfig(kind="mean")
)
SEQ, TARGET = jnp.array([[2, 5, 0, 0], [1, 3, 4, 2]]), jnp.array([4, 1])
# of places with all padding on the left, as the released network has it
STEPS = jnp.array([[0, 0, 3, 17], [31, 0, 8, 24]])
NOISE = np.cos(np.arange(2)[:, None, None] + 2 * np.arange(4)[:, None] + 0.5 * np.arange(8))
START = np.sin(20 + 0.1 * np.arange(8))
ENCODED = {
    "query": [
        [-.7141738128, .8079616954, .5496575239, -.6539906462, 2.0926765805, -.2780178525,
         -.7940646872, -1.0100488011],
        [-.1737316729, 1.45039644, .5294008329, -1.4115876727, 1.4887106389, -.2685553454,
         -.8339710129, -.780662208],
    ],
    "key": [
        [-.5141054114, .5917856776, .5042734163, -.4667688994, 2.1983024561, -.4027540853,
         -.7395827502, -1.1711504036],
        [-.1737316729, 1.45039644, .5294008329, -1.4115876727, 1.4887106389, -.2685553454,
         -.8339710129, -.780662208],
    ],
}  # fmt: skip
RESTORED = {
    (0, 2): [-.5179906469, .3810511159, -.192946414, -2.2149336928, 1.1416327315, 1.0139669119,
             -.1489928697, .5382128641],
    (0, 3): [-1.1378475836, .464349034, -.3900429331, -1.5841286066, 1.4643226607, 1.2108110017,
             -.3434321498, .3159685765],
    (1, 3): [-.4789197089, .2019459088, -.4693172132, -1.9531338845, 1.3735297198, 1.3051291932,
             -.2184197938, .2391857785],
}  # fmt: skip
# mse, ce
LOSSES = {0.001: (1.984623115258, 3.155244431117), 1.0: (1.712131179551, 2.816099479899)}
AFTER_FIRST = [.5503661786, .5739005153, .5891350314, .5981253257, .6055578479, .6035025431,
               .594069091, .5810117556]  # fmt: skip
FINAL = {
    0.001: [
        [-1.1377876788, .4644065779, -.3903758949, -1.58371161, 1.4645960294, 1.2110415313,
         -.3436069051, .3154379501],
        [-.4780819707, .20107396, -.4689389456, -1.9532307791, 1.3734263627, 1.3055467006,
         -.2190661668, .2392708389],
    ],
    1.0: [
        [-.9029653011, .7898186408, -.0735088223, -1.3190075298, 1.3286361349, .8636741834,
         -1.3603552242, .6737079183],
        [.3527509774, -.661195122, .3918902186, -1.630380259, .810037821, 1.0585757226,
         -1.34367259, 1.0219932315],
    ],
}  # fmt: skip
SCORES = [0.4577341624, -1.2101080281, -1.8582734443, -1.8057635999, -3.3574546596, 1.6812165984]
NEITHER = [-1.1381020391, .4640744876, -.3902551626, -1.583986838, 1.4643617977, 1.211051401,
           -.3427191039, .3155754572]  # fmt: skip


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def weights():
    def dense(number, shape):
        made = affine(fill(number, shape, 0.5))
        return {"kernel": fill(number, shape, 0.5), "bias": np.full(made["bias"].shape, 0.01)}

    def block(b):
        names = ("query", "key", "value", "out")
        made = {name: dense(100 * b + 2 + n, (8, 8)) for n, name in enumerate(names)}
        made |= {"feed_in": dense(100 * b + 6, (8, 32)), "feed_out": dense(100 * b + 7, (32, 8))}
        return made | {"norm_attention": unit_norm(8), "norm_feed": unit_norm(8)}

    tree = {
        "items": filled.padded(fill(1, (6, 8))),
        "norm_in": unit_norm(8),
        "step": {"inner": dense(8, (8, 32)), "outer": dense(9, (32, 8))},
        "encoder": {"blocks_0": block(0), "blocks_1": block(1)},
        "denoiser": {"blocks_0": block(2), "blocks_1": block(3)},
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), tree)


def settings(**changes):
    return replace(TINY, **changes)


def example(seq=SEQ, target=TARGET):
    return Sequences(seq, target, weight=jnp.ones(len(target)), row_id=jnp.arange(len(target)))


def query(seq=SEQ):
    return SequenceQuery(seq, jnp.arange(len(seq)))


def steps_and_noise(monkeypatch, steps=STEPS, noise=NOISE):
    """What the loss draws for the places of a sequence whose padding is on the left."""
    monkeypatch.setattr(ops_rng, "randint", lambda key, rows, low, high, shape: steps)
    monkeypatch.setattr(ops_rng, "normal", lambda key, rows, shape: jnp.asarray(noise))


def given_start(monkeypatch, start=START):
    monkeypatch.setattr(
        ops_rng,
        "normal",
        lambda key, rows, shape: jnp.broadcast_to(jnp.asarray(start), (len(rows), *shape)),
    )


def loss_of(made, params, key=None, batch=None):
    """`adrec.loss`, in one program; a patch made before is compiled in."""
    key, batch = jax.random.key(0) if key is None else key, example() if batch is None else batch
    return jax.jit(lambda params: adrec.loss(made, params, (), key, batch))(params)


def points_of(made, params, seq=SEQ, target=TARGET):
    """x0_hat in training at every place of two rows, all padding on the left."""
    row = jnp.arange(2)

    @jax.jit
    def points(params, seq, target):
        args = seq, target, jnp.ones(2), jnp.zeros(2, int), row
        return adrec._restored(made, params, jax.random.key(0), *args).point

    return points(params, seq, target).reshape(2, -1, 8)


def walked(params, config, seq=SEQ):
    """Every point of the reverse process, [N + 1, B, D]."""
    made = adrec.parts(config, SPEC)
    return jax.jit(
        lambda: process.trajectory(adrec.chain(made, params, (), jax.random.key(0), query(seq)))
    )()


@in_float64
@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("mask", ENCODED)
def test_what_the_history_says(mask, one):
    made, params = adrec.parts(settings(mask=mask), SPEC), weights()
    asked = adrec.asked_of(made, SEQ, TARGET, jnp.zeros(2, int), one=one)
    rows = looked_up(params["items"], asked.seq)
    read = made.net.apply({"params": params}, rows, asked.where, method="encode")
    last = [int(np.flatnonzero(row)[-1]) for row in np.asarray(asked.seq)]
    np.testing.assert_allclose(
        read[jnp.arange(2), jnp.array(last)], ENCODED[mask], rtol=0, atol=1e-9
    )


@in_float64
@pytest.mark.parametrize("scale", LOSSES)
def test_golden_losses(monkeypatch, scale):
    steps_and_noise(monkeypatch)
    made = adrec.parts(settings(lambda_scale=scale), SPEC)
    value, aux = loss_of(made, weights())
    mse, ce = LOSSES[scale]
    np.testing.assert_allclose(aux.metrics["mse"], mse, rtol=0, atol=1e-9)
    np.testing.assert_allclose(aux.metrics["ce"], ce, rtol=0, atol=1e-9)
    np.testing.assert_allclose(value, mse + ce, rtol=0, atol=1e-9)


@in_float64
def test_golden_estimates(monkeypatch):
    steps_and_noise(monkeypatch)
    made = adrec.parts(TINY, SPEC)
    points = points_of(made, weights())
    for at, want in RESTORED.items():
        np.testing.assert_allclose(points[at], want, rtol=0, atol=1e-9)


@in_float64
@pytest.mark.parametrize("scale", FINAL)
def test_golden_chain(monkeypatch, scale):
    given_start(monkeypatch)
    params = weights()
    path = walked(params, settings(lambda_scale=scale))
    assert path.shape == (33, 2, 8)
    np.testing.assert_allclose(path[-1], FINAL[scale], rtol=0, atol=1e-9)
    if scale == 0.001:
        np.testing.assert_allclose(path[1, 0], AFTER_FIRST, rtol=0, atol=1e-9)
        np.testing.assert_allclose(path[-1, 0] @ params["items"][:6].T, SCORES, rtol=0, atol=1e-9)
    one = walked(params, settings(lambda_scale=scale, sampler=ADRecConfig().sampler))
    apart = np.abs(one[-1] - path[-1]).max()
    np.testing.assert_allclose(apart, {0.001: 5.771e-4, 1.0: 6.884e-1}[scale], rtol=1e-3)


@in_float64
def test_without_x_t_and_step(monkeypatch):
    given_start(monkeypatch)
    model = adrec.build(TINY, SPEC)
    neither = model.variants["without_diffusion"](weights(), (), query())
    np.testing.assert_allclose(neither[0], NEITHER, rtol=0, atol=1e-9)
    apart = np.abs(neither - np.array(FINAL[0.001])).max()
    np.testing.assert_allclose(apart, 1.409e-3, rtol=1e-3)


@in_float64
@pytest.mark.parametrize("mask", ENCODED)
@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_the_last_place_alone_is_that_of_the_whole_recomputed(monkeypatch, mask, weight):
    """The chain against one that runs both networks over all places, all padding among them, at
    every step."""
    given_start(monkeypatch)
    config = settings(mask=mask, guidance_weight=weight, lambda_scale=0.7, num_steps=21)
    made, params = adrec.parts(config, SPEC), weights()
    none = jnp.zeros(2, int)
    asked = adrec.asked_of(made, SEQ, none, none, one=False)
    rows, shown = params["items"][asked.seq], params["items"][asked.target]
    last = [int(np.flatnonzero(row)[-1]) for row in np.asarray(asked.seq)]
    at = jnp.arange(2), jnp.array(last)

    @jax.jit
    def whole(x, t):
        net = made.net.bind({"params": params})
        xt, steps = shown.at[at].set(x), jnp.zeros(asked.seq.shape, int).at[at].set(t)
        injected = config.lambda_scale * (xt + net.steps(steps))
        kept, hidden = (
            net.restore(rows, injected, asked.where, s * jnp.ones(2))[at] for s in (1, 0)
        )
        return (1 + weight) * kept - weight * hidden

    betas = adrec.released_betas(config.schedule, config.num_steps)
    abar = np.cumprod(1 - betas)
    before = np.append(1.0, abar[:-1])
    x = jnp.broadcast_to(jnp.asarray(START), (2, 8))
    path = walked(params, config)
    for n, t in enumerate(range(config.num_steps)[::-1]):
        first = np.sqrt(before[t]) * betas[t] / (1 - abar[t])
        second = np.sqrt(1 - betas[t]) * (1 - before[t]) / (1 - abar[t])
        x = first * whole(x, t) + second * x
        np.testing.assert_allclose(path[n + 1], x, rtol=0, atol=1e-11)


@in_float64
@pytest.mark.parametrize("mask", ENCODED)
def test_no_place_sees_a_later_one(monkeypatch, mask):
    steps_and_noise(monkeypatch)
    made, params = adrec.parts(settings(mask=mask, lambda_scale=0.7), SPEC), weights()

    points = functools.partial(points_of, made, params)
    before, other = points(), points(SEQ.at[1, 3].set(5), jnp.array([4, 3]))
    # place 2 is shown the item that place 3 holds, and no place the last target but the last
    np.testing.assert_array_equal(other[1, :2], before[1, :2])
    assert np.abs(other[1, 2:] - before[1, 2:]).min() > 1e-6
    last = points(SEQ, jnp.array([4, 3]))
    np.testing.assert_array_equal(last[1, :3], before[1, :3])


@in_float64
def test_one_place_may_stand_for_all_padding_in_training(monkeypatch):
    steps_and_noise(monkeypatch)
    whole = loss_of(adrec.parts(TINY, SPEC), weights())[0]
    # the same draws of the real places, behind one place of padding
    steps = jnp.array([[0, 3, 17, 0, 0], [0, 31, 0, 8, 24]])
    noise = np.zeros((2, 5, 8))
    noise[0, 1:3], noise[1, 1:] = NOISE[0, 2:], NOISE[1]
    steps_and_noise(monkeypatch, steps, noise)
    made = adrec.parts(settings(pads="one"), SPEC)
    value = loss_of(made, weights())[0]
    np.testing.assert_allclose(value, whole, rtol=0, atol=1e-12)


def test_a_row_of_one_item_does_not_see_whether_steps_are_independent(monkeypatch):
    seq, params = jnp.array([[2], [5]]), weights()
    spec = SPEC._replace(max_len=1)
    drawn = jnp.array([[7], [20]])
    monkeypatch.setattr(
        ops_rng, "randint", lambda key, rows, low, high, shape=(): drawn.reshape(2, *shape)
    )
    made = (adrec.parts(settings(independent=each, mask="key"), spec) for each in (True, False))
    values = [loss_of(each, params, batch=example(seq))[0] for each in made]
    assert values[0] == values[1]


def test_every_place_has_a_step_of_its_own(monkeypatch):
    told = []

    def spy(parts, params, method, *args, **options):
        if method == "steps":
            told.append(np.asarray(args[0]))
        return call(parts, params, method, *args, **options)

    monkeypatch.setattr(adrec, "call", spy)
    for independent in (True, False):
        made = adrec.parts(settings(independent=independent, mask="key"), SPEC)
        with jax.disable_jit():
            adrec.both_losses(made, weights(), jax.random.key(3), example())
    own, shared = told
    assert len(set(own[1])) > 1 and len(set(shared[1])) == 1
    assert not own[0, 2:].any() and not shared[0, 2:].any()  # padding


@in_float64
def test_unit_scale_is_the_chain_of_rows_of_that_length(monkeypatch):
    given_start(monkeypatch)
    params = weights()
    size = float(np.sqrt(np.mean(np.square(params["items"][1:6]))))
    config = settings(x0_scale="unit", lambda_scale=0.7, num_steps=21)
    made = adrec.parts(config, SPEC)
    point = adrec.sample(made, params, (), jax.random.key(0), query())
    end = walked(params, config)[-1]
    np.testing.assert_allclose(point, end * size, rtol=0, atol=1e-12)
    # x_t is that of rows divided by their rms
    items = jnp.array([[3], [1]])
    monkeypatch.undo()
    key = jax.random.key(5)
    xt = adrec.noised(made, params, (), key, query(), items, jnp.int32(4))
    zero = adrec.noised(made, params, (), key, query(), jnp.zeros((2, 1), int), jnp.int32(4))
    signal = forward.levels(adrec.released_betas("trunc_lin", 21)).signal[4]
    moved = (params["items"][items[:, 0]] - params["items"][0]) / size
    np.testing.assert_allclose(xt - zero, signal * moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("items", "expected"),
    [(4731, 1_530_752), (6086, 1_704_192), (7309, 1_860_736), (12301, 2_499_712),
     (1008, 1_054_208)],
)  # fmt: skip
def test_as_many_parameters_as_released(items, expected):
    model = adrec.build(ADRecConfig(), SPEC._replace(num_items=items, max_len=50))
    params = jax.eval_shape(model.init, jax.random.key(0), example()).params
    filling = (filled.rows(items + 1) - items - 1) * 128
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) - filling == expected


ROWS = np.array([[0.5, -0.2, 0.3], [-0.9, 0.11, -0.4]], np.float32)


def table_after(freeze, updates, epochs=5, per_epoch=3):
    """A backbone's rows, moved for so many updates by gradients of one."""
    config = settings(freeze=freeze, freeze_epochs=epochs)
    rows = np.tile(np.float32([0.5, -0.2, 0.3, -0.9]), (5, 2))
    model = adrec.build(config, SPEC._replace(exports={"items": rows}))
    np.testing.assert_array_equal(model.given["items"], rows)
    train = TrainConfig(optimizer="adam_l2", weight_decay=1e-5, num_epochs=10)
    tool = optim.of_model(train, 10 * per_epoch, model)
    params = {"items": jnp.asarray(rows), "step": jnp.ones(3)}
    state = tool.init(params)
    update = jax.jit(tool.update)
    for _ in range(updates):
        moved, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        params = jax.tree.map(jnp.add, params, moved)
    return rows, params


def test_a_frozen_table_stays_to_the_bit_and_then_learns():
    rows, params = table_after("true", 15)
    np.testing.assert_array_equal(params["items"], rows)
    assert (np.abs(params["step"] - 1.0) > 0.01).all()
    rows, params = table_after("true", 16)
    # the first step of an Adam that begins here
    np.testing.assert_allclose(rows - params["items"], 1e-3, rtol=1e-3)


def test_the_released_freeze_moves_every_coordinate_towards_zero():
    rows, params = table_after("released", 1)
    moved = rows - np.asarray(params["items"], np.float64)
    exact = 1e-3 * np.sign(rows) * (1 - 1e-8 / (1e-5 * np.abs(rows) + 1e-8))
    np.testing.assert_allclose(moved, exact, rtol=1e-4)
    np.testing.assert_allclose(moved, 1e-3 * np.sign(rows), rtol=1e-2)
    # a replay of that rule over the five epochs
    p, m, v = rows.astype(np.float64), 0.0, 0.0
    for step in range(1, 16):
        g = 1e-5 * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - 1e-3 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    _, params = table_after("released", 15)
    np.testing.assert_allclose(params["items"], p, rtol=1e-4)


def test_when_a_table_is_frozen():
    given = SPEC._replace(exports={"items": np.ones((5, 8), np.float32)})
    assert adrec.build(TINY, given).thawed == {"items": Thaw(5, decays=False)}
    assert adrec.build(settings(freeze="released"), given).thawed == {"items": Thaw(5, decays=True)}
    assert adrec.build(settings(freeze_epochs=0), given).thawed == {}
    fresh = adrec.build(settings(table="random"), given)
    assert fresh.thawed == {} and fresh.given == {}


def test_rows_that_do_not_fit_are_refused():
    for rows, words in (
        (np.ones((4, 8)), "5 rows of finite numbers"),
        (np.ones((5, 6)), "model.width=6, or backbone.model.width=8"),
    ):
        with pytest.raises(ValueError, match=words):
            adrec.build(TINY, SPEC._replace(exports={"items": rows}))


@in_float64
def test_gradients_may_be_taken_apart():
    key, params = jax.random.key(1), weights()
    made = adrec.parts(settings(mask="key", pcgrad=True), SPEC)

    @jax.jit
    def gradients(params):
        parts = (lambda p, n=n: adrec.both_losses(made, p, key, example())[n] for n in (0, 1))
        whole = jax.grad(lambda p: adrec.loss(made, p, (), key, example())[0])
        return [ravel_pytree(jax.grad(f)(params))[0] for f in parts] + [
            ravel_pytree(whole(params))[0]
        ]

    ce, mse, got = gradients(params)
    at_odds = min(ce @ mse, 0)
    want = ce - at_odds / (mse @ mse) * mse + mse - at_odds / (ce @ ce) * ce
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
    plain = adrec.parts(settings(mask="key"), SPEC)
    assert loss_of(made, params, key)[0] == loss_of(plain, params, key)[0]


def test_padding_is_trained_as_a_class_and_by_no_history():
    params, key = weights(), jax.random.key(1)

    def gradient(**changes):
        made = adrec.parts(settings(mse_weight=0.0, **changes), SPEC)
        return jax.jit(jax.grad(lambda p: adrec.loss(made, p, (), key, example())[0]))(params)

    assert np.abs(gradient(pad_class=True)["items"][0]).max() > 1e-3
    np.testing.assert_array_equal(gradient(pad_class=False)["items"][0], 0.0)
