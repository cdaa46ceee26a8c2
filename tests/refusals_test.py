"""Mathematical functions refuse what would broadcast or wrap to a wrong number.

Shapes and kinds of arrays are AssertionErrors, which cost nothing under jit; what a user can type
is a ValueError.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.classics import ease, grids, similarity
from jaxrec_diff.diffusion import forward, heat, schedules, weights
from jaxrec_diff.evaluation import metrics, popularity, topk
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.nets import dropout, embeddings, encoders, sunet, transformer
from jaxrec_diff.ops import (
    graph,
    kmeans,
    negatives,
    normals,
    quantize,
    ragged,
    rng,
    smoothing,
    sparse,
    threefry,
    vectors,
)

KEY, ROWS = jax.random.key(0), jnp.arange(4, dtype=jnp.int32)
FLAT = np.array([1, 2, 3, 2, 1], np.int32)
PROFILES = ragged.make(FLAT, *np.array([[0, 2], [2, 4], [3, 5]]))
GRAPH = jax.tree.map(jnp.asarray, graph.make(graph.item_sets(PROFILES, 3), 3))
SMOOTHER = jax.tree.map(jnp.asarray, smoothing.make(graph.item_sets(PROFILES, 3), 3))
LEVELS = forward.levels(np.linspace(1e-3, 0.1, 4))
TOP = Top(jnp.ones((2, 3)), jnp.ones((2, 3), jnp.int32))


def nodes(users=2, items=3):
    return graph.Nodes(jnp.ones((users, 2)), jnp.ones((items, 2)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.ranks(Top(TOP.scores, TOP.items[:, :2])),
        lambda: metrics.hits(TOP, jnp.ones((1, 2), jnp.int32)),
        lambda: metrics.hr(jnp.ones((2, 3), bool), TOP.items, jnp.ones((2, 1), int), 1),
        lambda: metrics.per_user(TOP, jnp.ones((3, 2), jnp.int32), (1,)),
        lambda: metrics.exposure(TOP.items, 2, 3, jnp.ones((2, 1))),
        lambda: metrics.average_popularity(np.ones(3), np.ones((3, 1))),
        lambda: metrics.table_spread(np.ones((3, 2)), np.ones(2, bool)),
        lambda: topk.top(jnp.ones((2, 3)), jnp.ones((5, 1)), k=2),
        lambda: topk.top(jnp.ones((2, 3)), jnp.ones((5, 3)), jnp.ones(1), k=2),
        lambda: topk.top(jnp.ones((3, 3)), jnp.ones((5, 3)), k=2, seen=TOP.items),
        lambda: topk.nearest(jnp.ones((2, 3)), jnp.ones((5, 3))),
        lambda: ease.ease(np.ones((2, 3), np.float32), 1.0),
        lambda: popularity.lists(
            PROFILES, PROFILES, np.ones(3), k=2, mask_seen=False, allowed=np.ones(1, bool)
        ),
        lambda: quantize.assign(jnp.ones((2, 3)), jnp.ones(3)),
        lambda: quantize.straight_through(jnp.ones((2, 3)), jnp.ones(3)),
        lambda: quantize.code_means(jnp.ones((3, 2, 2)), jnp.zeros(3, int), jnp.ones(1), 2),
        lambda: quantize.pick(jnp.ones((3, 2)), jnp.zeros(3, int)),
        lambda: quantize.update(
            jnp.ones((3, 2, 2)), quantize.Codes(jnp.ones((1, 2, 2)), jnp.ones(3))
        ),
        lambda: kmeans.kmeans(jnp.ones(5), 2, KEY),
        lambda: kmeans.assign(jnp.ones((5, 2)), jnp.ones((2, 1))),
        lambda: kmeans.means(jnp.ones((5, 2)), jnp.zeros(1, int), 2),
        lambda: graph.item_sets(PROFILES._replace(end=PROFILES.end[:1]), 3),
        lambda: graph.adjacency(GRAPH, nodes(users=1)),
        lambda: graph.propagate(GRAPH, nodes(items=4), 2),
        lambda: graph.row_sums(GRAPH.by_user, jnp.ones((3, 2)), jnp.ones(1)),
        lambda: graph.unit_rows(jnp.ones((2, 2), int)),
        lambda: smoothing.smooth(SMOOTHER, jnp.ones((2, 4))),
        lambda: smoothing.smooth(SMOOTHER, jnp.ones((2, 3), int)),
        lambda: sparse.dense(jnp.ones((2, 3), int), jnp.ones((2, 1)), 3),
        lambda: sparse.project(jnp.ones((2, 3), int), jnp.ones((2, 1)), jnp.ones((3, 2))),
        lambda: normals.by_row(KEY, jnp.ones((2, 2), jnp.int32), (3,)),
        lambda: threefry.block((jnp.uint32(1), jnp.uint32(2)), (jnp.ones(2, int),) * 2),
        lambda: normals.uniform(jnp.ones(2, jnp.int32)),
        lambda: normals.from_uniform(jnp.ones(2, jnp.bfloat16)),
        lambda: rng.normal(KEY, jnp.ones(3)),
        lambda: negatives.log_uniform(np.ones((2, 2))),
        lambda: negatives.popularity(np.ones((2, 2))),
        lambda: negatives.below(KEY, ROWS, jnp.ones(1, jnp.int32)),
        lambda: negatives.unowned(KEY, ROWS, ROWS, ROWS, ROWS[:1], 9),
        lambda: negatives.strangers(KEY, ROWS[:1], jnp.ones((4, 2), jnp.int32), 9),
        lambda: negatives.absent(KEY, ROWS, ROWS, 9),
        lambda: ragged.window(ROWS, ROWS[:2], ROWS[:1], 3),
        lambda: ragged.cut(PROFILES, np.zeros((1, 1), int), 2, 1),
        lambda: ragged.expand(np.arange(3), np.arange(2)),
        lambda: vectors.unit(jnp.ones(3, int)),
        lambda: weights.diffrec_x0(forward.Levels(np.ones(3), np.ones(1))),
        lambda: schedules.validate(np.ones((2, 2))),
        lambda: schedules.fix_first(np.ones((2, 2))),
        lambda: encoders.last_items(jnp.ones((2, 3, 2)), jnp.ones((1, 3), bool), 2),
        lambda: transformer.places(jnp.ones((2, 3), int)),
        lambda: transformer.places(jnp.ones((2, 3), bool), count=jnp.ones((1, 3))),
        lambda: transformer.padded(jnp.ones((2, 3)), "query", 5, one=True),
        lambda: rng.split(KEY),
        lambda: transformer.take(jnp.ones((2, 3, 2)), jnp.zeros(1, int)),
        lambda: sunet.convolved(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))),
        lambda: sunet.halved(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2, 2))),
        lambda: sunet.tiled(jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 2))),
        lambda: sunet.doubled_in_tiles(jnp.ones((1, 4, 2, 2)), jnp.ones((3, 3, 2, 2))),
    ],
)
def test_shapes_and_kinds(call):
    with pytest.raises(AssertionError):
        call()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: metrics.hr(jnp.ones((2, 3), bool), TOP.items, jnp.ones(2, int), 0), "cut-off"),
        (lambda: topk.top(jnp.ones((2, 3)), jnp.ones((5, 3)), k=0), "k=0"),
        (lambda: ease.ease(np.eye(2, dtype=np.float32), 0.0), "regularisation .* 0.0"),
        (lambda: grids.check("knn", 3), "'knn'"),
        (
            lambda: similarity.most_alike(graph.item_sets(PROFILES, 3), 3, similarity.COSINE, -1),
            "neighbours",
        ),
        (lambda: graph.adjacency(GRAPH, nodes(), jnp.ones(4)), "droppable=True"),
        (lambda: heat.moves(heat.blur(3, 1.5), np.array([1, 2]), 0.5), "must fall from below 3"),
        (lambda: weights.min_snr(LEVELS, 0.0, "x0"), "gamma"),
        (lambda: weights.min_snr(LEVELS, 5.0, "score"), "'score'"),
        (lambda: schedules.quad(5, start=-1e-4), "-0.0001"),
        (lambda: schedules.zero_terminal_snr(np.array([0.5])), "at least 2 steps, got 1"),
        (lambda: schedules.linear(5, stop=1.5), "1.5"),
        (lambda: dropout.keep_mask(KEY, (2,), 1.0), r"\[0, 1\), got 1.0"),
        (lambda: embeddings.sinusoidal(ROWS, 0), "got 0"),
        (lambda: embeddings.sinusoidal(ROWS, 4, variant="cos"), "'cos'"),
        (lambda: transformer.places(jnp.ones((2, 3), bool), "keys"), "'keys'"),
        (lambda: sunet.side(0), "got 0"),
    ],
)
def test_what_a_user_can_type(call, said):
    with pytest.raises(ValueError, match=said):
        call()
