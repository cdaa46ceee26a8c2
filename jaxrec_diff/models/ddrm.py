"""DDRM: denoising the embeddings of a finished recommender (arXiv:2401.06982).

A backbone (MF, LightGCN, SGL) gives every user and item a vector, which stays as it is. Two
networks learn to restore noised user and item vectors, each guided by the other side's clean one.
To recommend, the mean of the vectors of a user's items is noised and walked back by the item
network, guided by the user's vector; the catalogue is ranked by inner product with where it ends.

Where the paper and the released code differ the default follows the code, but for the reverse
steps: there are T, not 1.25 T.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.triplets import TRIPLETS, TRIPLETS_BY_USER
from jaxrec_diff.batches.types import InteractionQuery, Triplets
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward, Levels
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.network import call
from jaxrec_diff.models.protocols import MATRIX_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.guided import Activation, GuidedMLP
from jaxrec_diff.ops import filled, graph, rng
from jaxrec_diff.ops.graph import Nodes


@dataclass(frozen=True, kw_only=True)
class DDRMConfig:
    """Settings of DDRM; the defaults are the released ones for LightGCN on MovieLens-1M."""

    layers: int | None = None
    """Steps along the graph that the backbone's first tables take; None takes the vectors that the
    backbone itself ranks with."""
    readout: Literal["mean", "normalized_sum"] = "mean"
    """With layers: their mean, or the sum of layers whose rows have length 1 (SGL's tables)."""
    embedding: Literal["raw", "unit_norm", "unit_variance"] = "raw"
    """The backbone's vectors as they are, with rows of length 1, or all over one number, the
    deviation of the items' entries."""
    dims: tuple[int, ...] = (200, 1100)
    """Hidden widths of both networks, from the bottleneck outwards."""
    activation: Activation = "relu"
    """After every hidden layer."""
    dropout_rate: float = 0.5
    """Dropout of the noised vector in training."""
    num_steps: int = 50
    """Diffusion steps T."""
    noise_scale: float = 1e-2
    """Factor s on both ends of the noise level."""
    noise_min: float = 1e-4
    """First noise level 1 - abar over s."""
    noise_max: float = 1e-3
    """Last one."""
    beta_fixed: bool = True
    """Overwrite the first beta by 1e-5, which lifts every level to at least that."""
    reconstruction: float = 0.1
    """Weight lambda of the restored vectors' error; 1 - lambda is the weight of BPR."""
    reweight: Literal["sigmoid_pow", "softmax", "none"] = "sigmoid_pow"
    """Weight of an example by the score s of its restored pair: sigmoid(s)^gamma, or exp(gamma s)
    over its mean in the batch."""
    gamma: float = 0.0
    """Its strength; 0 weighs all alike."""
    start_noise: bool = True
    """Noise the mean of a user's items before the reverse steps."""
    extra_steps: int = 0
    """Reverse steps before the first, with its coefficients and with step numbers from T on, which
    training never saw; the released settings have T / 4 for some backbones."""
    triples: Literal["user", "interaction"] = "user"
    """Draw training pairs by user, then an item of the user's; or interactions alike."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="mean"))
    """The reverse path; the released one adds no noise."""

    def __post_init__(self) -> None:
        if self.layers is not None:
            validation.within("model.layers", self.layers, 0, 16)
        if not self.dims or min(self.dims) < 1:
            raise ValueError(f"model.dims must be widths such as 200,1100, got {self.dims}")
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.at_least("model.num-steps", self.num_steps, 1)
        validation.above("model.noise-scale", self.noise_scale, 0, 1e-2)
        validation.above("model.noise-min", self.noise_min, 0, 1e-4)
        validation.at_least("model.noise-max", self.noise_max, self.noise_min)
        validation.within("model.reconstruction", self.reconstruction, 0, 1)
        validation.finite("model.gamma", self.gamma)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        validation.at_least("model.extra-steps", self.extra_steps, 0)
        refuse_closed_form(self.sampler, "mean")
        if self.extra_steps and (self.sampler.kind != "mean" or self.sampler.steps):
            raise ValueError(
                f"model.extra-steps={self.extra_steps} repeats the first step of the full mean "
                "path; take model.sampler.kind=mean and model.sampler.steps=0"
            )
        betas_of(self)


class State(NamedTuple):
    """The backbone's vectors; no gradient reaches them. numpy at first, then filled jax arrays."""

    users: Any  # f32[U, D]
    items: Any  # f32[I, D]
    means: Any  # f32[U, D] of each user's training items


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DDRMConfig
    net: GuidedMLP  # of either side
    given: State  # numpy
    tables: Forward  # of the forward process
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None


def parts(config: DDRMConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network, the tables and the backbone's vectors; arguments as of `build`.

    Raises:
      ValueError: if the backbone's arrays do not fit the data.
    """
    given = vectors(config, spec)
    net = GuidedMLP(given.items.shape[1], config.dims, config.activation)
    levels = forward.levels(betas_of(config))
    steps, noisy = reverse_steps(config, levels)
    return Parts(config, net, given, forward.tables(levels), steps, noisy, axis_name)


def init(parts: Parts, key: jax.Array, example: Triplets) -> Variables:
    """Parameters of both networks, "user" and "item", and the backbone's vectors as state."""
    del example
    t, row = jnp.zeros(1, jnp.int32), jnp.zeros((1, parts.net.width))
    sides = zip(("user", "item"), jax.random.split(key), strict=True)
    params = {side: parts.net.init(k, row, t, row)["params"] for side, k in sides}
    return Variables(params, State(*(jnp.asarray(filled.padded(part)) for part in parts.given)))


def loss(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Triplets
) -> tuple[jax.Array, Aux]:
    """BPR of the restored pair and its error; DDRM (arXiv:2401.06982), Algorithm 1.

        L = w [(1 - lambda) bpr(u_hat . i_hat, u_hat . j)
               + (lambda / 2) (mean (u - u_hat)^2 + mean (i - i_hat)^2)]

    u, i and j are the backbone's vectors of the user, the positive and the negative item, and w is
    `pair_weights` of u_hat . i_hat.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the backbone's vectors; they stay as they are.
      key: of the steps, and of either side's noise and dropout, each row's own.
      example: B triplets.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss", "bpr" and "reconstruction".

    >>> import numpy as np
    >>> from jaxrec_diff.ops.ragged import Ragged
    >>> owned = Ragged(np.array([1, 3]), np.array([0, 1]), np.array([1, 2]), np.array([1, 2]))
    >>> backbone = {"users": np.ones((2, 4)), "items": np.eye(5, 4)}
    >>> spec = DataSpec(2, num_items=5, max_len=2, user_items=owned, exports=backbone)
    >>> made = parts(DDRMConfig(dims=(4,), num_steps=3), spec)
    >>> rows = (jnp.array(row) for row in ([0, 1], [1, 3], [4, 5]))
    >>> example = Triplets(*rows, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['bpr', 'loss', 'reconstruction'])
    """
    config, axis_name = parts.config, parts.axis_name
    user = state.users[example.user]
    item, other = state.items[example.positive - 1], state.items[example.negative - 1]
    user_hat, item_hat = estimate(parts, params, key, user, item, example.row_id)
    score = jnp.sum(user_hat * item_hat, axis=-1)
    ranked = losses.bpr(score, jnp.sum(user_hat * other, axis=-1))
    restored = 0.5 * (losses.mse(user_hat, user) + losses.mse(item_hat, item))
    each = (1.0 - config.reconstruction) * ranked + config.reconstruction * restored
    each = each * pair_weights(config, score, example.weight, axis_name)
    terms = {"loss": each, "bpr": ranked, "reconstruction": restored}
    means = {
        name: losses.weighted_mean(term, example.weight, axis_name) for name, term in terms.items()
    }
    return means["loss"], Aux(state, means)


def estimate(
    parts: Parts, params: Any, key: jax.Array, user: jax.Array, item: jax.Array, row_id: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pairs of vectors, noised to one step and restored under training's dropout.

    Args:
      parts: from `parts`.
      params: of `init`.
      key: of the steps, and of either side's noise and dropout.
      user: f32[B, D] clean vectors of users, which guide the items.
      item: f32[B, D] clean vectors of items, which guide the users.
      row_id: i32[B], which keys a row's draws.

    Returns:
      f32[B, D] and f32[B, D].
    """
    k_t, k_user, k_item = jax.random.split(key, 3)
    t = timesteps.uniform(k_t, row_id, parts.config.num_steps)
    user_hat = _restore(parts, params["user"], k_user, user, t, item, row_id)
    return user_hat, _restore(parts, params["item"], k_item, item, t, user, row_id)


def chain(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> Chain:
    """The reverse process of the item network from the mean of a user's items, f32[B, D]."""
    k_start, k_steps = jax.random.split(key)
    size = (parts.net.width,)
    x = state.means[query.user]
    if parts.config.start_noise:
        eps = rng.normal(k_start, query.row_id, size)
        x = samplers.warm_start(parts.tables, x, parts.config.num_steps, eps)
    # the user's vector guides every step alike, so its part of the first layer is hoisted
    guide = call(parts, params["item"], "guide", state.users[query.user])

    def denoise(xt, t):
        return call(parts, params["item"], "guided", xt, t, guide)

    draw = samplers.draw_rows(k_steps, query.row_id, size) if parts.noisy else None
    return Chain(parts.steps, denoise, x, draw)


def sample(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery
) -> jax.Array:
    """Vectors of what a user wants next, f32[B, D]: ends of `chain`."""
    return process.run(chain(parts, params, state, key, query))


def noised(
    parts: Parts, params: Any, state: State, key: jax.Array, query: InteractionQuery,
    items: jax.Array, t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t f32[B, D] of the mean of the answers' vectors, i32[B, R]: where a perfect chain would
    stand, as one starts from the mean of a user's items. Beyond the schedule its last step."""
    del params
    real = (items > 0)[..., None]
    rows = jnp.asarray(state.items)[jnp.maximum(items - 1, 0)]
    x0 = jnp.sum(jnp.where(real, rows, 0.0), axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
    last = parts.config.num_steps - 1
    return forward.at_step(parts.tables, key, query.row_id, x0, jnp.minimum(t, last))


def head(parts: Parts, params: Any, state: State) -> Head:
    """The backbone's items."""
    del params
    return Head(state.items, items=len(parts.given.items))


def backbone(parts: Parts, params: Any, state: State, query: InteractionQuery) -> jax.Array:
    """The user's own vector, f32[B, D]: what the backbone recommends."""
    del parts, params
    return state.users[query.user]


def mean_item(parts: Parts, params: Any, state: State, query: InteractionQuery) -> jax.Array:
    """The mean of the user's items, f32[B, D]: the start of the reverse steps without noise."""
    del parts, params
    return state.means[query.user]


def build(
    config: DDRMConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DDRM as pure functions.

    Its variants are the two baselines without which its figures say little: "backbone", the user's
    own vector, and "mean_item", the start of the reverse steps without noise.

    Args:
      config: settings.
      spec: sizes of the data, its training rows, and the backbone's "users" f32[U, D] and "items"
        f32[I, D].
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: changes nothing here.

    Raises:
      ValueError: if the backbone's arrays do not fit the data.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(noised, made),
        deterministic=not (made.noisy or config.start_noise),
        variants={"backbone": partial(backbone, made), "mean_item": partial(mean_item, made)},
    )


def _restore(
    parts: Parts, params: Any, key: jax.Array, clean: jax.Array, t: jax.Array, cond: jax.Array,
    row_id: jax.Array,
) -> jax.Array:  # fmt: skip
    k_eps, k_drop = jax.random.split(key)
    size, rate = clean.shape[1:], parts.config.dropout_rate
    xt = forward.q_sample(parts.tables, clean, t, rng.normal(k_eps, row_id, size))
    if rate > 0:
        kept = rng.bernoulli(k_drop, row_id, 1.0 - rate, size)
        xt = jnp.where(kept, xt / (1.0 - rate), 0.0)
    return call(parts, params, "__call__", xt, t, cond)


def pair_weights(
    config: DDRMConfig, score: jax.Array, weight: jax.Array, axis_name: str | None = None
) -> jax.Array:
    """f32[B] weights of a batch's examples, without a gradient.

    sigmoid_pow, the released code: sigmoid(s)^gamma. softmax, as the paper is read: exp(gamma s)
    over its mean in the (global) batch, so that the weights have mean 1.
    """
    score = jax.lax.stop_gradient(score)
    if config.reweight == "none" or config.gamma == 0.0:
        return jnp.ones_like(score)
    if config.reweight == "sigmoid_pow":
        return jnp.exp(config.gamma * jax.nn.log_sigmoid(score))
    logit = jnp.where(weight > 0, config.gamma * score, -jnp.inf)
    top, rows = jnp.max(logit), jnp.sum(weight)
    if axis_name is not None:
        top, rows = jax.lax.pmax(top, axis_name), jax.lax.psum(rows, axis_name)
    share = jnp.exp(logit - top)
    total = jnp.sum(weight * share)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    return share * rows / total


def betas_of(config: DDRMConfig) -> np.ndarray:
    """float64[T] of the schedule.

    Raises:
      ValueError: if a level leaves (0, 1).
    """
    return schedules.linear_var(
        config.num_steps,
        scale=config.noise_scale,
        noise_min=config.noise_min,
        noise_max=config.noise_max,
        beta_first=config.beta_fixed,
    )


def reverse_steps(config: DDRMConfig, levels: Levels) -> tuple[Steps, bool]:
    """The reverse path and whether its rows add noise."""
    steps, noisy = plan(config.sampler, levels)
    if config.extra_steps:
        steps = samplers.repeat_first(steps, config.extra_steps)
    return steps, noisy


def vectors(config: DDRMConfig, spec: DataSpec) -> State:
    """What the diffusion sees of the backbone, as numpy.

    Raises:
      ValueError: if arrays do not fit the data or one another.
    """
    ego = {"ego_users", "ego_items"} <= set(spec.exports)
    first = "ego_" if config.layers is not None and ego else ""
    users, items = (spec.exports[first + side] for side in ("users", "items"))
    for name, array, rows in (("users", users, spec.num_users), ("items", items, spec.num_items)):
        if array.ndim != 2 or len(array) != rows or not np.isfinite(array).all():
            raise ValueError(
                f"the backbone's {name} must be {rows} rows of finite numbers, one for each of "
                f"this data's {name}, got an array of shape {array.shape}"
            )
    if users.shape[1] != items.shape[1]:
        raise ValueError(
            f"the backbone's users have {users.shape[1]} columns and its items {items.shape[1]}; "
            "they must agree"
        )
    users, items = (np.asarray(part, np.float32) for part in (users, items))
    assert spec.user_items is not None  # the batcher of triplets looked
    sets = graph.item_sets(spec.user_items, spec.num_items)
    if config.layers:
        with jax.ensure_compile_time_eval():  # the loop builds models inside jit
            made, tables = jax.tree.map(
                jnp.asarray, (graph.make(sets, spec.num_items), Nodes(users, items))
            )
            nodes = graph.propagate(
                made, tables, config.layers, normalize=config.readout == "normalized_sum"
            )
        users, items = (np.asarray(part) for part in nodes)
    if config.embedding == "unit_norm":
        users, items = (
            part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
            for part in (users, items)
        )
    if config.embedding == "unit_variance":
        users, items = users / items.std(), items / items.std()
    return State(users, items, graph.means(sets, items))


SYSTEM = System(
    config=DDRMConfig,
    build=build,
    official=MATRIX_SCRIPT,
    official_differs=False,
    input=lambda config: TRIPLETS_BY_USER if config.triples == "user" else TRIPLETS,
    requires=(("users",), ("items",)),
)
