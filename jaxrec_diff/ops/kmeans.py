"""Lloyd's k-means with Euclidean distance.

>>> import jax, jax.numpy as jnp
>>> points = jnp.array([[0.0], [0.2], [5.0], [5.2]])
>>> found = kmeans(points, 2, jax.random.key(0))
>>> (found.cluster == found.cluster[0]).tolist()
[True, True, False, False]
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Clusters(NamedTuple):
    """A partition of N points into C clusters."""

    cluster: jax.Array  # i32[N]
    centres: jax.Array  # float[C, D]
    distance: jax.Array  # float[], mean squared distance of a point from its centre


def kmeans(
    points: jax.Array,
    num_clusters: int,
    key: jax.Array,
    *,
    tolerance: float = 1e-4,
    max_turns: int = 300,
) -> Clusters:
    """Starts from C distinct random points and moves centres until they rest.

    Stops when (sum_c |centre_c' - centre_c|)^2 < `tolerance`. A cluster that loses all its points
    starts again from a random one. Any result has C clusters that are not empty: should the last
    turn leave one empty, it takes the point that is farthest from its centre.

    Args:
      points: float[N, D].
      num_clusters: C, at most N.
      key: of the first centres and the restarts.
      tolerance: see above.
      max_turns: upper limit of turns.

    Raises:
      ValueError: if C is not in [1, N].
    """
    chex.assert_rank(points, 2)
    chex.assert_type(points, float)
    if not 1 <= num_clusters <= points.shape[0]:
        near = min(max(num_clusters, 1), points.shape[0])
        raise ValueError(
            f"cannot make {num_clusters} clusters of {points.shape[0]} points; the nearest is "
            f"{near}"
        )
    k_first, k_again = jax.random.split(key)
    first = jax.random.choice(k_first, points.shape[0], (num_clusters,), replace=False)

    def turn(state):
        i, centres, _ = state
        moved, size = means(points, assign(points, centres), num_clusters)
        again = jax.random.randint(
            jax.random.fold_in(k_again, i), (num_clusters,), 0, points.shape[0], jnp.int32
        )
        moved = jnp.where(size[:, None] > 0, moved, points[again])
        step = jnp.sum(jnp.linalg.norm(moved - centres, axis=-1)) ** 2
        return i + 1, moved, step

    _, centres, _ = jax.lax.while_loop(
        lambda state: (state[2] >= tolerance) & (state[0] < max_turns),
        turn,
        (0, points[first], jnp.asarray(jnp.inf, points.dtype)),
    )
    cluster = _fill(points, centres, assign(points, centres))
    return Clusters(cluster, centres, jnp.mean(jnp.sum((points - centres[cluster]) ** 2, axis=-1)))


def assign(points: jax.Array, centres: jax.Array) -> jax.Array:
    """i32[N]: the nearest centre of each point, f32[N, D] and f32[C, D]; ties to the lowest."""
    chex.assert_rank([points, centres], 2)
    chex.assert_equal_shape_suffix([points, centres], 1)
    chex.assert_type([points, centres], float)
    return jnp.argmin(_distances(points, centres), axis=-1).astype(jnp.int32)


def means(points: jax.Array, cluster: jax.Array, num_clusters: int) -> tuple[jax.Array, jax.Array]:
    """(means f32[C, D], sizes f32[C]) of clusters; an empty one has mean 0."""
    chex.assert_rank(points, 2)
    chex.assert_shape(cluster, points.shape[:1])
    chex.assert_type([points, cluster], [float, int])
    member = jax.nn.one_hot(cluster, num_clusters, dtype=points.dtype)
    size = member.sum(axis=0)
    total = jnp.matmul(member.T, points, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(size, 1.0)[:, None], size


def _distances(points: jax.Array, centres: jax.Array) -> jax.Array:
    """f32[N, C] squared distances, less the length of the point, which no comparison sees."""
    inner = jnp.matmul(points, centres.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(centres**2, axis=-1) - 2.0 * inner


def _fill(points: jax.Array, centres: jax.Array, cluster: jax.Array) -> jax.Array:
    """Gives every empty cluster the farthest point of a cluster that can spare one."""
    num_clusters = centres.shape[0]

    def give(empty, cluster):
        size = jnp.bincount(cluster, length=num_clusters)
        far = jnp.sum((points - centres[cluster]) ** 2, axis=-1)
        taken = jnp.argmax(jnp.where(size[cluster] > 1, far, -1.0))
        return jnp.where(
            size[empty] > 0, cluster, cluster.at[taken].set(empty.astype(cluster.dtype))
        )

    return jax.lax.fori_loop(0, num_clusters, give, cluster)
