"""Every mathematical function under every float type: results follow their input.

Each is called with float32, bfloat16 where that makes sense, and float64 under `jax_enable_x64`.
Its floats have the type of its input, its integers are i32 whatever JAX's own are, and its values
agree with those of float64 to what the type can hold. A public function that has no case here is
an error, so that nobody forgets one.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import losses
from jaxrec_diff.classics import ease, graph_filter, grids, ials, scores, similarity, slim
from jaxrec_diff.classics.similarity import Kernel
from jaxrec_diff.diffusion import (
    closed_form,
    forward,
    guidance,
    heat,
    process,
    samplers,
    schedules,
    sphere,
    timesteps,
    weights,
)
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.evaluation import metrics, popularity, topk
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.nets import (
    clustered,
    dense,
    dropout,
    embeddings,
    encoders,
    mlp,
    row_mixer,
    sunet,
    transformer,
)
from jaxrec_diff.ops import (
    gradients,
    graph,
    id_rows,
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
from jaxrec_diff.ops.graph import Nodes
from jaxrec_diff.ops.ragged import Ragged

MODULES = (
    losses, metrics, topk, popularity,
    ease, graph_filter, grids, ials, scores, similarity, slim,
    closed_form, forward, guidance, heat, process, samplers, schedules, sphere, timesteps, weights,
    clustered, dense, dropout, embeddings, encoders, mlp, row_mixer, sunet, transformer,
    gradients, graph, id_rows, kmeans, negatives, normals, quantize, ragged, rng, smoothing, sparse,
    threefry, vectors,
)  # fmt: skip

ALL, EXACT = ("bfloat16", "float32", "float64"), ("float32", "float64")
ROUNDING = {"bfloat16": 4e-2, "float32": 2e-5}


class Case(NamedTuple):
    """A call that makes its own input of a float type."""

    call: Callable[[Any], Any]
    dtypes: tuple[str, ...] = ALL
    floats: str = "input"
    """The type of its floats: of the input, "float32" always, or "default", what JAX calls float.
    What is drawn in the default type is other numbers in another type."""


def host(call: Callable[[], Any]) -> Case:
    """A function of the host, which knows no type but its own."""
    return Case(lambda dtype: call(), dtypes=("host",))


def only32(call: Callable[[Any], Any]) -> Case:
    return Case(call, dtypes=EXACT, floats="float32")


def drawn(call: Callable[[], Any]) -> Case:
    return Case(lambda dtype: call(), dtypes=EXACT, floats="default")


def of_law(law: negatives.Law) -> Any:
    return law.draw(key(), 3), law.log_q(ids(3, low=1))


def x(dtype: Any, *shape: int, seed: int = 0) -> jax.Array:
    """Quarters in [-2, 2], whose short sums of products every type holds exactly."""
    return jnp.asarray(np.random.default_rng(seed).integers(-8, 9, shape) / 4.0, dtype)


def positive(dtype: Any, *shape: int, seed: int = 0) -> jax.Array:
    return jnp.abs(x(dtype, *shape, seed=seed)) + 0.5


def ids(*shape: int, low: int = 0, high: int = 6, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(low, high, shape), jnp.int32)


def key() -> jax.Array:
    return jax.random.key(0)


ROWS = jnp.arange(4, dtype=jnp.int32)
T = jnp.array([0, 3, 1], jnp.int32)
BETAS = np.linspace(1e-3, 0.2, 5)
LEVELS = forward.levels(BETAS)
FLAT = np.array([1, 2, 3, 2, 4, 1, 3], np.int32)
USER_ITEMS = ragged.make(FLAT, *np.array([[0, 3, 5], [2, 4, 6], [3, 5, 7]]))
SETS = graph.item_sets(ragged.make(FLAT, *np.array([[0, 3, 5], [3, 5, 7], [3, 5, 7]])), 4)
ALIKE = similarity.most_alike(SETS, 4, similarity.COSINE, similarity.ALL)
COUNTS = np.bincount(FLAT, minlength=5)[1:]
HIT = jnp.array([[False, True, True], [False, False, False]])
RANK = jnp.array([[1, 2, 3], [2, 2, 3]], jnp.int32)
SIZE = jnp.array([3, 1], jnp.int32)
EXPOSED = np.array([0.0, 3.0, 1.0, 2.0])


def top_of(dtype):
    return Top(-jnp.sort(-x(dtype, 2, 4), axis=1), ids(2, 4))


def on_device(tree):
    return jax.tree.map(jnp.asarray, tree)


def nodes(dtype):
    return Nodes(x(dtype, 3, 2), x(dtype, 4, 2, seed=1))


def graph_of(droppable=False):
    return on_device(graph.make(SETS, 4, droppable=droppable))


def sparse_rows(dtype):
    return jnp.array([[3, 1], [2, 0]], jnp.int32), jnp.array([[1.0, 0.5], [1.0, 0.0]], dtype)


def half(xt, t):
    return 0.5 * xt


def history_of(dtype):
    return timesteps.History(positive(dtype, 4, 3), jnp.full(4, 3, jnp.int32))


def two_clouds(dtype):
    return jnp.concatenate([x(dtype, 5, 2), x(dtype, 5, 2) + 40.0])


def grouped(found):
    """Clusters without their numbers."""
    same = found.cluster == found.cluster[0]
    return same.astype(jnp.int32), jnp.sort(found.centres, axis=0), found.distance


def initialised(initializer):
    return initializer(key(), (3, 2))


def levels_of(dtype):
    signal, noise = (jnp.asarray(level[T], dtype)[:, None] for level in LEVELS)
    return dict(signal=signal, noise=noise)


def change(function, count):
    return Case(
        lambda d: function(*(x(d, 3, 2, seed=seed) for seed in range(count)), **levels_of(d))
    )


def at_odds(params):
    return (jnp.sum(params["a"] ** 2), -jnp.sum(params["a"])), {}


CASES: dict[str, Case] = {
    # losses
    "losses.mse": Case(lambda d: losses.mse(x(d, 3, 2), x(d, 3, 2, seed=1))),
    "losses.l1": Case(lambda d: losses.l1(x(d, 3, 2), x(d, 3, 2, seed=1))),
    "losses.huber": Case(lambda d: losses.huber(x(d, 3, 2), x(d, 3, 2, seed=1))),
    "losses.cosine": Case(lambda d: losses.cosine(x(d, 3, 2), positive(d, 3, 2))),
    "losses.cross_entropy": Case(lambda d: losses.cross_entropy(x(d, 3, 6), ids(3))),
    "losses.full_softmax": Case(
        lambda d: losses.full_softmax(x(d, 3, 2), x(d, 6, 2, seed=1), ids(3), x(d, 6), chunk=4)
    ),
    "losses.log_normaliser": Case(
        lambda d: losses.log_normaliser(x(d, 3, 2), x(d, 6, 2, seed=1), chunk=4)
    ),
    "losses.sampled_softmax": Case(lambda d: losses.sampled_softmax(x(d, 3), x(d, 3, 5, seed=1))),
    "losses.gbce": Case(
        lambda d: losses.gbce(x(d, 3), x(d, 3, 5, seed=1), num_items=101, calibration=0.75)
    ),
    "losses.multinomial": Case(
        lambda d: losses.multinomial(
            x(d, 3, 2), x(d, 6, 2, seed=1), x(d, 6), ids(3, 2), positive(d, 3, 2), num_items=6
        ),
        EXACT,
    ),
    "losses.normal_kl": Case(lambda d: losses.normal_kl(x(d, 3, 2), x(d, 3, 2, seed=1))),
    "losses.bce": Case(lambda d: losses.bce(x(d, 3), x(d, 3, seed=1))),
    "losses.bpr": Case(lambda d: losses.bpr(x(d, 3), x(d, 3, seed=1))),
    "losses.contrast": Case(
        lambda d: losses.contrast(positive(d, 3, 2), jnp.ones(3, d), temperature=1.0)
    ),
    "losses.weighted_mean": Case(lambda d: losses.weighted_mean(x(d, 4), positive(d, 4))),
    # metrics, whose floats are made of integers
    "metrics.ranks": Case(lambda d: metrics.ranks(top_of(d))),
    "metrics.hits": Case(lambda d: metrics.hits(top_of(d), ids(2, 3))),
    **{
        f"metrics.{metric.value.__name__}": only32(
            lambda d, value=metric.value: value(HIT, RANK, SIZE, 3)
        )
        for metric in metrics.METRICS.values()
    },
    "metrics.at_cut_offs": only32(lambda d: metrics.at_cut_offs(HIT, RANK, SIZE, (1, 3))),
    "metrics.sizes": Case(lambda d: metrics.sizes(ids(2, 3))),
    "metrics.of": host(lambda: metrics.of("hr@10").compared),
    "metrics.names": host(lambda: len(metrics.names((5, 10)))),
    "metrics.grouped": host(lambda: len(metrics.grouped(metrics.names((5,))))),
    "metrics.compared": host(lambda: len(metrics.compared(("hr@10",), lambda a, b: False))),
    "metrics.sign": host(lambda: metrics.sign("hr@10")),
    "metrics.item_spread": host(
        lambda: metrics.item_spread(EXPOSED[:, None], np.array([True, True, False, True]))
    ),
    "metrics.per_user": only32(lambda d: metrics.per_user(top_of(d), ids(2, 3), (1, 3))),
    "metrics.exposure": Case(lambda d: metrics.exposure(ids(2, 4), 3, 6, positive(d, 2))),
    "metrics.coverage": host(lambda: metrics.coverage(EXPOSED)),
    "metrics.gini": host(lambda: metrics.gini(EXPOSED)),
    "metrics.average_popularity": host(lambda: metrics.average_popularity(EXPOSED, COUNTS)),
    "metrics.table_spread": host(
        lambda: metrics.table_spread(EXPOSED[:, None], np.array([True, True, False, True]))
    ),
    "topk.top": Case(
        lambda d: topk.top(
            x(d, 3, 2), x(d, 7, 2, seed=1), k=3, seen=ids(3, 2), allowed=jnp.arange(7) > 0, chunk=3
        )
    ),
    "topk.nearest": Case(
        lambda d: topk.nearest(x(d, 2, 3, 2), x(d, 7, 2, seed=1), seen=ids(2, 2), distinct=True)
    ),
    "grids.names": host(grids.names),
    "grids.check": host(lambda: grids.check("ease", 4)),
    "grids.settings": host(lambda: grids.settings("family", 3)),
    "grids.at_edge": host(lambda: grids.at_edge("ease", {"regularisation": 30.0})),
    "grids.candidates": host(
        lambda: [found.fit()(SETS) for found in grids.candidates("item_knn", SETS, 4, 2)]
    ),
    "similarity.most_alike": host(lambda: similarity.most_alike(SETS, 4, Kernel(q=0.5), 2)),
    "similarity.cut": host(lambda: similarity.cut(ALIKE, 1)),
    "similarity.weights": host(lambda: similarity.weights(ALIKE).toarray()),
    "ease.bytes_at_most": host(lambda: ease.bytes_at_most(4)),
    "ease.gram": host(lambda: ease.gram(SETS, 4)),
    "ease.ease": host(lambda: ease.ease(4 * np.eye(3) + 1, 2.0, 0.25)),
    "ease.fit": host(lambda: ease.fit(SETS, 4, 2.0)(SETS)),
    "slim.shared": host(lambda: slim.shared(SETS, 4).alike),
    "slim.weights": host(lambda: slim.weights(slim.shared(SETS, 4), 0.1, 1.0).toarray()),
    "slim.fit": host(lambda: slim.fit(slim.shared(SETS, 4), 0.1, 1.0)(SETS)),
    "graph_filter.spectrum": host(lambda: graph_filter.spectrum(SETS, 4, 2).root),
    "graph_filter.fit": host(
        lambda: graph_filter.fit(graph_filter.spectrum(SETS, 4, 2), 2, 0.3)(SETS)
    ),
    "ials.solve": host(lambda: ials.solve(SETS, np.eye(4, 2), 0.1, 0.01)),
    "ials.items": host(lambda: ials.items(SETS, 4, width=2, epochs=1)),
    "ials.objective": host(
        lambda: ials.objective(SETS, np.ones((len(SETS.start) - 1, 2)), np.eye(4, 2), 0.1, 0.01)
    ),
    "ials.score_by": host(lambda: ials.score_by(np.eye(4, 2), 0.1, 0.01)(SETS)),
    "scores.matrix": host(lambda: scores.matrix(SETS, 4).toarray()),
    "scores.of_weights": host(lambda: scores.of_weights(np.eye(4))(SETS)),
    "topk.of_scores": host(
        lambda: topk.of_scores(
            lambda sets: np.full((len(sets.start) - 1, 4), np.float32(0.5)),
            USER_ITEMS,
            USER_ITEMS,
            num_items=4,
            k=3,
            mask_seen=True,
        )
    ),  # fmt: skip
    "popularity.lists": host(
        lambda: popularity.lists(USER_ITEMS, USER_ITEMS, COUNTS, k=3, mask_seen=False)
    ),
    # diffusion
    "closed_form.closed_form": Case(
        lambda d: closed_form.closed_form(
            samplers.ddpm_steps(LEVELS), jnp.asarray(np.diag([0.5, 0.25]), d), x(d, 5, 2)
        )._replace(factor=None),  # of its columns only the covariance is determined
        EXACT,
    ),
    "closed_form.transport": Case(
        lambda d: closed_form.transport(
            samplers.ddim_steps(LEVELS), jnp.asarray(np.diag([0.5, 0.25]), d), x(d, 5, 2)
        )
    ),
    "closed_form.composes": host(
        lambda: (
            closed_form.composes(samplers.ddim_rows(LEVELS)),
            closed_form.composes(samplers.heun_rows(LEVELS)),
        )
    ),
    "closed_form.apply": Case(
        lambda d: closed_form.apply(
            closed_form.Law(x(d, 2, 2), x(d, 2), x(d, 2, 2, seed=1)), x(d, 3, 2), x(d, 3, 2, seed=2)
        )
    ),
    **{
        f"forward.{name}": host(lambda name=name: getattr(forward, name)(BETAS))
        for name in ("log_alphas_cumprod", "alphas_cumprod", "one_minus_alphas_cumprod", "levels")
    },
    **{
        f"forward.{name}": host(lambda name=name: getattr(forward, name)(LEVELS))
        for name in ("snr", "logsnr", "posterior")
    },
    "forward.straight": host(lambda: forward.straight(5, shift=3.0)),
    "forward.mix": Case(
        lambda d: forward.mix(x(d, 3, 2), x(d, 3, 2, seed=1), positive(d, 3), x(d, 3))
    ),
    "forward.tables": drawn(lambda: forward.tables(LEVELS)),
    "forward.extract": Case(lambda d: forward.extract(x(d, 5), T, x(d, 3, 2))),
    "forward.q_sample": Case(
        lambda d: forward.q_sample(forward.tables(LEVELS), x(d, 3, 2), T, x(d, 3, 2, seed=1))
    ),
    "forward.at_step": drawn(
        lambda: forward.at_step(forward.tables(LEVELS), key(), ROWS, jnp.ones((4, 2)), jnp.int32(2))
    ),
    "forward.x0_from_eps": change(forward.x0_from_eps, 2),
    "forward.eps_from_x0": change(forward.eps_from_x0, 2),
    "forward.x0_from_v": change(forward.x0_from_v, 2),
    "forward.eps_from_v": change(forward.eps_from_v, 2),
    "forward.v_from_x0_eps": change(forward.v_from_x0_eps, 2),
    "forward.x0_from_score": change(forward.x0_from_score, 2),
    "forward.eps_from_score": Case(
        lambda d: forward.eps_from_score(x(d, 3, 2), levels_of(d)["noise"])
    ),
    "forward.to_x0_eps": change(lambda *a, **k: forward.to_x0_eps(*a, **k, kind="v"), 2),
    "gradients.at_peace": Case(
        lambda d: jax.grad(lambda p: gradients.at_peace(at_odds, p)[0])({"a": x(d, 3)})
    ),
    "guidance.classifier_free": Case(
        lambda d: guidance.classifier_free(half, lambda xt, t: xt, 2.0)(x(d, 3, 2), T)
    ),
    "guidance.classifier": Case(
        lambda d: guidance.classifier(
            half, lambda xt: -jnp.sum(xt**2, axis=-1), forward.tables(LEVELS), 0.5
        )(x(d, 3, 2), T)
    ),
    "guidance.drop": Case(
        lambda d: guidance.drop(jnp.array([True, False, True]), x(d, 3, 2), x(d, 2, seed=1))
    ),
    "heat.blur": host(lambda: heat.blur(3, 1.5)),
    "heat.moves": host(lambda: heat.moves(heat.blur(3, 1.5), np.array([2, 0]), 0.5)),
    "heat.one_call": host(lambda: heat.one_call(heat.blur(3, 1.5))),
    "process.run": Case(
        lambda d: process.run(Chain(samplers.ddim_steps(LEVELS), half, x(d, 3, 2)))
    ),
    "process.trajectory": Case(
        lambda d: process.trajectory(Chain(samplers.ddim_steps(LEVELS), half, x(d, 3, 2)))
    ),
    **{
        f"samplers.{name}": host(lambda name=name: getattr(samplers, name)(LEVELS))
        for name in (
            "ddpm_rows",
            "ddim_rows",
            "heun_rows",
            "fixed_noise_rows",
            "dpmpp_rows",
            "one_step_rows",
        )
    },
    **{
        f"samplers.{name}": drawn(lambda name=name: getattr(samplers, name)(LEVELS))
        for name in (
            "ddpm_steps",
            "ddim_steps",
            "heun_steps",
            "fixed_noise_steps",
            "dpmpp_steps",
            "one_step",
        )
    },
    "samplers.cast": drawn(lambda: samplers.cast(samplers.ddim_rows(LEVELS))),
    "samplers.repeat_first": drawn(lambda: samplers.repeat_first(samplers.ddim_steps(LEVELS), 2)),
    "samplers.draw_whole": only32(lambda d: samplers.draw_whole(key(), (3, 2))(jnp.int32(1))),
    "samplers.draw_rows": only32(lambda d: samplers.draw_rows(key(), ROWS, (2,))(jnp.int32(1))),
    "samplers.draw_given": Case(lambda d: samplers.draw_given(x(d, 5, 3, 2))(jnp.int32(1))),
    "samplers.warm_start": Case(
        lambda d: samplers.warm_start(forward.tables(LEVELS), x(d, 3, 2), 2, x(d, 3, 2, seed=1))
    ),
    **{
        f"schedules.{name}": host(lambda name=name: schedules.named(name, 40))
        for name in schedules.NAMED
        if name not in ("linear_diffrec", "linear_var")
    },
    **{
        f"schedules.{name}": host(
            lambda name=name: schedules.named(name, 5, scale=0.1, noise_min=1e-3, noise_max=1e-2)
        )
        for name in ("linear_diffrec", "linear_var")
    },
    "schedules.named": host(lambda: schedules.named("linear", 5)),
    "schedules.fix_first": host(lambda: schedules.fix_first(BETAS)),
    "schedules.zero_terminal_snr": host(lambda: schedules.zero_terminal_snr(BETAS)),
    "schedules.subset": host(lambda: schedules.subset(10, 3)),
    "schedules.validate": host(lambda: schedules.validate(BETAS)),
    "sphere.normalize": Case(lambda d: sphere.normalize(positive(d, 3, 2))),
    "sphere.project_tangent": Case(
        lambda d: sphere.project_tangent(jnp.array([[1.0, 0.0]], d), x(d, 1, 2))
    ),
    "sphere.exp_map": Case(
        lambda d: sphere.exp_map(jnp.array([[1.0, 0.0]], d), jnp.array([[0.0, 0.5]], d))
    ),
    "sphere.q_sample": Case(
        lambda d: sphere.q_sample(x(d, 5), jnp.asarray(np.eye(3, 2), d), T, x(d, 3, 2, seed=1))
    ),
    "timesteps.uniform": drawn(lambda: timesteps.uniform(key(), ROWS, 5)),
    "timesteps.antithetic_rows": drawn(lambda: timesteps.antithetic_rows(key(), ROWS, 5)),
    "timesteps.low_discrepancy": only32(lambda d: timesteps.low_discrepancy(key(), ROWS)),
    "timesteps.mode": Case(lambda d: timesteps.mode(x(d, 3, 2) / 8 + 0.5)),
    "timesteps.cosmap": Case(lambda d: timesteps.cosmap(x(d, 3, 2) / 8 + 0.5)),
    "timesteps.logit_normal": Case(lambda d: timesteps.logit_normal(x(d, 3, 2) / 8 + 0.5), EXACT),
    "timesteps.fixed_step_weights": host(lambda: timesteps.fixed_step_weights(5)),
    "timesteps.categorical": Case(
        # a draw that decides nothing: one step has all the weight
        lambda d: timesteps.categorical(key(), ROWS, jnp.array([0.0, 1.0, 0.0], d))
    ),
    "timesteps.init_history": drawn(lambda: timesteps.init_history(4)),
    "timesteps.importance_probs": Case(lambda d: timesteps.importance_probs(history_of(d))),
    "timesteps.importance": Case(
        lambda d: timesteps.importance(
            key(), ROWS, timesteps.History(jnp.ones((1, 2), d), jnp.full(1, 2, jnp.int32))
        )
    ),
    "timesteps.update_history": Case(lambda d: timesteps.update_history(history_of(d), T, x(d, 3))),
    **{
        f"weights.{name}": host(lambda name=name: getattr(weights, name)(LEVELS))
        for name in ("diffrec_x0", "diffrec_eps", "elbo_eps")
    },
    "weights.min_snr": host(lambda: weights.min_snr(LEVELS, 5.0, "eps")),
    # networks
    "clustered.arrange": host(lambda: clustered.arrange(np.array([3, 4]), (6, 2))),
    "clustered.places": Case(lambda d: clustered.places(ids(5, high=3), 3)),
    "dense.uniform_fan_in": only32(lambda d: initialised(dense.uniform_fan_in(3))),
    "dropout.keep_mask": Case(lambda d: dropout.keep_mask(key(), (3, 2), 0.5)),
    "dropout.drop_rows": Case(
        lambda d: dropout.drop_rows(jax.random.split(key()), x(d, 2, 3), 0.5)
    ),
    "embeddings.sinusoidal": Case(lambda d: embeddings.sinusoidal(positive(d, 3), 5)),
    "encoders.last_items": Case(
        lambda d: encoders.last_items(x(d, 2, 3, 2), ids(2, 3, high=2) > 0, 2)
    ),
    "mlp.glorot_normal": drawn(lambda: initialised(mlp.glorot_normal(3, 2))),
    "sunet.side": host(lambda: sunet.side(50)),
    "sunet.levels": host(lambda: sunet.levels(50)),
    "sunet.taps_of": host(lambda: sunet.taps_of(2, "up")),
    **{
        f"sunet.{name}": Case(
            lambda d, name=name: getattr(sunet, name)(x(d, 1, 4, 4, 2), x(d, 3, 3, 2, 1, seed=1))
        )
        for name in ("convolved", "halved")
    },
    **{  # whose intermediate sums are larger than what they add up to
        f"sunet.{name}": Case(
            lambda d, name=name: getattr(sunet, name)(x(d, 1, 4, 4, 2), x(d, 3, 3, 2, 1, seed=1)),
            EXACT,
        )
        for name in ("tiled", "doubled_in_tiles")
    },
    "transformer.places": only32(lambda d: transformer.places(ids(2, 3, high=2) > 0)),
    "transformer.padded": only32(
        lambda d: transformer.padded(ids(2, 3, high=2), "query", 5, one=True)
    ),
    "transformer.take": Case(lambda d: transformer.take(x(d, 2, 3, 2), ids(2, high=3))),
    # tools
    "graph.item_sets": host(lambda: graph.item_sets(USER_ITEMS, 4)),
    "graph.transpose": host(lambda: graph.transpose(SETS, 4)),
    "graph.make": host(lambda: graph.make(SETS, 4, droppable=True)),
    "graph.adjacency": Case(
        lambda d: graph.adjacency(graph_of(True), nodes(d), jnp.ones(len(SETS.members), d))
    ),
    "graph.propagate": Case(lambda d: graph.propagate(graph_of(), nodes(d), 2)),
    "graph.unit_rows": Case(lambda d: graph.unit_rows(positive(d, 3, 2))),
    "graph.means": Case(lambda d: graph.means(SETS, np.asarray(x(d, 4, 2)))),
    "graph.row_sums": Case(lambda d: graph.row_sums(on_device(SETS), x(d, 4, 2))),
    "id_rows.repeats": host(lambda: id_rows.repeats(np.array([[3, 5, 3]], np.int32))),
    "id_rows.member": host(
        lambda: id_rows.member(np.array([[3, 5]], np.int32), np.array([[5, 0]], np.int32))
    ),
    "kmeans.kmeans": Case(lambda d: grouped(kmeans.kmeans(two_clouds(d), 2, key())), EXACT),
    "kmeans.assign": Case(lambda d: kmeans.assign(x(d, 6, 2), x(d, 3, 2, seed=1))),
    "kmeans.means": Case(lambda d: kmeans.means(x(d, 6, 2), ids(6, high=3), 3)),
    "negatives.uniform": only32(lambda d: of_law(negatives.uniform(9))),
    "negatives.log_uniform": only32(lambda d: of_law(negatives.log_uniform(np.arange(9)))),
    "negatives.popularity": only32(lambda d: of_law(negatives.popularity(np.arange(9)))),
    "negatives.below": drawn(lambda: negatives.below(key(), ROWS, ROWS + 1)),
    "negatives.unowned": drawn(
        lambda: negatives.unowned(key(), ROWS, ids(1, low=3), 0 * ROWS, 0 * ROWS + 1, 9)
    ),
    "negatives.strangers": drawn(lambda: negatives.strangers(key(), ROWS, ids(4, 3), 9)),
    "negatives.uniform_rows": drawn(lambda: negatives.uniform_rows(key(), ROWS, (4,), 9)),
    "negatives.uniform_places": drawn(lambda: negatives.uniform_places(key(), ROWS, 3, 4, 9)),
    "negatives.absent": drawn(lambda: negatives.absent(key(), ids(3), jnp.int32(4), 9)),
    "normals.whole": only32(lambda d: normals.whole(key(), (3, 2))(jnp.int32(3))),
    "normals.by_row": only32(lambda d: normals.by_row(key(), ROWS, (2,))(jnp.int32(3))),
    "normals.uniform": only32(lambda d: normals.uniform(words(5)[0])),
    "normals.from_uniform": only32(lambda d: normals.from_uniform(x("float32", 4) / 4)),
    "quantize.assign": Case(lambda d: quantize.assign(x(d, 3, 4), x(d, 3, 4, seed=1))),
    "quantize.straight_through": Case(
        lambda d: quantize.straight_through(x(d, 3, 4), x(d, 3, 4, seed=1))
    ),
    "quantize.code_means": Case(
        lambda d: quantize.code_means(x(d, 4, 2, 2), ids(4, high=3), jnp.ones(4, d), 3)
    ),
    "quantize.pick": Case(lambda d: quantize.pick(x(d, 3, 2, 2), ids(4, high=3))),
    "quantize.update": Case(
        lambda d: quantize.update(
            x(d, 2, 2, 2), quantize.Codes(x(d, 2, 2, 2, seed=1), jnp.array([1, 0], d)), decay=0.5
        )
    ),
    "ragged.make": host(lambda: ragged.make(FLAT, *np.array([[0], [2], [3]]))),
    "ragged.pick": host(lambda: ragged.pick(USER_ITEMS, np.array([1]))),
    "ragged.cut": host(lambda: ragged.cut(USER_ITEMS, np.array([1, 0]), 2, 1)),
    "ragged.alone": host(lambda: ragged.alone(USER_ITEMS, np.array([1]))),
    "ragged.prefixes": host(lambda: ragged.prefixes(USER_ITEMS)),
    "ragged.chosen": host(lambda: ragged.chosen(Ragged(*USER_ITEMS[:4], FLAT > 2))),
    "ragged.window": Case(
        lambda d: ragged.window(jnp.asarray(FLAT), ids(2, high=2), ids(2, low=2, high=6), 3)
    ),
    "ragged.generated": Case(
        lambda d: ragged.generated(
            Ragged(*USER_ITEMS[:4], FLAT > 2), jnp.array([0, 3]), jnp.array([3, 7]), 2
        )
    ),
    "ragged.expand": host(lambda: ragged.expand(np.array([5, 1]), np.array([2, 3]))),
    "rng.row_keys": Case(lambda d: jax.random.key_data(rng.row_keys(key(), ROWS))),
    "rng.split": Case(lambda d: jax.random.key_data(rng.split(rng.row_keys(key(), ROWS), 3))),
    "rng.normal": drawn(lambda: rng.normal(key(), ROWS, (2,))),
    "rng.uniform": drawn(lambda: rng.uniform(key(), ROWS, (2,))),
    "rng.gumbel": drawn(lambda: rng.gumbel(key(), ROWS, (2,))),
    "rng.bernoulli": drawn(lambda: rng.bernoulli(key(), ROWS, 0.5, (2,))),
    "rng.randint": Case(lambda d: rng.randint(key(), ROWS, 0, 9, (2,))),
    "smoothing.make": host(lambda: smoothing.make(SETS, 4, num_vectors=2)),
    "smoothing.normalized": host(
        lambda: smoothing.normalized(SETS, 4, user_power=0.5, item_power=0.5).toarray()
    ),
    "smoothing.right_vectors": host(
        lambda: smoothing.right_vectors(
            smoothing.normalized(SETS, 4, user_power=0.5, item_power=0.5), 2
        )
    ),
    "smoothing.smooth": Case(
        lambda d: smoothing.smooth(
            on_device(smoothing.make(SETS, 4, num_vectors=2)), x(d, 2, 4), 0.2
        ),
        dtypes=EXACT,
    ),
    "sparse.dense": Case(lambda d: sparse.dense(*sparse_rows(d), 3)),
    "sparse.project": Case(lambda d: sparse.project(*sparse_rows(d), x(d, 3, 2))),
    "threefry.block": Case(lambda d: threefry.block(words(1), words(2))),
    "threefry.counted": Case(lambda d: threefry.counted(words(1), (3,))),
    "threefry.fold_in": Case(lambda d: threefry.fold_in(threefry.words(key()), ROWS)),
    "threefry.words": Case(lambda d: threefry.words(key())),
    "threefry.is_threefry": host(lambda: np.array(threefry.is_threefry(key()))),
    "threefry.written_out": Case(
        lambda d: jax.random.bits(threefry.written_out(key()), (3,), jnp.uint32)
    ),
    "vectors.unit": Case(lambda d: vectors.unit(positive(d, 3, 2))),
}


def words(seed: int) -> tuple[jax.Array, jax.Array]:
    pair = np.random.default_rng(seed).integers(0, 2**32, (2, 3), dtype=np.uint32)
    return jnp.asarray(pair[0]), jnp.asarray(pair[1])


def functions_of(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and callable(value) and not inspect.isclass(value) and name[0] != "_"
    }  # fmt: skip


def test_every_public_function_has_a_case():
    found = {f"{m.__name__.split('.')[-1]}.{name}" for m in MODULES for name in functions_of(m)}
    assert found == set(CASES)


def test_every_module_of_the_rooms_of_mathematics_is_looked_at():
    """Networks alone, as of a new system, have no case: the exam of models asks them."""
    rooms = {
        "ops": {"files", "filled", "meshes", "streams"},
        "diffusion": {"config", "row_process", "straight"},
        "nets": set(),
    }
    for room, spared in rooms.items():
        package = importlib.import_module(f"jaxrec_diff.{room}")
        for each in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{each.name}")
            if each.name not in spared and functions_of(module):
                assert module in MODULES, module.__name__


def leaves(tree: Any) -> list[Any]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def check_types(found: list[np.ndarray], floats: Any) -> None:
    for leaf in found:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert leaf.dtype == floats
        else:
            assert leaf.dtype in (np.int32, np.uint32, np.bool_)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.dtypes != ("host",)])
def test_results_follow_their_input(name):
    case, host_too = CASES[name], name in ("ease.ease", "graph.means")
    compiled = (lambda call: call) if host_too else jax.jit

    def call(dtype):
        return leaves(compiled(lambda: case.call(jnp.dtype(dtype)))())

    with jax.enable_x64(True):
        wide = {dtype: call(dtype) for dtype in case.dtypes}
    narrow = {dtype: call(dtype) for dtype in case.dtypes if dtype != "float64"}
    for found, default in ((wide, "float64"), (narrow, "float32")):
        for dtype, result in found.items():
            check_types(result, {"input": dtype, "default": default}.get(case.floats, "float32"))
    if case.floats == "default":
        return
    for found in (wide, narrow):
        for dtype, result in found.items():
            for got, right in zip(result, wide["float64"], strict=True):
                if not jnp.issubdtype(right.dtype, jnp.floating) or dtype == "float64":
                    np.testing.assert_array_equal(got, right)
                    continue
                got, right, near = got.astype(float), right.astype(float), ROUNDING[dtype]
                size = np.max(np.abs(right), initial=0.0, where=np.isfinite(right))
                np.testing.assert_allclose(got, right, rtol=near, atol=near * size)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.dtypes == ("host",)])
def test_the_host_computes_the_same_whatever_the_types(name):
    narrow = leaves(CASES[name].call(None))
    with jax.enable_x64(True):
        wide = leaves(CASES[name].call(None))
    for a, b in zip(narrow, wide, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
