"""Mult-VAE against dense float64 formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.models import multvae
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.multvae import MultVAEConfig
from jaxrec_diff.ops import rng

ITEMS, ROWS, HIDDEN, WIDTH = 7, 4, 5, 3
ROW_ITEMS = jnp.array([[1, 3, 7], [2, 0, 0], [5, 6, 0], [0, 0, 0]])
VALUE = jnp.array([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
X = np.zeros((ROWS, ITEMS))
for _row, (_items, _values) in enumerate(
    zip(np.asarray(ROW_ITEMS), np.asarray(VALUE), strict=True)
):
    X[_row, _items[_items > 0] - 1] = _values[_items > 0]
EXAMPLE = Interactions(
    ROW_ITEMS, VALUE, jnp.arange(ROWS), jnp.array([1.0, 1.0, 1.0, 0.0]), jnp.arange(ROWS)
)


def made(**settings):
    settings = {
        "hidden": HIDDEN,
        "width": WIDTH,
        "dropout_rate": 0.0,
        "anneal_steps": 10,
    } | settings
    parts = multvae.parts(MultVAEConfig(**settings), DataSpec(ROWS, ITEMS, max_len=3))
    params, state = multvae.init(parts, jax.random.key(0), EXAMPLE)
    return parts, params, state


def dense(params, x, noise=0.0, *, dae=False):
    """Mean, log variance and logits in float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    hidden = np.tanh(unit @ p["table_in"][:ITEMS] + p["bias_in"])
    found = hidden @ p["moments"]["kernel"] + p["moments"]["bias"]
    if dae:
        mean, log_variance = np.tanh(found), np.zeros_like(found)
        code = mean
    else:
        mean, log_variance = found[:, :WIDTH], found[:, WIDTH:]
        code = mean + noise * np.exp(log_variance / 2)
    out = np.tanh(code @ p["outward"]["kernel"] + p["outward"]["bias"])
    return mean, log_variance, out @ p["table_out"][:ITEMS].T + p["bias_out"][:ITEMS]


def likelihood(logits):
    normaliser = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -(X * (logits - normaliser)).sum(axis=1)


@pytest.mark.parametrize("updates", [0, 4, 10, 25])
def test_the_loss_is_the_evidence_bound(updates):
    parts, params, _ = made(kl_weight=0.3)
    key = jax.random.key(3)
    value, aux = multvae.loss(parts, params, jnp.int32(updates), key, EXAMPLE)
    noise = np.asarray(rng.normal(jax.random.split(key)[1], EXAMPLE.row_id, (WIDTH,)), np.float64)
    mean, log_variance, logits = dense(params, X, noise)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
    each = likelihood(logits) + 0.3 * min(updates / 10, 1.0) * kl
    np.testing.assert_allclose(value, each[:3].mean(), rtol=2e-6)
    np.testing.assert_allclose(aux.metrics["kl"], kl[:3].mean(), rtol=2e-5)
    np.testing.assert_allclose(aux.metrics["multinomial"], likelihood(logits)[:3].mean(), rtol=2e-6)
    assert int(aux.state) == updates + 1


def test_a_code_without_a_law_has_no_penalty():
    parts, params, state = made(code="dae", kl_weight=100.0)
    value, _ = multvae.loss(parts, params, state + 99, jax.random.key(3), EXAMPLE)
    np.testing.assert_allclose(
        value, likelihood(dense(params, X, dae=True)[2])[:3].mean(), rtol=2e-6
    )


def test_points_score_as_the_mean_code_does():
    parts, params, state = made(dropout_rate=0.5)
    query = InteractionQuery(ROW_ITEMS, VALUE, jnp.arange(ROWS), jnp.arange(ROWS))
    points = multvae.sample(parts, params, state, jax.random.key(1), query)
    head = multvae.head(parts, params, state)
    assert head.items == ITEMS and head.first == 0
    np.testing.assert_allclose(
        (points @ head.table.T + head.bias)[:, :ITEMS], dense(params, X)[2], rtol=1e-5, atol=1e-6
    )


def test_dropout_takes_entries_of_rows_of_length_one():
    parts, params, state = made(dropout_rate=0.5)
    values = {
        float(multvae.loss(parts, params, state, jax.random.key(n), EXAMPLE)[0]) for n in range(4)
    }
    whole = multvae.loss(*made(), jax.random.key(0), EXAMPLE)[0]
    assert len(values) == 4 and float(whole) not in values


def test_rows_that_fill_a_table_get_no_gradient():
    parts, params, state = made()
    grads = jax.grad(lambda p: multvae.loss(parts, p, state, jax.random.key(0), EXAMPLE)[0])(params)
    for name in ("table_in", "table_out", "bias_out"):
        assert not np.asarray(grads[name])[ITEMS:].any()
        assert np.asarray(grads[name])[:ITEMS].any()
