"""k-means against a plain loop and against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import kmeans


def plain_lloyd(points, centres, tolerance=1e-4):
    """Float64 loops; good for runs in which no cluster loses all its points."""
    points, centres = np.float64(points), np.float64(centres)
    while True:
        cluster = np.array([np.argmin([np.sum((x - c) ** 2) for c in centres]) for x in points])
        moved = np.array([points[cluster == c].mean(axis=0) for c in range(len(centres))])
        step = sum(np.linalg.norm(a - b) for a, b in zip(moved, centres, strict=True)) ** 2
        centres = moved
        if step < tolerance:
            last = [np.argmin([np.sum((x - c) ** 2) for c in centres]) for x in points]
            return np.array(last), centres


def blobs(seed, clusters=4, each=30, width=5):
    rng = np.random.default_rng(seed)
    centres = 1.5 * rng.normal(size=(clusters, width))
    return (centres[:, None] + rng.normal(size=(clusters, each, width))).reshape(-1, width)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_plain_lloyd_from_the_same_start(seed):
    points = jnp.asarray(blobs(seed), jnp.float32)
    key = jax.random.key(seed)
    found = kmeans.kmeans(points, 4, key)
    first = jax.random.choice(jax.random.split(key)[0], len(points), (4,), replace=False)
    cluster, centres = plain_lloyd(points, points[first])
    np.testing.assert_array_equal(found.cluster, cluster)
    np.testing.assert_allclose(found.centres, centres, rtol=1e-4, atol=1e-5)
    want = np.mean(np.sum((np.asarray(points) - centres[cluster]) ** 2, axis=1))
    np.testing.assert_allclose(found.distance, want, rtol=1e-4)


def test_every_cluster_keeps_a_point():
    # Most of these are copies of one point, so most centres start on it and lose it to the first.
    points = jnp.asarray(np.r_[np.zeros((50, 2)), np.arange(12).reshape(6, 2)], jnp.float32)
    for seed in range(20):
        found = kmeans.kmeans(points, 6, jax.random.key(seed))
        assert set(np.asarray(found.cluster)) == set(range(6)), seed


def test_as_many_clusters_as_points():
    points = jnp.arange(5.0)[:, None]
    found = kmeans.kmeans(points, 5, jax.random.key(0))
    assert sorted(np.asarray(found.cluster)) == list(range(5))
    assert found.distance == 0.0


@pytest.mark.parametrize("clusters", [0, 6])
def test_impossible_numbers_of_clusters_are_refused(clusters):
    with pytest.raises(ValueError, match=f"cannot make {clusters} clusters of 5 points"):
        kmeans.kmeans(jnp.zeros((5, 2)), clusters, jax.random.key(0))


def test_a_cluster_that_loses_its_points_starts_again():
    # Where both centres start on copies of one point the second loses them all, and a restart
    # anywhere then parts the two groups, which lie far from zero.
    spread = np.random.default_rng(0).normal(size=(10, 2))
    points = jnp.asarray(np.r_[np.full((10, 2), 1000.0), 1100.0 + spread], jnp.float32)
    for seed in range(12):
        assert kmeans.kmeans(points, 2, jax.random.key(seed)).distance < 5.0, seed


def test_equals_a_plain_loop_that_restarts_empty_clusters():
    # Every point is there three times, so that centres start on one another.
    values = np.random.default_rng(0).integers(0, 50, (6, 2))  # whose means of copies are exact
    points = jnp.asarray(np.repeat(values, 3, axis=0), jnp.float32)
    restarts = 0
    for seed in range(8):
        key = jax.random.key(seed)
        k_first, k_again = jax.random.split(key)
        centres = np.float64(points[jax.random.choice(k_first, 18, (5,), replace=False)])
        turn, step = 0, np.inf
        while step >= 1e-4:
            k_turn = jax.random.fold_in(k_again, turn)
            again = np.float64(points[jax.random.randint(k_turn, (5,), 0, 18)])
            far = ((np.float64(points)[:, None] - centres) ** 2).sum(axis=-1)
            cluster = far.argmin(axis=1)
            empty = np.bincount(cluster, minlength=5) == 0
            restarts += empty.sum()
            moved = np.stack(
                [again[c] if empty[c] else points[cluster == c].mean(axis=0) for c in range(5)]
            )
            turn, step = turn + 1, np.linalg.norm(moved - centres, axis=1).sum() ** 2
            centres = moved
        found = kmeans.kmeans(points, 5, key)
        np.testing.assert_allclose(found.centres, centres, rtol=1e-5, atol=1e-6)
    assert restarts > 3
