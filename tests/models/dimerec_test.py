"""DimeRec against float64 values of a small model filled by a recipe (d = 4, K = 2)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from jaxrec_diff import layout, losses
from jaxrec_diff.batches.types import Negatives, SequenceQuery, Sequences
from jaxrec_diff.benchmarking import hlo
from jaxrec_diff.diffusion import forward, process, samplers, schedules, sphere
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.models import dimerec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.nets.encoders import SelfAttentiveInterests, last_items
from tests.models.compiled import applied, compiled
from tests.models.tables import padded

D, ITEMS, LENGTH = 4, 5, 3
CONFIG = dimerec.DimeRecConfig(width=D, num_interests=2, num_steps=6)
NET = dimerec.DimeRecNet(num_items=ITEMS, max_len=LENGTH, config=CONFIG)
SEQ = jnp.array([[1, 4, 2], [3, 5, 0]])
TARGET, NEGATIVES = jnp.array([2, 4]), jnp.array([1, 3, 5])
STEP = np.array([2, 5])


def filled(number, shape):
    return (0.5 * np.sin(1.7 * number + 0.37 * np.arange(math.prod(shape)) + 0.2)).reshape(shape)


def dense(number, out, inside):
    return {"kernel": filled(number, (out, inside)).T, "bias": filled(number + 1, (out,))}


def golden_params():
    tree = jax.tree.map(
        jnp.asarray,
        {
            "items": np.roll(filled(0, (ITEMS + 1, D)), 1, axis=0),
            "positions": filled(1, (LENGTH, D)),
            "extract": {"inner": dense(2, 4 * D, D), "outer": dense(4, 2, 4 * D)},
            "step": {"inner": dense(6, 2 * D, D), "outer": dense(8, D, 2 * D)},
            "inner": dense(10, 4 * D, 4 * D),
            "outer": dense(12, D, 4 * D),
        },
    )
    return padded(tree, "items")


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def betas():
    return schedules.linear(6, start=1e-4, stop=2e-2)


def noise_scale():
    bar = np.cumprod(1.0 - betas())
    return np.sqrt(1.0 - bar)


def z_grid():
    return jnp.asarray(np.cos(np.arange(2)[:, None] + np.arange(D)[None, :]))


class GoldenModelTest(parameterized.TestCase):
    @in_float64
    def test_attention_and_interests(self):
        params = golden_params()
        extract = SelfAttentiveInterests(2)
        history = params["items"][SEQ]
        got, weights = applied(extract)(
            {"params": params["extract"]}, history, params["positions"], SEQ > 0
        )
        want_weights = [
            [
                [0.3139668216, 0.3177886939],
                [0.3742008973, 0.3082941569],
                [0.3118322811, 0.3739171492],
            ],
            [[0.4852825271, 0.5009859153], [0.5147174729, 0.4990140847], [0, 0]],
        ]
        want = [
            [
                [-0.0004352753, 0.0441919284, 0.082837962, 0.110272266],
                [0.063668957, 0.1042737506, 0.1307655812, 0.1395589038],
            ],
            [
                [-0.0462771485, -0.039044907, -0.0265281205, -0.0104208773],
                [-0.0451460672, -0.0436307548, -0.0362102245, -0.0238888102],
            ],
        ]
        np.testing.assert_allclose(weights, want_weights, rtol=1e-9)
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(jnp.sum(weights, axis=1), 1.0)
        guided = applied(NET)({"params": params}, SEQ, method="guide")
        np.testing.assert_allclose(guided, want, rtol=1e-7, atol=1e-10)

    @in_float64
    def test_places_counted_from_the_end(self):
        # A row of n items sees the first n positions in reverse, whatever comes after it.
        params = golden_params()
        net = NET.clone(config=dataclasses.replace(CONFIG, positions="end"))
        got = applied(net)({"params": params}, SEQ, method="guide")
        for row, length in ((0, 3), (1, 2)):
            turned = jnp.concatenate(
                [params["positions"][:length][::-1], jnp.ones((3 - length, D))]
            )
            want = applied(NET)(
                {"params": params | {"positions": turned}}, SEQ[row : row + 1], method="guide"
            )
            np.testing.assert_allclose(got[row], want[0], rtol=1e-12)
        assert not np.allclose(got, applied(NET)({"params": params}, SEQ, method="guide"))

    @in_float64
    def test_step_embedding(self):
        got = applied(NET)({"params": golden_params()}, jnp.array([2]), method="embed_steps")[0]
        want = [0.0307832902, -0.1775849655, 0.009459718, -0.8129317429]
        np.testing.assert_allclose(got, want, rtol=1e-8)

    @in_float64
    def test_gem_loss(self):
        params = golden_params()
        interests = applied(NET)({"params": params}, SEQ, method="guide")
        got = dimerec.gem_loss(interests, params["items"][TARGET], params["items"][NEGATIVES])
        np.testing.assert_allclose(got, [1.314826153644, 1.331709589425], rtol=1e-10)
        swapped = dimerec.gem_loss(
            interests[:, ::-1], params["items"][TARGET], params["items"][NEGATIVES]
        )
        np.testing.assert_allclose(swapped, got, rtol=1e-12)

    @parameterized.named_parameters(
        (
            "unit",
            1.0,
            [0.7124658242, 0.5972415532, 0.3545838049, 0.0998263584],
            [3.736223022888, 3.905923655990],
            [2.192014074576, 2.655958089523],
            [17.922980697187, 19.091997464605],
        ),
        (
            "inv_sqrt_d",
            0.5,
            [0.6840284034, 0.5911740735, 0.394931378, 0.1632408186],
            [3.715707336003, None],
            [2.186203077405, None],
            None,
        ),
    )
    @in_float64
    def test_diffusion_losses(self, scale, xt_first, recon, ssm, cool):
        params = golden_params()
        interests = applied(NET)({"params": params}, SEQ, method="guide")
        x0 = sphere.normalize(params["items"][TARGET])
        table = jnp.asarray(scale * noise_scale())
        xt = sphere.q_sample(table, x0, jnp.asarray(STEP), z_grid(), project=True)
        np.testing.assert_allclose(xt[0], xt_first, rtol=1e-8)
        raw = applied(NET)({"params": params}, xt, jnp.asarray(STEP), interests, method="denoise")
        if scale == 1.0:
            want = [-0.5140912968, -0.7571921335, -0.8999759217, -0.9232314111]
            np.testing.assert_allclose(raw[0], want, rtol=1e-8)
        estimate = sphere.normalize(raw)
        others = sphere.normalize(params["items"][NEGATIVES])
        got_recon = jnp.sum((x0 - estimate) ** 2, -1)
        for row, want in enumerate(recon):
            if want is not None:
                np.testing.assert_allclose(got_recon[row], want, rtol=1e-10)
        for temperature, values in ((1.0, ssm), (0.1, cool)):
            got = losses.sampled_softmax(
                jnp.sum(estimate * x0, -1) / temperature, estimate @ others.T / temperature
            )
            for row, want in enumerate(values or []):
                if want is not None:
                    np.testing.assert_allclose(got[row], want, rtol=1e-9)

    @in_float64
    def test_normalised_euclidean_forward(self):
        x0 = sphere.normalize(golden_params()["items"][TARGET])
        bar = np.cumprod(1.0 - betas())[STEP][:, None]
        got = sphere.normalize(np.sqrt(bar) * x0 + np.sqrt(1 - bar) * z_grid())
        want = [
            [0.7092814944, 0.5967155181, 0.3595721918, 0.1075090277],
            [-0.3898455145, -0.5706943058, -0.6054842982, -0.3946102493],
        ]
        np.testing.assert_allclose(got, want, rtol=1e-8)

    @parameterized.named_parameters(
        (
            "inv_sqrt_d",
            0.5,
            [
                [0.4280490488, 0.5202860128, 0.5449883013, 0.4990633508],
                [-0.3349645307, -0.4828989294, -0.5672801064, -0.5768887831],
            ],
        ),
        (
            "unit",
            1.0,
            [
                [0.4301866419, 0.5210922213, 0.544355533, 0.4970708238],
                [-0.3280997581, -0.4798702324, -0.5684797313, -0.5821562539],
            ],
        ),
    )
    @in_float64
    def test_reverse_chain(self, scale, want):
        params = golden_params()
        rows = samplers.ddpm_rows(forward.levels(betas()))
        steps = process.Steps(*(jnp.asarray(column) for column in rows))
        grid = np.stack(
            [
                np.sin(i + 0.5 * np.arange(2)[:, None] + 0.25 * np.arange(D)[None, :])
                for i in (5, 4, 3, 2, 1, 0)
            ]
        )
        start = np.sin(6 + 0.5 * np.arange(2)[:, None] + 0.25 * np.arange(D)[None, :])
        interests = applied(NET)({"params": params}, SEQ, method="guide")
        for form in (dimerec.plain, dimerec.hoisted):
            denoise = form(NET, params, interests)
            chain = process.Chain(
                steps,
                lambda xt, t, f=denoise: sphere.normalize(f(xt, t)),
                sphere.normalize(jnp.asarray(start)),
                samplers.draw_given(jnp.asarray(scale * grid)),
                project=sphere.normalize,
            )
            got = jax.jit(lambda c=chain: process.run(c))()
            np.testing.assert_allclose(got, want, rtol=1e-8)
        if scale == 0.5:
            scores = got @ sphere.normalize(params["items"][1 : ITEMS + 1]).T
            np.testing.assert_allclose(
                scores[0],
                [0.9304947656, 0.929558792, -0.8609090898, -0.9625439939, 0.7305956924],
                rtol=1e-8,
            )
            np.testing.assert_array_equal(np.argsort(-scores[1]), [3, 2, 4, 1, 0])


def _model(**changes):
    settings = {"width": 8, "num_interests": 2, "num_steps": 5, "num_negatives": 6} | changes
    spec = DataSpec(4, 7, 4, np.array([5, 1, 9, 2, 2, 0, 1]))
    return compiled(dimerec.build(dimerec.DimeRecConfig(**settings), spec))


def _example(rows=6):
    key = jax.random.key(3)
    seq = jax.random.randint(key, (rows, 4), 1, 8)
    seq = jnp.where(jnp.arange(4) < jnp.arange(rows)[:, None] % 5, seq, 0)
    target = jax.random.randint(key, (rows,), 1, 8)
    return Sequences(seq, target, jnp.ones(rows), jnp.arange(rows, dtype=jnp.int32))


def test_samples_are_unit_vectors_and_hoisting_changes_nothing():
    example = _example()
    query = SequenceQuery(example.seq, example.row_id)
    params = _model().init(jax.random.key(0), example).params
    points = [
        _model(hoist=hoist).sample(params, (), jax.random.key(1), query) for hoist in (True, False)
    ]
    np.testing.assert_allclose(jnp.linalg.norm(points[0], axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(points[0], points[1], atol=1e-5)


def test_one_step_is_one_call():
    example = _example()
    query = SequenceQuery(example.seq, example.row_id)
    model = _model(num_steps=1)
    params = model.init(jax.random.key(0), example).params
    got = model.sample(params, (), jax.random.key(1), query)
    again = _model(num_steps=1, sampler=SamplerConfig(kind="mean")).sample(
        params, (), jax.random.key(1), query
    )
    np.testing.assert_allclose(got, again, atol=1e-6)  # the last step adds no noise


def test_rule_based_guidance_is_the_last_items():
    history = jnp.arange(1.0, 9.0).reshape(1, 4, 2)
    got = last_items(history, jnp.array([[True, True, True, False]]), 2)
    np.testing.assert_array_equal(got, history[:, 1:3])
    short = last_items(history, jnp.array([[True, False, False, False]]), 2)
    np.testing.assert_array_equal(short, [[[0.0, 0.0], [1.0, 2.0]]])


def test_empty_history_guides_with_zeros_and_padded_places_do_not_matter():
    model = _model()
    example = _example()
    params = model.init(jax.random.key(0), example).params
    variant = model.variants["interests_only"]
    np.testing.assert_array_equal(variant(params, (), SequenceQuery(example.seq[:1] * 0, 0)), 0.0)
    changed = params | {"items": params["items"].at[0].set(7.0)}
    query = SequenceQuery(example.seq, example.row_id)
    np.testing.assert_allclose(variant(params, (), query), variant(changed, (), query))


def test_the_sphere_bounds_the_softmax_loss():
    # Unit vectors, temperature 1, M negatives: at least ln(1 + M e^-2).
    value = losses.sampled_softmax(jnp.ones(1), -jnp.ones((1, 2560)))
    np.testing.assert_allclose(value, math.log1p(2560 * math.exp(-2)), rtol=1e-6)
    np.testing.assert_allclose(value, 5.850644730002, rtol=1e-6)
    flat = losses.sampled_softmax(jnp.zeros(1), jnp.zeros((1, 10)))
    np.testing.assert_allclose(flat, 2.397895272798, rtol=1e-6)


def test_full_negatives_are_the_softmax_over_the_catalogue():
    model, example = _model(negatives="full"), _example()
    params = model.init(jax.random.key(0), example).params
    gem = model.loss(params, (), jax.random.key(1), example)[1].metrics["gem"]
    interests = np.asarray(
        model.variants["interests_only"](params, (), SequenceQuery(example.seq, 0))
    )
    items, each = np.asarray(params["items"], np.float64), []
    for row, target in zip(interests, example.target, strict=True):
        best = row[np.argmax(row @ items[target])]
        logits = items[1:8] @ best
        each.append(np.log(np.exp(logits).sum()) - logits[target - 1])
    np.testing.assert_allclose(gem, np.mean(each), rtol=1e-5)


def test_the_softmax_over_all_items_is_that_over_each_of_them_drawn():
    model, example = _model(negatives="full"), _example()
    params = model.init(jax.random.key(0), example).params
    drawn = Negatives(jnp.arange(1, 8), jnp.zeros(7), jnp.zeros(example.target.shape))

    @jax.jit
    def graded(example):
        loss = jax.value_and_grad(model.loss, has_aux=True)
        return loss(params, (), jax.random.key(1), example)

    want, found = graded(example._replace(negatives=drawn)), graded(example)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, want)


@pytest.mark.slow
def test_devices_that_share_a_table_are_not_sent_it_for_its_softmax():
    items, rows = 5000, 8
    spec = DataSpec(0, items, 2)
    model = dimerec.build(dimerec.DimeRecConfig(width=8, num_steps=3, negatives="full"), spec)
    ids = jnp.arange(rows, dtype=jnp.int32) + 1
    example = Sequences(jnp.stack([ids, ids], axis=1), ids, jnp.ones(rows), ids - 1)
    mesh = layout.make_mesh(jax.devices()[:4], model=4)
    params = jax.eval_shape(model.init, jax.random.key(0), example).params
    lies = layout.shardings(params, mesh)
    given = jax.tree.map(
        lambda leaf, lie: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lie), params, lies
    )

    def grads(params):
        return jax.grad(model.loss, has_aux=True)(params, (), jax.random.key(1), example)[0]

    with jax.set_mesh(mesh):
        text = jax.jit(grads, out_shardings=lies).lower(given).compile().as_text()
    assert sum(hlo.collectives(text).values()) < 4 * items * 8 / 10


def _gem(model, params, example, ids, log_q):
    """The interests' part of the loss in float64: each row's target against `ids` but itself."""
    interests = np.asarray(
        model.variants["interests_only"](params, (), SequenceQuery(example.seq, 0)), np.float64
    )
    items, each = np.asarray(params["items"], np.float64), []
    for row, target in zip(interests, example.target.tolist(), strict=True):
        best = row[np.argmax(row @ items[target])]
        classes = [target, *(item for item in ids if item != target)]
        logits = np.array([items[item] @ best - log_q[item] for item in classes])
        each.append(np.log(np.exp(logits).sum()) - logits[0])
    return each


@pytest.mark.parametrize(
    ("source", "power"),
    [("uniform", 1.0), ("log_uniform", 1.0), ("popularity", 0.5), ("in_batch", 1.0)],
)
def test_negatives_stand_in_the_example_with_their_log_q(source, power):
    model, example = _model(negatives=source, negatives_power=power), _example()
    example = example._replace(weight=example.weight.at[2].set(0.0))
    params, key = model.init(jax.random.key(0), example).params, jax.random.key(1)
    counts = np.array([5, 1, 9, 2, 2, 0, 1]) ** power
    law = {
        "uniform": np.ones(7),
        "log_uniform": np.log(np.array([3 / 2, 6 / 5, 2, 4 / 3, 5 / 4, 8 / 7, 7 / 6])),
    }
    prob = law.get(source, np.where(counts > 0, counts, 1.0))
    drawn = model.draw(key, example)
    if source == "in_batch":
        ids = [item for n, item in enumerate(example.target.tolist()) if n != 2]
    else:
        ids = drawn.negatives.ids.tolist()
    each = _gem(model, params, example, ids, np.log(np.append(1.0, prob)))
    value, aux = model.loss(params, (), key, drawn)
    np.testing.assert_allclose(aux.metrics["gem"], np.delete(each, 2).mean(), rtol=1e-5)
    assert model.loss(params, (), key, example)[0] == value  # which draws the same
    assert model.draw(jax.random.key(2), drawn) is drawn


def test_negatives_by_popularity_need_counts():
    config = dimerec.DimeRecConfig(negatives="popularity")
    with pytest.raises(ValueError, match="'popularity' need item counts"):
        dimerec.build(config, DataSpec(4, 7, 4))
