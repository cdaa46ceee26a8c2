"""Losses against plain loops; the chunked softmax against the dense one, gradients included."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout, losses
from jaxrec_diff.benchmarking import hlo


def inputs(rows=13, batch=5, width=3):
    keys = jax.random.split(jax.random.key(0), 4)
    points, table = (
        jax.random.normal(keys[0], (batch, width)),
        jax.random.normal(keys[1], (rows, width)),
    )
    return (
        points,
        table,
        jax.random.randint(keys[2], (batch,), 0, rows),
        jax.random.normal(keys[3], (rows,)),
    )


@pytest.mark.parametrize("chunk", [1, 4, 5, 12, 13, 100, None])
@pytest.mark.parametrize("biased", [True, False])
def test_full_softmax_is_a_plain_loop_in_any_chunks(chunk, biased):
    points, table, target, bias = inputs()
    expected = []
    for i in range(5):
        logits = [
            sum(float(points[i, d]) * float(table[j, d]) for d in range(3))
            + (float(bias[j]) if biased else 0.0)
            for j in range(13)
        ]
        expected.append(math.log(math.fsum(map(math.exp, logits))) - logits[int(target[i])])
    got = losses.full_softmax(points, table, target, bias if biased else None, chunk=chunk)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 4, 5])
def test_gradients_do_not_depend_on_the_chunks(chunk):
    points, table, target, bias = inputs()

    def dense(points, table, bias):
        logits = points @ table.T + bias
        return jnp.sum(jnp.arange(1.0, 6.0) * losses.cross_entropy(logits, target))

    def chunked(points, table, bias):
        each = losses.full_softmax(points, table, target, bias, chunk=chunk)
        return jnp.sum(jnp.arange(1.0, 6.0) * each)

    expected = jax.grad(dense, argnums=(0, 1, 2))(points, table, bias)
    got = jax.grad(chunked, argnums=(0, 1, 2))(points, table, bias)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_no_array_of_the_whole_catalogue_is_held():
    rows, batch, chunk = 20_000, 64, 500
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((batch, 8), (rows, 8))]
    target = jax.ShapeDtypeStruct((batch,), jnp.int32)

    def loss(points, table, target, chunk):
        return losses.full_softmax(points, table, target, chunk=chunk).sum()

    def temporary(chunk):
        grad = jax.jit(jax.grad(lambda p, t, y: loss(p, t, y, chunk), argnums=(0, 1)))
        return grad.lower(*shapes, target).compile().memory_analysis().temp_size_in_bytes

    # Beside a few chunks of logits there is the padded table and its gradient.
    assert temporary(rows) > 4 * batch * rows
    assert temporary(chunk) < 4 * (4 * batch * chunk + 3 * rows * 8)


def test_bce_is_the_cross_entropy_of_both_labels():
    p, n = np.array([0.5, -2.0]), np.array([1.5, 0.0])
    expected = [-math.log(1 / (1 + math.exp(-a))) - math.log(1 - 1 / (1 + math.exp(-b)))
                for a, b in zip(p, n, strict=True)]  # fmt: skip
    np.testing.assert_allclose(losses.bce(jnp.asarray(p), jnp.asarray(n)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.weighted_mean(jnp.arange(4.0), jnp.ones((4, 1))),
        lambda: losses.weighted_mean(jnp.arange(4), jnp.ones(4)),
        lambda: losses.bpr(jnp.ones(4), jnp.ones((4, 1))),
        lambda: losses.bce(jnp.ones(4), jnp.ones(1)),
        lambda: losses.mse(jnp.ones((4, 2)), jnp.ones(2)),
        lambda: losses.cross_entropy(jnp.ones((4, 2)), jnp.zeros((4, 1), int)),
        lambda: losses.full_softmax(jnp.ones((4, 2)), jnp.ones((5, 3)), jnp.zeros(4, int)),
        lambda: losses.full_softmax(
            jnp.ones((4, 2)), jnp.ones((5, 2)), jnp.zeros(4, int), jnp.ones(4)
        ),
        lambda: losses.sampled_softmax(jnp.ones(4), jnp.ones((3, 2))),
        lambda: losses.contrast(jnp.ones((4, 2)), jnp.ones(3)),
    ],
)
def test_shapes_that_would_broadcast_are_refused(call):
    with pytest.raises(AssertionError):
        call()


@pytest.mark.parametrize(("data", "model"), [(8, 1), (2, 4), (1, 8)])
@pytest.mark.parametrize("chunk", [None, 64])
def test_a_table_over_devices_has_the_softmax_of_one(data, model, chunk):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(16, 5)).astype(np.float32)
    table = rng.normal(size=(768, 5)).astype(np.float32)
    bias = rng.normal(size=768).astype(np.float32)
    target = rng.integers(1, 601, 16).astype(np.int32)
    logits = (points.astype(np.float64) @ table.T.astype(np.float64) + bias)[:, 1:601]
    wanted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(16), target - 1]
    share = np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    share[np.arange(16), target - 1] -= 1.0

    def total(points, table, bias):
        each = losses.full_softmax(points, table, target, bias, classes=(1, 601), chunk=chunk)
        return each.sum(), each

    mesh = layout.make_mesh(model=model)
    put = [
        jax.device_put(array, NamedSharding(mesh, P(axis)))
        for array, axis in ((points, "data"), (table, "model"), (bias, "model"))
    ]
    with jax.set_mesh(mesh):
        program = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True)).lower(*put).compile()
    (of_points, of_table, of_bias), each = program(*put)
    np.testing.assert_allclose(each, wanted, rtol=1e-5)
    np.testing.assert_allclose(of_points, share @ table[1:601], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_table[1:601], share.T @ points, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_bias[1:601], share.sum(axis=0), rtol=1e-4, atol=1e-5)
    for gradient in (of_table, of_bias):
        assert not np.any(gradient[601:]) and not np.any(gradient[0])
    if model > 1:  # rows that are picked move, a table does not
        moved = re.findall(r"all-gather.*", program.as_text())
        sizes = [np.prod([int(n) for n in d.split(",")]) for line in moved for d in
                 re.findall(r"f32\[([\d,]+)\]", line)]  # fmt: skip
        assert max(sizes, default=0) < table.size
    if data == 1:  # rows that are picked, gradients of points and a few numbers a row, in no loop
        sent = sum(hlo.collectives(program.as_text()).values())
        assert sent <= 4 * (2 * points.size + 5 * len(points))


def test_the_multinomial_of_sparse_rows_is_that_of_dense_ones():
    random = np.random.default_rng(0)
    points, table, bias = (random.normal(size=shape) for shape in ((3, 4), (9, 4), (9,)))
    items = jnp.array([[2, 7, 1], [5, 0, 0], [0, 0, 0]])
    value = jnp.array([[1.0, 0.5, 2.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    dense = np.zeros((3, 7))
    dense[0, [1, 6, 0]], dense[1, 4] = [1.0, 0.5, 2.0], 1.0
    logits = points @ table[:7].T + bias[:7]  # rows behind are no items
    want = -(dense * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1)
    given = [jnp.asarray(part, jnp.float32) for part in (points, table, bias)]
    found = losses.multinomial(*given, items, value, num_items=7)
    np.testing.assert_allclose(found, want, rtol=2e-6, atol=1e-6)


def test_the_divergence_of_a_normal_is_its_integral():
    mean, log_variance = jnp.array([[0.5, -1.0]]), jnp.array([[0.2, -0.4]])
    np.testing.assert_allclose(losses.normal_kl(mean, log_variance), 0.670861402098, rtol=1e-6)
    grid = np.linspace(-12, 12, 200_001)
    deviation = np.exp(0.1)
    p = np.exp(-0.5 * ((grid - 0.5) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    q = np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi)
    integral = np.sum(p * np.log(np.maximum(p, 1e-300) / q)) * (grid[1] - grid[0])
    one = losses.normal_kl(mean[:, :1], log_variance[:, :1])
    np.testing.assert_allclose(one, integral, rtol=1e-5)


@pytest.mark.parametrize(
    ("calibration", "want"), [(0.0, 0.530571565329), (0.75, 0.466067360831), (1.0, 0.444565959332)]
)
def test_gbce_is_calibrated(calibration, want):
    logits = jnp.array([1.2]), jnp.array([[0.3, -0.5]])
    found = losses.gbce(*logits, num_items=101, calibration=calibration)
    np.testing.assert_allclose(found, [want], rtol=1e-6)
    np.testing.assert_allclose(losses.sampled_softmax(*logits), [0.463264210163], rtol=1e-6)
    corrected = logits[1] + np.log(100 / 2)  # of a uniform proposal
    np.testing.assert_allclose(
        losses.sampled_softmax(logits[0], corrected), [3.4165016447], rtol=1e-6
    )


def test_gbce_of_one_negative_without_calibration_is_the_mean_of_both_terms():
    positive, negative = jnp.array([1.2, -0.4]), jnp.array([0.3, 2.0])
    found = losses.gbce(positive, negative[:, None], num_items=50, calibration=0.0)
    np.testing.assert_allclose(found, losses.bce(positive, negative) / 2, rtol=1e-6)


@pytest.mark.parametrize(("num_items", "beta"), [(3416, 0.306222547584), (12101, 0.265867768595)])
def test_the_positive_weighs_as_published(num_items, beta):
    # all negatives left out, beta alone stands before softplus(-p)
    found = losses.gbce(
        jnp.zeros(1), jnp.full((1, 256), -1e9), num_items=num_items, calibration=0.75
    )
    np.testing.assert_allclose(found * 257 / np.log(2.0), [beta], rtol=1e-6)
