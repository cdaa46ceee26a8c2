import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtri

from jaxrec_diff.diffusion import forward, process, samplers, schedules
from jaxrec_diff.ops import normals, threefry

KEY = jax.random.key(7)


def test_normals_are_the_inverse_distribution_function():
    edge = np.arange(3000)
    inner = np.random.default_rng(0).integers(0, 2**23, 300_000)
    cells = np.concatenate([inner, edge, 2**23 - 1 - edge, 2**22 - 1500 + edge])
    words = (cells << 9 | 0x155).astype(np.uint32)  # the nine low bits do not matter
    got = np.asarray(normals.from_uniform(normals.uniform(jnp.asarray(words))), np.float64)
    want = ndtri((cells + 0.5) / 2**23)
    assert np.abs(got / want - 1).max() < 1e-6
    assert got.max() == -got.min() < 5.3


def test_a_path_is_standard_and_uncorrelated():
    path = jax.jit(normals.whole(KEY, (200, 500)))
    z = np.stack([path(jnp.int32(i)) for i in range(6)]).astype(np.float64)
    count = z.size
    assert abs(z.mean()) < 5 / np.sqrt(count)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / count)
    rows = z.reshape(6, -1)
    others = np.corrcoef(rows)[~np.eye(6, dtype=bool)]
    assert np.abs(others).max() < 5 / np.sqrt(rows.shape[1])
    assert abs((z[..., 1:] * z[..., :-1]).mean()) < 5 / np.sqrt(count)
    assert len(np.unique(rows[0])) > 99_000  # no value comes back but by chance


@pytest.mark.parametrize("num_rows", [1, 2, 7])
@pytest.mark.parametrize("kind", ["whole", "by_row"])
def test_a_scan_draws_what_calls_draw(kind, num_rows):
    draw = {
        "whole": normals.whole(KEY, (4, 3)),
        "by_row": normals.by_row(KEY, jnp.array([5, 0, 2, 9]), (3,)),
    }[kind]
    steps = samplers.ddpm_steps(forward.levels(schedules.linear(num_rows)))
    start = jnp.ones((4, 3))

    def walk(draw):
        chain = process.Chain(steps, lambda xt, t: 0.3 * xt, start, draw)
        return jax.jit(lambda: process.trajectory(chain))()

    np.testing.assert_allclose(walk(draw), walk(lambda i: draw(i)), rtol=1e-5, atol=1e-6)


def test_words_are_those_of_jax_under_folded_keys():
    """A pair of rows has a key, a row of the batch another; its blocks hold both rows' words."""
    rows = jnp.array([5, 0, 2**31 - 1])
    for i in (0, 1, 6, 7):
        for_pair = jax.random.fold_in(KEY, i // 2)
        for draw, keys, shape in (
            (normals.whole(KEY, (4, 3)), [for_pair], (4, 3)),
            (
                normals.by_row(KEY, rows, (3,)),
                [jax.random.fold_in(for_pair, r) for r in rows],
                (3,),
            ),
        ):
            count = jnp.arange(np.prod(shape), dtype=jnp.uint32)
            words = [
                threefry.block(tuple(jax.random.key_data(key)), (count * 0, count))[i % 2]
                for key in keys
            ]
            wanted = normals.uniform(jnp.stack(words)).reshape(draw.uniforms(jnp.int32(i)).shape)
            np.testing.assert_array_equal(draw.uniforms(jnp.int32(i)), wanted)
            np.testing.assert_array_equal(draw(jnp.int32(i)), normals.from_uniform(wanted))


def test_a_row_draws_the_same_in_any_batch():
    rows = jnp.array([3, 8, 5])
    some = normals.by_row(KEY, rows, (4,))(jnp.int32(3))
    alone = normals.by_row(KEY, rows[1:2], (4,))(jnp.int32(3))
    np.testing.assert_array_equal(some[1:2], alone)
    assert (np.asarray(some[0]) != np.asarray(some[1])).all()


def test_other_generators_draw_as_jax_does():
    key, rows = jax.random.key(3, impl="rbg"), jnp.array([0, 1])
    got = normals.whole(key, (2, 3))(jnp.int32(2))
    np.testing.assert_array_equal(got, jax.random.normal(jax.random.fold_in(key, 2), (2, 3)))
    assert normals.by_row(key, rows, (3,))(jnp.int32(2)).shape == (2, 3)
    raw = normals.whole(jax.random.PRNGKey(7), (2, 3))(jnp.int32(2))
    np.testing.assert_array_equal(raw, normals.whole(KEY, (2, 3))(jnp.int32(2)))
