"""Operations and bytes against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxrec_diff import layout
from jaxrec_diff.benchmarking import arithmetic

N, M, K = 3, 5, 7


def work(fn, *args, **kwargs):
    return arithmetic.of(jax.make_jaxpr(fn)(*args), **kwargs)


X, W = jnp.ones((N, M)), jnp.ones((M, M))
PRODUCT = 2 * N * M * M


def chain(x, times):
    return lax.scan(lambda x, _: (x @ W, None), x, None, length=times)[0]


def nested(x):
    return lax.scan(lambda x, _: (chain(x, 4), None), x, None, length=6)[0]


def looped(x):
    return lax.fori_loop(0, 9, lambda i, x: x @ W, x)


def until(x):
    return lax.while_loop(lambda x: x[0, 0] < 9.0, lambda x: x @ W, x)


@pytest.mark.parametrize(
    ("fn", "times"),
    [
        (lambda x: x @ W, 1),
        (lambda x: chain(x, 500), 500),
        (nested, 24),
        (looped, 9),
        (jax.jit(lambda x: chain(x, 3) @ W), 4),
        (jax.checkpoint(lambda x: x @ W), 1),
        (lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ W @ W, lambda x: x @ W, x), 1.5),
    ],
)
def test_products_count_as_often_as_they_run(fn, times):
    assert work(fn, X).products == times * PRODUCT


def test_a_loop_without_a_known_end_counts_what_it_is_given():
    one, ten = work(until, X), work(until, X, unknown=10)
    assert (one.products, ten.products) == (PRODUCT, 10 * PRODUCT)
    assert (one.unknown_loops, work(looped, X).unknown_loops) == (1, 0)


def test_a_gradient_costs_two_more_products():
    loss = lambda x, w: (x @ w).sum()
    both = work(jax.grad(loss, argnums=(0, 1)), X, W)
    assert both.products == 2 * PRODUCT  # the forward product itself is not needed
    squared = work(jax.grad(lambda x, w: ((x @ w) ** 2).sum(), argnums=(0, 1)), X, W)
    assert squared.products == 3 * PRODUCT


def test_batched_products_and_convolutions():
    batched = work(jnp.matmul, jnp.ones((4, N, M)), jnp.ones((4, M, K)))
    assert batched.products == 4 * 2 * N * M * K
    picture, kernel = jnp.ones((2, 3, 10, 10)), jnp.ones((8, 3, 5, 5))
    found = work(lambda p, k: lax.conv(p, k, (1, 1), "VALID"), picture, kernel)
    assert found.products == 2 * (2 * 8 * 6 * 6) * (3 * 5 * 5)


def test_floats_count_and_integers_do_not():
    assert work(lambda x: jnp.tanh(x * 2.0) + 1.0, X).elementwise == 3 * N * M
    assert work(lambda x: x.sum(axis=1), X).elementwise == N * M
    assert work(lambda x: x + 1, jnp.ones((N, M), jnp.int32)).elementwise == 0
    added = work(lambda x, i: x.at[i].add(jnp.ones((2, M))), X, jnp.array([0, 1]))
    assert added.elementwise == 2 * M


def test_unfused_traffic_is_what_each_operation_reads_and_writes():
    size = 4 * N * M
    assert work(lambda x: jnp.sin(jnp.cos(x)), X).traffic == 4 * size
    many = lambda x: lax.scan(lambda x, _: (jnp.sin(x), None), x, None, length=11)[0]
    assert work(many, X).traffic == 11 * 2 * size


def test_of_branches_that_are_platforms_own_one_counts():
    def own(x):
        return lax.platform_dependent(x, cpu=lambda x: x @ W, default=lambda x: x @ W @ W)

    found = {name: work(own, X, platform=name).products for name in ("cpu", "tpu", "cuda")}
    assert found == {"cpu": PRODUCT, "tpu": 2 * PRODUCT, "cuda": 2 * PRODUCT}
    assert work(own, X).products == found["cpu"]


def test_a_program_for_each_device_counts_for_all():
    mesh = layout.make_mesh(jax.devices()[:4])
    spec = jax.sharding.PartitionSpec("data")
    split = jax.shard_map(lambda x: x @ W, mesh=mesh, in_specs=spec, out_specs=spec)
    assert work(split, jnp.ones((8, M))).products == 2 * 8 * M * M
