"""GiffCF: a diffusion of a user's row along the graph of items (arXiv:2311.08744).

The forward process blurs a row by a filter S of the item graph (`ops.smoothing`) and adds no noise
as released:

    F_t(x) = (1 - a_t) x + a_t x S,    a_t = alpha t / T,    z_t = F_t(x) + sigma_t eps

An autoencoder reads the blurred row, the history and the smoothed history and restores the row. Its
last layer is a curve of three numbers of every item, so a point is the row of scores itself. What
the diffusion is worth is ranked beside the model, always: see `variants`.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.interactions import INTERACTIONS, answered
from jaxrec_diff.batches.types import InteractionQuery, Interactions
from jaxrec_diff.diffusion import heat, process, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.heat import Moves
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import MATRIX_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets import dropout
from jaxrec_diff.nets.row_mixer import RowMixer
from jaxrec_diff.ops import filled, graph, rng, smoothing, sparse
from jaxrec_diff.ops.smoothing import Smoother


@dataclass(frozen=True, kw_only=True)
class GiffCFConfig:
    """Settings of GiffCF; the defaults are those published for ML-1M."""

    width: int = 200
    """Size d of item embeddings."""
    dropout_rate: float = 0.5
    """Dropout of the history's entries; the blurred row is of the whole one."""
    num_steps: int = 3
    """Diffusion steps T."""
    alpha: float = 1.5
    """Blur at step T: 1 leaves the smoothed row, above it small details change their sign."""
    noise_decay: float = 0.5
    """delta: what a reverse step keeps of the state's difference from the estimate's blur, and
    what the noise shrinks by a step."""
    noise_scale: float = 0.0
    """Deviation of the noise at step T; every published run adds none."""
    ideal_weight: float = 0.0
    """Weight of the ideal low-pass filter beside the linear one."""
    ideal_cutoff: int = 200
    """Eigenvectors that it lets pass."""
    history_norm: Literal["l1", "none"] = "l1"
    """l1: the history's embedding is a mean; none: a sum."""
    state_scale: Literal["items", "length"] = "items"
    """What divides the state's embedding: the size of the catalogue, as released, or the length of
    the row."""
    init_scale: float = 1.0
    """Factor on the initial item embeddings."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="mean"))
    """The reverse path: mean, which draws nothing (ddim without eta is the same path), or one_step,
    the estimate of its first call."""

    def __post_init__(self) -> None:
        validation.at_least("model.width", self.width, 1)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.at_least("model.num-steps", self.num_steps, 1)
        validation.above("model.alpha", self.alpha, 0, 1.5)
        validation.within("model.noise-decay", self.noise_decay, 0, 1)
        validation.at_least("model.noise-scale", self.noise_scale, 0)
        validation.at_least("model.ideal-weight", self.ideal_weight, 0)
        validation.at_least("model.ideal-cutoff", self.ideal_cutoff, 1)
        validation.above("model.init-scale", self.init_scale, 0, 1.0)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        if self.sampler.kind not in ("mean", "ddim", "one_step"):
            raise ValueError(
                f"model.sampler.kind={self.sampler.kind} moves noise, and this reverse path has "
                "none; take mean or one_step"
            )
        if self.sampler.kind == "ddim" and self.sampler.eta:
            raise ValueError(
                f"model.sampler.eta={self.sampler.eta} draws noise, and this reverse path has "
                "none; the nearest is 0"
            )


def path(config: GiffCFConfig) -> Moves:
    """The reverse path that the settings mean."""
    levels, sampler = heat.blur(config.num_steps, config.alpha), config.sampler
    if sampler.kind == "one_step":
        return heat.one_call(levels)
    count = sampler.steps or config.num_steps
    t = schedules.subset(config.num_steps, count, sampler.spacing)[::-1]
    return heat.moves(levels, t, config.noise_decay)


class State(NamedTuple):
    """What is not trained."""

    smoother: Smoother  # S, of the training interactions
    moved: jax.Array | None  # f32[R, d] S E, once an evaluation has prepared it


class History(NamedTuple):
    """What the denoiser is told of a user beside the state."""

    code: jax.Array  # f32[B, d] embedding
    rows: jax.Array  # f32[B, R] entries, behind dropout in training
    smoothed: jax.Array  # f32[B, R] what S makes of them


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: GiffCFConfig
    spec: DataSpec
    net: RowMixer
    path: Moves
    blur: np.ndarray  # f64[T] a_t
    axis_name: str | None

    @property
    def num_items(self) -> int:
        return self.spec.num_items


def parts(config: GiffCFConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network and the reverse path of GiffCF; arguments as of `build`.

    Raises:
      ValueError: if the data has no users, or fewer eigenvectors than the ideal filter takes.
    """
    if spec.user_items is None:
        raise ValueError(
            "this model smooths rows along the graph of users and items, and this data holds "
            "histories without users; take a table of interactions"
        )
    most = min(spec.num_users, spec.num_items)
    if config.ideal_weight and config.ideal_cutoff > most:
        raise ValueError(
            f"model.ideal-cutoff={config.ideal_cutoff} eigenvectors are more than this graph of "
            f"{spec.num_users} users and {spec.num_items} items has; at most {most}"
        )
    net = RowMixer(spec.num_items, config.width, config.init_scale)
    levels = heat.blur(config.num_steps, config.alpha)
    return Parts(config, spec, net, path(config), levels, axis_name)


def init(parts: Parts, key: jax.Array, example: Interactions) -> Variables:
    """Parameters, and the filter of the training interactions."""
    del example
    config, spec = parts.config, parts.spec
    code, rows = jnp.zeros((1, config.width)), jnp.zeros((1, filled.rows(parts.num_items)))
    params = parts.net.init(key, code, code, rows, rows, jnp.zeros(1, jnp.int32))["params"]
    assert spec.user_items is not None  # `parts` looked
    sets = graph.item_sets(spec.user_items, spec.num_items)
    cutoff = config.ideal_cutoff if config.ideal_weight else 0
    made = smoothing.make(sets, spec.num_items, num_vectors=cutoff)
    return Variables(params, State(jax.tree.map(jnp.asarray, made), None))


def smooth(parts: Parts, state: State, rows: jax.Array) -> jax.Array:
    """x S of rows f32[B, R], zeros behind the items."""
    own = rows[:, : parts.num_items]
    moved = smoothing.smooth(state.smoother, own, parts.config.ideal_weight)
    return jnp.pad(moved, ((0, 0), (0, rows.shape[1] - own.shape[1])))


def history(
    parts: Parts, params: Any, items: jax.Array, value: jax.Array, rows: Any, smoothed: Any
) -> History:
    """What the denoiser is told of rows that are given as ids, as arrays and smoothed."""
    code = sparse.project(items, value, params["items"])
    if parts.config.history_norm == "l1":
        code = code / jnp.maximum(jnp.sum(jnp.abs(value), axis=1, keepdims=True), 1.0)
    return History(code, rows, smoothed)


def state_scale(parts: Parts, value: jax.Array) -> jax.Array | float:
    """What the embedding of the state is divided by."""
    if parts.config.state_scale == "items":
        return float(parts.num_items)
    return jnp.maximum(jnp.sum(jnp.abs(value), axis=1, keepdims=True), 1.0)


def blurred(
    parts: Parts, key: jax.Array, row_id: jax.Array, x0: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """z_t of rows f32[B, R] at steps i32[B] or i32[] as a pair, z_t = u + v S: GiffCF's forward
    process, u = (1 - a_t) x + sigma_t eps and v = a_t x.

    Noise, where there is some, is drawn for items alone.
    """
    config, t = parts.config, jnp.broadcast_to(t, row_id.shape)
    a = jnp.asarray(parts.blur, x0.dtype)[t][:, None]
    plain, along = (1.0 - a) * x0, a * x0
    if not config.noise_scale:
        return plain, along
    deviation = config.noise_scale * config.noise_decay ** (config.num_steps - 1.0 - t)
    eps = rng.normal(key, row_id, (parts.num_items,))
    fill = jnp.zeros((len(row_id), x0.shape[1] - parts.num_items))
    return plain + deviation[:, None] * jnp.concatenate([eps, fill], axis=1), along


def loss(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Interactions
) -> tuple[jax.Array, Aux]:
    """The squared error of restored rows, summed over items.

        L = sum_i (x_i - f(z_t, c, c S, t)_i)^2,    t ~ U{1..T},    c = dropout(x)

    Only the history c is dropped out; z_t is made of the whole row. As released, not divided by the
    number of items.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the filter; it stays as it is.
      key: of the steps, the noise and dropout, each row's own.
      example: B rows of the interaction matrix.

    Returns:
      f32[] the weighted mean, and `Aux` with the metric "loss".

    >>> from jaxrec_diff.ops import ragged
    >>> own = ragged.make(np.array([1, 2, 3], np.int32), np.array([0, 2]), *[np.array([2, 3])] * 2)
    >>> spec = DataSpec(2, num_items=5, max_len=2, user_items=own)
    >>> made = parts(GiffCFConfig(width=4), spec)
    >>> items, user = jnp.array([[1, 2], [3, 0]]), jnp.arange(2)
    >>> example = Interactions(items, 1.0 * (items > 0), user, weight=jnp.ones(2), row_id=user)
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss'])
    """
    k_t, k_eps, k_drop = jax.random.split(key, 3)
    t = timesteps.uniform(k_t, example.row_id, parts.config.num_steps)
    keys = rng.row_keys(k_drop, example.row_id)
    kept = dropout.drop_rows(keys, example.value, parts.config.dropout_rate)
    each = error(parts, params, state, k_eps, example, kept, t)
    value = losses.weighted_mean(each, example.weight, parts.axis_name)
    return value, Aux(state, {"loss": value})


def error(
    parts: Parts,
    params: Any,
    state: State,
    key: jax.Array,
    example: Interactions,
    kept: jax.Array,
    t: jax.Array,
) -> jax.Array:
    """f32[B] of rows whose history has the entries `kept` f32[B, P], at steps `t` i32[B]."""
    width = filled.rows(parts.num_items)
    x0, c = (sparse.dense(example.items, each, width) for each in (example.value, kept))
    plain, along = blurred(parts, key, example.row_id, x0, t)
    along, smoothed = jnp.split(smooth(parts, state, jnp.concatenate([along, c])), 2)
    known = history(parts, params, example.items, kept, c, smoothed)
    code = (plain + along) @ params["items"] / state_scale(parts, example.value)
    out = call(parts, params, "__call__", code, *known, t)
    return jnp.sum((x0 - out)[:, : parts.num_items] ** 2, axis=1)


def walk(
    parts: Parts,
    params: Any,
    state: State,
    query: InteractionQuery,
    *,
    blind: bool = False,
) -> Chain:
    """The reverse process from F_T(x), f32[B, 2, R]: pairs (u, v) that stand for u + v S.

    A move is linear in x0_hat, x0_hat S and z_t, and the network reads z_t through its embedding
    u E + v (S E) alone. So no row is smoothed on the way, and one product with S, `finish`, is left
    at the end. `blind` hides the state from the network.
    """
    x0 = sparse.dense(query.items, query.value, filled.rows(parts.num_items))
    known = history(parts, params, query.items, query.value, x0, smooth(parts, state, x0))
    table, scale = params["items"], state_scale(parts, query.value)
    moved = state.moved if state.moved is not None else precompute(parts, params, state).moved
    gains = np.zeros((2, parts.config.num_steps))
    gains[:, parts.path.t] = parts.path.p, parts.path.q
    gain = jnp.asarray(gains, x0.dtype)

    def added(pair, t):
        code = (pair[:, 0] @ table + pair[:, 1] @ moved) / scale
        code = jnp.zeros_like(code) if blind else code
        x0_hat = call(parts, params, "__call__", code, *known, t)
        return x0_hat[:, None] * gain[:, t, None]

    a = parts.blur[parts.path.t[0]]
    b, nothing = jnp.asarray(parts.path.b, x0.dtype), jnp.zeros(len(parts.path.b), x0.dtype)
    steps = Steps(jnp.asarray(parts.path.t, jnp.int32), nothing + 1.0, b, nothing, nothing)
    return Chain(steps, added, jnp.stack([(1.0 - a) * x0, a * x0], axis=1))


def chain(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> Chain:
    """The reverse process as pairs of rows, see `walk`; its key draws nothing."""
    del key
    return walk(parts, params, state, query)


def noised(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery,
    items: jax.Array, t: jax.Array,
) -> jax.Array:  # fmt: skip
    """z_t of rows with their answers i32[B, R] among their items, as `chain` walks it."""
    del params, state
    row = answered(query, items)
    x0 = sparse.dense(row.items, row.value, filled.rows(parts.num_items))
    return jnp.stack(blurred(parts, key, row.row_id, x0, t), axis=1)


def finish(parts: Parts, params: Any, state: State, end: jax.Array) -> jax.Array:
    """u + v S of the end of a chain, f32[B, 2, R] -> f32[B, R]."""
    del params
    if parts.path.q[-1] == 0 and parts.path.b[-1] == 0:
        return end[:, 0]  # the last move is the estimate itself
    return end[:, 0] + smooth(parts, state, end[:, 1])


def sample(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> jax.Array:
    """Rows of scores z_0, f32[B, R]; nothing is drawn."""
    return finish(parts, params, state, process.run(chain(parts, params, state, key, query)))


def variants(parts: Parts) -> dict[str, Any]:
    """What is left without the diffusion, (params, state, query) -> f32[B, R] each.

    one call: the estimate at step T for the answer; no state: the network is never shown z_t;
    graph only: x S, by which z_t ranks unseen items at every step, without a network.
    """
    config = replace(parts.config, sampler=SamplerConfig(kind="one_step"))
    once = parts._replace(config=config, path=path(config))

    def one_call(params, state, query):
        return finish(once, params, state, process.run(walk(once, params, state, query)))

    def no_state(params, state, query):
        walked = walk(parts, params, state, query, blind=True)
        return finish(parts, params, state, process.run(walked))

    def graph_only(params, state, query):
        width = filled.rows(parts.num_items)
        return smooth(parts, state, sparse.dense(query.items, query.value, width))

    return {"one call": one_call, "no state": no_state, "graph only": graph_only}


def head(parts: Parts, params: Any, state: State) -> Head:
    """None: a point is the row of scores."""
    del params, state
    return Head(None, items=parts.num_items)


def precompute(parts: Parts, params: Any, state: State) -> State:
    """The state with S E."""
    return state._replace(moved=smooth(parts, state, params["items"].T).T)


def build(
    config: GiffCFConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """GiffCF as pure functions.

    Args:
      config: settings.
      spec: sizes of the data and its training rows, which make the graph.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: changes nothing here.

    Raises:
      ValueError: if the data has no users, or fewer eigenvectors than the ideal filter takes.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        finish=partial(finish, made),
        noised=partial(noised, made),
        deterministic=True,
        variants=variants(made),
        precompute=partial(precompute, made),
    )


SYSTEM = System(
    config=GiffCFConfig,
    build=build,
    official=MATRIX_SCRIPT,
    official_differs=False,
    input=INTERACTIONS,
)
