"""LightGCN (arXiv:2002.02126), with SGL's contrastive term (arXiv:2010.10783) as an option.

Embeddings of users and items are averaged over a few steps along the graph of training
interactions; the catalogue is ranked by inner product with the user's vector. Trained by BPR on
triplets. Without steps it is matrix factorisation (`jaxrec_diff.models.mf`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import negatives
from jaxrec_diff.batches.triplets import TRIPLETS
from jaxrec_diff.batches.types import InteractionQuery, Triplets
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.protocols import MATRIX_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.ops import filled
from jaxrec_diff.ops import graph as ops_graph
from jaxrec_diff.ops.graph import Graph, Nodes
from jaxrec_diff.ops.negatives import Law


@dataclass(frozen=True, kw_only=True)
class LightGCNConfig:
    """Settings of LightGCN; the defaults are its paper's."""

    width: int = 64
    """Size d of embeddings."""
    layers: int = 3
    """Steps L along the graph."""
    rank_layers: int | None = None
    """Steps when ranking and for a later phase, where they are not those of training."""
    readout: Literal["mean", "normalized_sum"] = "mean"
    """mean over the layers, or the sum of layers whose rows have length 1 (DDRM's SGL encoder)."""
    l2: float = 1e-4
    """Weight of half the squared length of a pair's three embeddings."""
    init_scale: float = 0.1
    """Deviation of the initial embeddings."""
    negatives: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """A pair's other item: drawn uniformly from those that are not the user's; by popularity from
    all, or from the items of the batch's rows, corrected by log Q."""
    contrast_weight: float = 0.0
    """Weight of SGL's InfoNCE between two views of the graph; 0 is off."""
    contrast_temperature: float = 0.2
    """Its temperature."""
    edge_drop: float = 0.1
    """Chance that a view lacks an edge."""

    def __post_init__(self) -> None:
        validation.at_least("model.width", self.width, 1)
        validation.within("model.layers", self.layers, 0, 16)
        if self.rank_layers is not None:
            validation.within("model.rank-layers", self.rank_layers, 0, 16)
        validation.at_least("model.l2", self.l2, 0)
        validation.above("model.init-scale", self.init_scale, 0, 0.1)
        validation.at_least("model.contrast-weight", self.contrast_weight, 0)
        validation.above("model.contrast-temperature", self.contrast_temperature, 0, 0.2)
        validation.within("model.edge-drop", self.edge_drop, 0, 0.99)
        if self.contrast_weight > 0 and self.layers == 0:
            raise ValueError(
                "model.contrast-weight compares two views of the graph and model.layers=0 looks at "
                "none; take model.layers=1 or more"
            )


class State(NamedTuple):
    """What is not trained."""

    graph: Any  # a Graph, or None where there are no layers
    output: Nodes | None  # propagated embeddings, once an evaluation has prepared them


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: LightGCNConfig
    spec: DataSpec
    rank_layers: int  # steps along the graph when ranking
    law: Law | None  # log Q of negatives that are not drawn uniformly
    axis_name: str | None


def parts(config: LightGCNConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The settings and the data of LightGCN; arguments as of `build`.

    Raises:
      ValueError: if there are layers and the data has no users.
    """
    rank_layers = config.layers if config.rank_layers is None else config.rank_layers
    if max(config.layers, rank_layers) and spec.user_items is None:
        raise ValueError(
            f"model.layers={max(config.layers, rank_layers)} needs a graph of users and items, and "
            "this data holds histories without users; take a table of interactions"
        )
    law = None
    if config.negatives != "uniform":
        law = negatives.law_of(config.negatives, spec.num_items, spec.item_counts, 1.0)
    return Parts(config, spec, rank_layers, law, axis_name)


def init(parts: Parts, key: jax.Array, example: Triplets) -> Variables:
    """Normal tables of users and items, and the graph as state where a step is taken along it."""
    del example
    config, spec, rank_layers, *_ = parts
    k_users, k_items = jax.random.split(key)
    params = {
        "users": config.init_scale * jax.random.normal(k_users, (spec.num_users, config.width)),
        "items": config.init_scale * jax.random.normal(k_items, (spec.num_items, config.width)),
    }
    params = {name: filled.padded(table) for name, table in params.items()}
    edges = _graph(config, spec) if max(config.layers, rank_layers) else None
    return Variables(params, State(edges, None))


def draw(parts: Parts, key: jax.Array, example: Triplets) -> Triplets:
    """The example with the negatives of the settings, if it has not; `key` is that of `loss`."""
    if parts.law is None or example.log_q is not None:
        return example
    law, key = parts.law, jax.random.split(key, 3)[2]
    if parts.config.negatives == "in_batch":
        return negatives.by_batch(law, key, example, axis_name=parts.axis_name)
    return negatives.by_law(law, key, example)


def loss(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Triplets
) -> tuple[jax.Array, Aux]:
    """BPR of propagated embeddings; LightGCN (arXiv:2002.02126), Eq. 15, and SGL's term.

        L = -log sigmoid(e_u . e_i - e_u . e_j) + (l2 / 2) (|E_u|^2 + |E_i|^2 + |E_j|^2)
            + contrast_weight (L_users + L_items)

    e are rows after the steps along the graph and E those before. SGL (arXiv:2010.10783), Eq. 10-12
    is the last term, off by default; see `contrast`.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the graph; it stays as it is.
      key: of the edges that SGL's two views lack, and of other negatives than the example's.
      example: B triplets.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss", "bpr" and, where it is on,
      "contrast".

    >>> made = parts(LightGCNConfig(width=4, layers=0), DataSpec(2, num_items=5, max_len=2))
    >>> rows = (jnp.array(row) for row in ([0, 1], [1, 3], [4, 5]))
    >>> example = Triplets(*rows, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['bpr', 'loss'])
    """
    config, axis_name, example = parts.config, parts.axis_name, draw(parts, key, example)
    nodes = embed(parts, params, state, config.layers)
    user, item, other = example.user, example.positive - 1, example.negative - 1
    score, against = (
        jnp.sum(nodes.users[user] * nodes.items[each], axis=-1) for each in (item, other)
    )
    ranked = losses.bpr(score if example.log_q is None else score - example.log_q, against)
    rows = params["users"][user], params["items"][item], params["items"][other]
    size = sum(jnp.sum(row**2, axis=-1) for row in rows)
    each = ranked + 0.5 * config.l2 * size
    metrics = {"bpr": losses.weighted_mean(ranked, example.weight, axis_name)}
    value = losses.weighted_mean(each, example.weight, axis_name)
    if config.contrast_weight > 0:
        metrics["contrast"] = contrast(parts, params, state, key, example)
        value = value + config.contrast_weight * metrics["contrast"]
    return value, Aux(state, metrics | {"loss": value})


def contrast(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Triplets
) -> jax.Array:
    """SGL's `info_nce` of users plus that of items between two views of the graph, f32[].

    A view lacks each edge with chance `edge_drop`. The state must hold a graph made for
    `contrast_weight` above 0.
    """
    config, axis_name = parts.config, parts.axis_name
    count = state.graph.edge.shape[0]
    views = []
    for k in jax.random.split(key):
        keep = jax.random.bernoulli(k, 1.0 - config.edge_drop, (count,))
        views.append(embed(parts, params, state, config.layers, keep.astype(jnp.float32)))
    a, b = views
    shared = example.weight, config.contrast_temperature, axis_name
    each = info_nce(a.users, b.users, example.user, *shared)
    each = each + info_nce(a.items, b.items, example.positive - 1, *shared)
    return losses.weighted_mean(each, example.weight, axis_name)


def embed(
    parts: Parts, params: Any, state: State, layers: int, keep: jax.Array | None = None
) -> Nodes:
    """Embeddings after `layers` steps along the graph; `keep` f32[E] says which edges stay."""
    tables = Nodes(params["users"], params["items"])
    unit = parts.config.readout == "normalized_sum"
    if not layers:
        return ops_graph.propagate(None, tables, 0, normalize=unit)
    own = Nodes(tables.users[: parts.spec.num_users], tables.items[: parts.spec.num_items])
    moved = ops_graph.propagate(state.graph, own, layers, normalize=unit, keep=keep)
    return Nodes(*(filled.padded(part) for part in moved))


def output(parts: Parts, params: Any, state: State) -> Nodes:
    """Embeddings as they are ranked, filled tables of users and items."""
    return embed(parts, params, state, parts.rank_layers) if state.output is None else state.output


def precompute(parts: Parts, params: Any, state: State) -> State:
    """The state with `output` worked out."""
    return state._replace(output=embed(parts, params, state, parts.rank_layers))


def sample(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> jax.Array:
    """The users' rows, f32[B, D]; nothing is drawn."""
    del key
    return output(parts, params, state).users[query.user]


def head(parts: Parts, params: Any, state: State) -> Head:
    """The items' rows."""
    return Head(output(parts, params, state).items, items=parts.spec.num_items)


def build(
    config: LightGCNConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """LightGCN as pure functions.

    Args:
      config: settings.
      spec: sizes of the data and, for layers, its training rows.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: changes nothing here.

    Raises:
      ValueError: if there are layers and the data has no users.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        draw=partial(draw, made),
        sample=partial(sample, made),
        head=partial(head, made),
        deterministic=True,
        precompute=partial(precompute, made),
    )


def info_nce(
    first: jax.Array,
    second: jax.Array,
    ids: jax.Array,
    weight: jax.Array,
    temperature: float,
    axis_name: str | None = None,
) -> jax.Array:
    """-log [exp(cos(a_i, b_i) / tau) / sum_j exp(cos(a_i, b_j) / tau)]: f32[B].

    SGL, Eq. 10, with the nodes of the batch as the sum. A node that the batch holds several times
    stands in it once.

    Args:
      first: f32[N, D] one view of all nodes.
      second: f32[N, D] the other.
      ids: i32[B] nodes of the batch.
      weight: f32[B] 0 on padding rows, which are no one's negatives.
      temperature: tau.
      axis_name: device axis of `pmap`, whose rows are gathered.
    """
    others, real = ids, weight
    if axis_name is not None:
        others, real = (jax.lax.all_gather(x, axis_name, tiled=True) for x in (ids, weight))
    a, b = ops_graph.unit_rows(first[ids]), ops_graph.unit_rows(second[others])
    logits = a @ b.T / temperature
    # how often each column's node stands in the batch; a logarithm makes one of its copies
    copies = jnp.sum((others[:, None] == others[None, :]) * (real > 0), axis=1)
    logits = jnp.where(real > 0, logits - jnp.log(jnp.maximum(copies, 1)), -jnp.inf)
    agree = jnp.sum(a * ops_graph.unit_rows(second[ids]), axis=-1) / temperature
    # a padding row has no say; its value only must be a number
    return jnp.where(weight > 0, jax.nn.logsumexp(logits, axis=-1) - agree, 0.0)


def export(config: Any, spec: DataSpec, params: Any, state: State) -> dict[str, np.ndarray]:
    """Embeddings for later phases.

    Returns:
      "users" f32[U, D] and "items" f32[I, D] as they are ranked, and "ego_users" and "ego_items",
      the tables before any step along the graph.
    """
    made = parts(config, spec)
    nodes = embed(made, params, state, made.rank_layers)
    sizes = {"users": spec.num_users, "items": spec.num_items}
    named = {name: getattr(nodes, name)[:size] for name, size in sizes.items()}
    named |= {f"ego_{name}": params[name][:size] for name, size in sizes.items()}
    return {name: np.asarray(value, np.float32) for name, value in named.items()}


def _graph(config: LightGCNConfig, spec: DataSpec) -> Graph:
    assert spec.user_items is not None  # `parts` looked
    sets = ops_graph.item_sets(spec.user_items, spec.num_items)
    made = ops_graph.make(sets, spec.num_items, droppable=config.contrast_weight > 0)
    return jax.tree.map(jnp.asarray, made)


SYSTEM = System(
    config=LightGCNConfig,
    build=build,
    official=MATRIX_SCRIPT,
    official_differs=False,
    input=TRIPLETS,
    export=export,
    exports=("users", "items", "ego_users", "ego_items"),
)
