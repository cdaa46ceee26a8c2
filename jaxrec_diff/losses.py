"""Losses of each example, float[B]; means are taken by `weighted_mean`."""

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxrec_diff.ops import meshes, sparse, vectors

# Logits of a batch and a chunk of the catalogue stay under this many bytes.
_CHUNK_BYTES = 64 * 2**20
# The bias of rows that are no classes: finite, so that no gradient is 0 * inf.
_ABSENT = -1e30


def mse(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over features of (target - estimate)^2: float[B, ...] -> float[B]."""
    _check_pair(estimate, target)
    return _over_features(jnp.square(target - estimate))


def l1(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over features of |target - estimate|."""
    _check_pair(estimate, target)
    return _over_features(jnp.abs(target - estimate))


def huber(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over features of r^2 / 2 where |r| < 1 and |r| - 1/2 elsewhere (smooth L1)."""
    _check_pair(estimate, target)
    size = jnp.abs(target - estimate)
    return _over_features(jnp.where(size < 1.0, 0.5 * size**2, size - 0.5))


def cosine(estimate: jax.Array, target: jax.Array) -> jax.Array:
    """(cos(estimate, target) - 1)^2 along the last axis, a mean over the others.

    It does not see lengths, so that a target which is trained too can only grow. PreferDiff's
    (arXiv:2410.13117); zeros have no direction, which counts as a cosine of 0.

    >>> round(float(cosine(jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 2.0]]))[0]), 6)
    0.04
    """
    _check_pair(estimate, target)
    cos = jnp.sum(vectors.unit(estimate) * vectors.unit(target), axis=-1)
    return _over_features(jnp.square(cos - 1.0))


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-log softmax(logits)[target]: float[B, C], i32[B] class indices -> float[B]."""
    chex.assert_rank(logits, 2)
    chex.assert_shape(target, logits.shape[:1])
    chex.assert_type([logits, target], [float, int])
    picked = jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def full_softmax(
    points: jax.Array,
    table: jax.Array,
    target: jax.Array,
    bias: jax.Array | None = None,
    *,
    classes: tuple[int, int] | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """`cross_entropy` of the logits `points @ table.T + bias`, a chunk of rows at a time.

    Neither the forward nor the backward pass holds more than B x chunk logits: those of a chunk are
    computed again for its gradient, a third more products where there is more than one chunk.
    Inside `jax.set_mesh` a table that is split along the axis `model` stays where it is: each
    device sums over its own rows.

    Args:
      points: float[B, D].
      table: float[I, D].
      target: i32[B] rows of `table`.
      bias: float[I].
      classes: the first row that is a class and the one behind the last; by default all are.
      chunk: rows at once; by default what fits in a fixed number of bytes.

    Returns:
      float[B]
    """
    chex.assert_shape(target, points.shape[:1])
    chex.assert_type(target, int)
    _check_rows(points, table, bias)
    picked = jnp.sum(points * table[target], axis=-1)
    if bias is not None:
        picked = picked + bias[target]
    return log_normaliser(points, table, bias, classes=classes, chunk=chunk) - picked


def log_normaliser(
    points: jax.Array,
    table: jax.Array,
    bias: jax.Array | None = None,
    *,
    classes: tuple[int, int] | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """log sum_j exp(points . table[j] + bias[j]), float[B], with the memory of `full_softmax`."""
    _check_rows(points, table, bias)
    if classes is not None:
        row = jnp.arange(table.shape[0])
        inside = (row >= classes[0]) & (row < classes[1])
        bias = jnp.where(inside, jnp.zeros((), points.dtype) if bias is None else bias, _ABSENT)
    mesh = meshes.around()
    if mesh is None or mesh.shape[meshes.MODEL] == 1:
        return _log_normaliser(points, table, bias, chunk)
    parts = mesh.shape[meshes.MODEL]
    if bias is None:
        bias = jnp.zeros(table.shape[0], points.dtype)
    table, bias = _filled_up(table, bias, -(-table.shape[0] // parts) * parts)

    def local(points, shard, bias):
        # of each device from here on: their gradients are summed once, and not in every chunk
        points = jax.lax.pcast(points, meshes.MODEL, to="varying")
        part = _log_normaliser(points, shard, bias, chunk)
        most = jax.lax.pmax(jax.lax.stop_gradient(part), meshes.MODEL)
        return most + jnp.log(jax.lax.psum(jnp.exp(part - most), meshes.MODEL))

    split = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(), P(meshes.MODEL), P(meshes.MODEL)),
        out_specs=P(),
        axis_names={meshes.MODEL},
    )
    return split(points, table, bias)


def _log_normaliser(
    points: jax.Array, table: jax.Array, bias: jax.Array | None, chunk: int | None
) -> jax.Array:
    rows = table.shape[0]
    chunk = min(rows, chunk or max(1024, _CHUNK_BYTES // (4 * points.shape[0])))
    count = -(-rows // chunk)
    # chunks that the rows divide by, where a few more do, so that no copy of the table is filled up
    count = next((n for n in range(count, 2 * count) if rows % n == 0), count)
    chunk = -(-rows // count)

    def normaliser(part):
        rows, extra = part
        logits = points @ rows.T
        return jax.nn.logsumexp(logits if extra is None else logits + extra, axis=-1)

    if count == 1:
        return normaliser((table, bias))
    extra = jnp.zeros(rows, points.dtype) if bias is None else bias
    table, extra = _filled_up(table, extra, count * chunk)
    parts = table.reshape(count, chunk, -1), extra.reshape(count, chunk)
    each = jax.lax.map(jax.checkpoint(normaliser), parts)
    return jax.nn.logsumexp(each, axis=0)


def _filled_up(table: jax.Array, bias: jax.Array, rows: int) -> tuple[jax.Array, jax.Array]:
    """A table of so many rows; those that are added are no classes."""
    filler = rows - table.shape[0]
    if not filler:
        return table, bias
    bias = jnp.pad(bias, (0, filler), constant_values=_ABSENT)
    return jnp.pad(table, ((0, filler), (0, 0))), bias


def sampled_softmax(positive: jax.Array, negatives: jax.Array) -> jax.Array:
    """-log [exp(p) / (exp(p) + sum exp(n))]: float[B], float[B, n] logits -> float[B].

    Corrections and masks (accidental hits) are added to the logits by the caller.
    """
    chex.assert_rank([positive, negatives], [1, 2])
    chex.assert_equal_shape_prefix([positive, negatives], 1)
    chex.assert_type([positive, negatives], float)
    logits = jnp.concatenate([positive[:, None], negatives], axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - positive


def multinomial(
    points: jax.Array,
    table: jax.Array,
    bias: jax.Array,
    items: jax.Array,
    value: jax.Array,
    *,
    num_items: int,
) -> jax.Array:
    """-sum_i x_i log softmax(points . table + bias)_i of sparse rows x; arXiv:1802.05814, Eq. 2.

    Memory as of `full_softmax`: what a row holds is projected, and all items stand in one
    normaliser.

    Args:
      points: float[B, D].
      table: float[R, D]; row j is item j + 1, rows from `num_items` on are no items.
      bias: float[R].
      items: i32[B, P] ids, each row filled from the left; 0 ends it.
      value: float[B, P] x at these items, 0 behind them.
      num_items: I.

    Returns:
      float[B]

    >>> logits = jnp.array([[0.1, -0.2, 0.3, 0.0]])
    >>> items, value = jnp.array([[1, 2]]), jnp.ones((1, 2))
    >>> each = multinomial(logits, jnp.eye(4), jnp.zeros(4), items, value, num_items=4)
    >>> round(float(each[0]), 5)
    3.00499
    """
    _check_rows(points, table, bias)
    chex.assert_equal_shape([items, value])
    held = jnp.sum(points * sparse.project(items, value, table), axis=-1)
    held = held + jnp.sum(value * bias[jnp.maximum(items - 1, 0)], axis=-1)
    every = log_normaliser(points, table, bias, classes=(0, num_items))
    return value.sum(axis=-1) * every - held


def normal_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, variance) | N(0, 1)), summed over features: float[B, D] -> float[B].

        1/2 sum (mu^2 + sigma^2 - 1 - log sigma^2)

    >>> round(float(normal_kl(jnp.array([[0.5, -1.0]]), jnp.array([[0.2, -0.4]]))[0]), 5)
    0.67086
    """
    _check_pair(mean, log_variance)
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, axis=-1)


def bce(positive: jax.Array, negative: jax.Array) -> jax.Array:
    """-log sigmoid(p) - log(1 - sigmoid(n)), the binary cross entropy of a pair of logits."""
    _check_pair(positive, negative)
    return jax.nn.softplus(-positive) + jax.nn.softplus(negative)


def gbce(
    positive: jax.Array, negatives: jax.Array, *, num_items: int, calibration: float
) -> jax.Array:
    """Binary cross entropy whose positive weighs less, as negatives are only sampled.

        [beta softplus(-p) + sum_j softplus(n_j)] / (k + 1),
        beta = alpha (t (1 - 1 / alpha) + 1 / alpha),  alpha = k / (N - 1)

    Petrov and Macdonald 2023 (gSASRec, arXiv:2308.07192). t = 0 is the plain binary loss, under
    which sampling makes a network overconfident; t = 1 undoes that wholly.

    Args:
      positive: float[B] logits.
      negatives: float[B, k] logits of items drawn uniformly; -1e9 leaves one out.
      num_items: N, the catalogue's.
      calibration: t, in [0, 1].

    Returns:
      float[B]

    >>> each = gbce(jnp.array([1.2]), jnp.array([[0.3, -0.5]]), num_items=101, calibration=0.75)
    >>> round(float(each[0]), 6)
    0.466067
    """
    chex.assert_rank([positive, negatives], [1, 2])
    chex.assert_equal_shape_prefix([positive, negatives], 1)
    chex.assert_type([positive, negatives], float)
    alpha = negatives.shape[1] / max(num_items - 1, 1)
    beta = alpha * (calibration * (1.0 - 1.0 / alpha) + 1.0 / alpha)
    whole = beta * jax.nn.softplus(-positive) + jnp.sum(jax.nn.softplus(negatives), axis=-1)
    return whole / (negatives.shape[1] + 1)


def bpr(positive: jax.Array, negative: jax.Array) -> jax.Array:
    """-log sigmoid(p - n); Rendle et al. 2009 (arXiv:1205.2618)."""
    _check_pair(positive, negative)
    return jax.nn.softplus(negative - positive)


def contrast(
    points: jax.Array,
    weight: jax.Array,
    *,
    temperature: float = 0.07,
    axis_name: str | None = None,
) -> jax.Array:
    """How close each point is to all others of the batch, f32[B, D] -> f32[B].

        log(1 + sum_{j != i} exp((cos_ij - 1) / temperature))

    DiQDiff's contrastive discrepancy (arXiv:2501.17670) as released: the cross entropy of each
    point against itself among all points, where the term of the point itself is constant. Written
    without it no exponential exceeds 1, and values near 1e-3 keep their digits.

    Args:
      points: f32[B, D]; only directions count.
      weight: f32[B]; rows of weight 0 repel nobody.
      temperature: of the similarities.
      axis_name: device axis of `pmap`: the others are those of the global batch.
    """
    chex.assert_rank(points, 2)
    chex.assert_shape(weight, points.shape[:1])
    chex.assert_type([points, weight], float)
    points = vectors.unit(points)
    others, real = points, weight > 0
    first: int | jax.Array = 0
    if axis_name is not None:
        others = jax.lax.all_gather(points, axis_name, tiled=True)
        real = jax.lax.all_gather(real, axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * points.shape[0]
    cosine = jnp.matmul(points, others.T, precision=jax.lax.Precision.HIGHEST)
    itself = jnp.arange(others.shape[0]) == first + jnp.arange(points.shape[0])[:, None]
    closeness = jnp.where(itself | ~real, 0.0, jnp.exp((cosine - 1.0) / temperature))
    return jnp.log1p(closeness.sum(axis=-1))


def weighted_mean(each: jax.Array, weight: jax.Array, axis_name: str | None = None) -> jax.Array:
    """sum(weight each) / sum(weight), 0 if all weights are.

    Under `axis_name` the denominator is the mean over devices, so that the mean over devices of
    what this returns is the mean over the global batch, however weights are spread.
    """
    _check_pair(each, weight)
    total = jnp.sum(weight)
    if axis_name is not None:
        total = jax.lax.pmean(total, axis_name)
    return jnp.sum(weight * each) / jnp.maximum(total, 1e-12)


def _check_pair(first: jax.Array, second: jax.Array) -> None:
    chex.assert_equal_shape([first, second])
    chex.assert_type([first, second], float)


def _check_rows(points: jax.Array, table: jax.Array, bias: jax.Array | None) -> None:
    chex.assert_rank([points, table], 2)
    chex.assert_equal_shape_suffix([points, table], 1)
    chex.assert_type([points, table], float)
    if bias is not None:
        chex.assert_shape(bias, table.shape[:1])


def _over_features(values: jax.Array) -> jax.Array:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))
