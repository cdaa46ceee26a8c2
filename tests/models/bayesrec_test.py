"""BayesRec against Bayes' rule in float64, and the identities that make its chain what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.models import bayesrec
from jaxrec_diff.models.bayesrec import BayesRecConfig
from jaxrec_diff.models.contract import DataSpec

D, ITEMS, LENGTH, T = 4, 6, 3, 8
SPEC = DataSpec(num_users=0, num_items=ITEMS, max_len=LENGTH)
SEQ = jnp.array([[1, 4, 2], [3, 5, 0], [6, 0, 0]])
EXAMPLE = Sequences(SEQ, jnp.array([3, 4, 1]), weight=jnp.ones(3), row_id=jnp.arange(3))
QUERY = SequenceQuery(SEQ, jnp.arange(3))
KEY = jax.random.key(2)


def made(**fields):
    config = BayesRecConfig(width=D, num_steps=T, dropout_rate=0.0, init_scale=1.0, **fields)
    parts = bayesrec.parts(config, SPEC)
    return parts, *bayesrec.init(parts, jax.random.key(1), EXAMPLE)


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def encoded(parts, params):
    """The encoder's output at the last item of every history."""
    whole = parts.net.apply({"params": params}, SEQ)
    return np.asarray(whole, np.float64)[np.arange(3), [2, 1, 0]]


@pytest.mark.parametrize("t", [0, 3, T - 1])
def test_a_point_says_what_bayes_rule_does(t):
    parts, params, _ = made(sharpness=1.5)
    rows, h = unit(params["items"][1 : ITEMS + 1]), encoded(parts, params)
    time = (t + 1) / T
    xt = (1 - time) * rows[[2, 3, 0]] + time * np.random.default_rng(0).normal(size=(3, D))
    prior = 1.5 * h @ rows.T
    density = -((xt[:, None] - (1 - time) * rows) ** 2).sum(-1) / (2 * time**2)
    expected = np.exp(prior + density)
    expected /= expected.sum(axis=1, keepdims=True)
    point = bayesrec.point(
        parts, params, jnp.asarray(h, jnp.float32), jnp.asarray(xt, jnp.float32), t
    )
    got = jax.nn.softmax(point @ rows.astype(np.float32).T)
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=1e-6)


def test_at_the_noisiest_level_the_loss_is_that_of_sasrec_with_unit_rows():
    parts, params, state = made(noise_share=1.0)
    value, _ = bayesrec.loss(parts, params, state, KEY, EXAMPLE)
    rows = unit(params["items"][1 : ITEMS + 1])
    logits = 2.0 * np.asarray(parts.net.apply({"params": params}, SEQ), np.float64) @ rows.T
    following = {(0, 0): 4, (0, 1): 2, (0, 2): 3, (1, 0): 5, (1, 1): 4, (2, 0): 1}
    each = [
        np.log(np.exp(logits[at]).sum()) - logits[at][item - 1] for at, item in following.items()
    ]
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-5)


def test_lengths_of_rows_say_nothing():
    parts, params, state = made()
    longer = params | {"items": params["items"] * 3.0}
    for of in (
        lambda p: bayesrec.loss(parts, p, state, KEY, EXAMPLE)[0],
        lambda p: bayesrec.sample(parts, p, state, KEY, QUERY),
        lambda p: bayesrec.head(parts, p, state).table,
    ):
        np.testing.assert_allclose(of(longer), of(params), rtol=1e-5, atol=1e-6)


def test_a_level_that_shows_the_answer_is_easier():
    values = [
        float(bayesrec.loss(parts, params, state, KEY, EXAMPLE)[0])
        for parts, params, state in (made(noise_share=share) for share in (0.0, 1.0))
    ]
    assert values[0] < values[1]


def test_from_the_mean_the_chain_goes_where_one_call_does():
    parts, params, state = made(sampler=SamplerConfig(kind="ddim"))
    path = process.trajectory(bayesrec.chain(parts, params, state, KEY, QUERY))
    np.testing.assert_allclose(path[-1], unit(encoded(parts, params)), rtol=1e-4, atol=1e-5)


def test_shown_the_answer_the_chain_ends_in_it():
    parts, params, state = made(start="noise", sampler=SamplerConfig(kind="ddim"))
    walk, answers = bayesrec.chain(parts, params, state, KEY, QUERY), EXAMPLE.target[:, None]

    def shown(xt, t):
        return walk.denoise(bayesrec.noised(parts, params, state, KEY, QUERY, answers, t), t)

    end = process.run(walk._replace(denoise=shown))
    scores = end @ bayesrec.head(parts, params, state).table[1 : ITEMS + 1].T
    assert (scores.argmax(axis=1) + 1).tolist() == EXAMPLE.target.tolist()


def test_the_law_of_the_chain_is_the_softmax_of_one_call():
    """A perfect reverse process adds nothing to p(i | h): it draws from it."""
    config = BayesRecConfig(
        width=D, num_steps=96, dropout_rate=0.0, init_scale=1.0, sharpness=0.7, estimate="mean",
        start="noise", num_draws=4000, sampler=SamplerConfig(kind="ddpm"),
    )  # fmt: skip
    parts = bayesrec.parts(config, SPEC)
    params, state = bayesrec.init(parts, jax.random.key(1), EXAMPLE)
    ends = jax.jit(lambda: bayesrec.sample(parts, params, state, KEY, QUERY))()
    rows = unit(params["items"][1 : ITEMS + 1])
    found = (np.asarray(ends) @ rows.T).argmax(axis=-1)
    shares = np.stack([np.bincount(row, minlength=ITEMS) for row in found]) / 4000
    logits = 0.7 * encoded(parts, params) @ rows.T
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(shares - expected).sum(axis=1).max() / 2 < 0.06


def test_guidance_moves_the_history_and_not_what_x_t_says():
    parts, params, state = made(drop_rate=0.1, guidance_weight=0.5)
    points = bayesrec.sample(parts, params, state, KEY, QUERY)
    expected = 1.5 * encoded(parts, params) - 0.5 * np.asarray(params["null"], np.float64)
    np.testing.assert_allclose(points, unit(expected), rtol=1e-4, atol=1e-5)


def test_guidance_needs_training_without_histories():
    with pytest.raises(ValueError, match=r"needs a model.drop-rate above 0 .* nearest is 0.1"):
        BayesRecConfig(guidance_weight=1.0)


@pytest.mark.parametrize("draws", [1, 2])
def test_a_program_takes_any_number_of_queries(draws):
    parts, params, state = made(num_draws=draws, sampler=SamplerConfig(kind="ddim"))
    (b,) = jax.export.symbolic_shape("b")
    query = SequenceQuery(*(jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype) for x in QUERY))
    exported = jax.export.export(jax.jit(lambda q: bayesrec.sample(parts, params, state, KEY, q)))
    assert exported(query).out_avals[0].shape[0] == b
