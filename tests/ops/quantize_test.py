"""Codes, code means and the contrast against values worked by hand (DiQDiff)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import losses
from jaxrec_diff.ops import quantize
from jaxrec_diff.ops import rng as ops_rng

HISTORIES = jnp.array([[[1.0, 2.0]], [[3.0, 5.0]], [[5.0, 10.0]]])
LABELS = jnp.array([0, 1, 0])


def test_code_means_by_hand():
    found = quantize.code_means(HISTORIES, LABELS, jnp.ones(3), 3)
    np.testing.assert_array_equal(found.means[:, 0], [[3, 6], [3, 5], [0, 0]])
    np.testing.assert_array_equal(found.counts, [2, 1, 0])
    np.testing.assert_array_equal(found.means[LABELS][:, 0], [[3, 6], [3, 5], [3, 6]])
    single = quantize.code_means(HISTORIES, jnp.zeros(3, jnp.int32), jnp.ones(3), 1)
    np.testing.assert_allclose(single.means[0, 0], [3, 17 / 3], rtol=1e-6)


def test_padding_rows_enter_no_mean():
    found = quantize.code_means(HISTORIES, LABELS, jnp.array([1.0, 1.0, 0.0]), 3)
    np.testing.assert_array_equal(found.means[0, 0], [1, 2])
    np.testing.assert_array_equal(found.counts, [1, 1, 0])


def test_gradient_of_a_mean_is_shared_by_its_members():
    def first(histories):
        return quantize.code_means(histories, LABELS, jnp.ones(3), 3).means[LABELS][0].sum()

    grad = jax.grad(first)(HISTORIES)
    np.testing.assert_allclose(grad[:, 0], [[0.5, 0.5], [0, 0], [0.5, 0.5]])


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_gumbel_argmax_draws_from_the_softmax(temperature):
    rows = jnp.arange(60_000)
    logits = jnp.broadcast_to(jnp.log(jnp.array([1.0, 2.0, 3.0])), (len(rows), 3))
    drawn = ops_rng.gumbel(jax.random.key(3), rows, (3,))
    hot = quantize.straight_through(logits, drawn, temperature=temperature)
    # 4 standard errors of a share of 1/2
    np.testing.assert_allclose(hot.mean(axis=0), [1 / 6, 1 / 3, 1 / 2], atol=4 * 0.5 / 245)
    share = np.bincount(quantize.assign(logits, drawn), minlength=3) / len(rows)
    np.testing.assert_allclose(share, hot.mean(axis=0), atol=1e-5)


def test_straight_through_is_hard_and_has_the_soft_gradient():
    logits, drawn = jnp.array([[0.3, -0.2, 0.1]]), jnp.array([[0.0, 0.4, 0.1]])
    codebook = jnp.array([1.0, 3.0, -2.0])
    hard = quantize.straight_through(logits, drawn, temperature=0.5)
    np.testing.assert_allclose(hard, [[1, 0, 0]], atol=1e-6)
    grad = jax.grad(
        lambda o: (quantize.straight_through(o, drawn, temperature=0.5) @ codebook).sum()
    )(logits)
    p = np.exp((np.array(logits) + np.array(drawn))[0] / 0.5)
    p /= p.sum()
    want = p * (np.array(codebook) - p @ np.array(codebook)) / 0.5  # softmax's derivative
    np.testing.assert_allclose(grad[0], want, rtol=1e-5)


def test_update_keeps_codes_that_nobody_picked():
    before = jnp.full((3, 1, 2), 9.0)
    found = quantize.code_means(HISTORIES, LABELS, jnp.ones(3), 3)
    np.testing.assert_array_equal(quantize.update(before, found)[:, 0], [[3, 6], [3, 5], [9, 9]])
    slow = quantize.update(before, found, decay=0.75)
    np.testing.assert_allclose(slow[:, 0], [[7.5, 8.25], [7.5, 8], [9, 9]])
    grad = jax.grad(
        lambda x: quantize.update(before, quantize.code_means(x, LABELS, jnp.ones(3), 3)).sum()
    )(HISTORIES)
    assert not np.any(grad)


def test_contrast_by_hand():
    points = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    each = losses.contrast(points, jnp.ones(3))
    np.testing.assert_allclose(each, [0.01512029, 0.01512029, 0.03001415], rtol=2e-6)
    np.testing.assert_allclose(each.mean(), 0.02008491, rtol=2e-6)
    same = losses.contrast(jnp.ones((4, 3)), jnp.ones(4))
    np.testing.assert_allclose(same, np.full(4, np.log(4)), rtol=1e-6)
    orthogonal = losses.contrast(jnp.eye(1024), jnp.ones(1024))
    np.testing.assert_allclose(orthogonal, np.full(1024, 6.390428e-04), rtol=1e-5)
    gaussian = losses.contrast(jax.random.normal(jax.random.key(0), (1024, 128)), jnp.ones(1024))
    np.testing.assert_allclose(gaussian.mean(), 1.4e-3, rtol=0.05)


def test_contrast_sees_directions_of_real_rows_only():
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.normal(size=(6, 4)))
    scale = jnp.asarray(rng.uniform(0.1, 10, (6, 1)))
    each = losses.contrast(points, jnp.ones(6), temperature=0.5)
    np.testing.assert_allclose(
        losses.contrast(points * scale, jnp.ones(6), temperature=0.5), each, rtol=1e-5
    )
    weight = jnp.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(
        losses.contrast(points, weight, temperature=0.5)[:4],
        losses.contrast(points[:4], jnp.ones(4), temperature=0.5),
        rtol=1e-5,
    )


def test_contrast_is_the_released_cross_entropy():
    # -log [exp(cos_ii / tau) / sum_j exp(cos_ij / tau)] in float64, a plain double loop
    points = np.random.default_rng(1).normal(size=(7, 5))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    want = []
    for i in range(7):
        terms = [np.exp(unit[i] @ unit[j] / 0.07) for j in range(7)]
        want.append(-np.log(terms[i] / sum(terms)))
    np.testing.assert_allclose(losses.contrast(jnp.asarray(points), jnp.ones(7)), want, rtol=1e-4)


def test_contrast_over_devices_is_that_of_the_global_batch():
    points = jax.random.normal(jax.random.key(2), (8, 2, 4))
    weight = jnp.ones((8, 2)).at[3, 1].set(0.0)
    mapped = jax.pmap(lambda p, w: losses.contrast(p, w, axis_name="data"), axis_name="data")
    want = losses.contrast(points.reshape(16, 4), weight.reshape(16))
    np.testing.assert_allclose(mapped(points, weight).reshape(16), want, rtol=1e-5)
