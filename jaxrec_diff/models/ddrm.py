"""DDRM: denoising the embeddings of a finished recommender (arXiv:2401.06982).

A backbone (MF, LightGCN, SGL) gives every user and item a vector, which stays as it is. Two
networks learn to restore noised user and item vectors, each guided by the other side's clean one.
To recommend, the mean of the vectors of a user's items is noised and walked back by the item
network, guided by the user's vector; the catalogue is ranked by inner product with where it ends.

Where the paper and the released code differ the default follows the code, but for the reverse
steps: there are T, not 1.25 T.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.triplets import TRIPLETS, TRIPLETS_BY_USER
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Levels
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.protocols import MATRIX_SCRIPT, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.guided import Activation, GuidedMLP
from jaxrec_diff.ops import graph, rng
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
    """The backbone's vectors; no gradient reaches them. numpy at first, then jax arrays."""

    users: Any  # f32[U, D]
    items: Any  # f32[I, D]
    means: Any  # f32[U, D] of each user's training items


def build(
    config: DDRMConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DDRM as pure functions.

    Its variants are the two controls without which its figures say little: "backbone", the user's
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
    given = vectors(config, spec)
    width = given.items.shape[1]
    net = GuidedMLP(width, config.dims, config.activation)
    levels = forward.levels(betas_of(config))
    tables = forward.tables(levels)
    steps, noisy = reverse_steps(config, levels)

    def call(params, side, method, *args):
        return net.apply({"params": params[side]}, *args, method=method)

    def init(key, example):
        del example
        t, row = jnp.zeros(1, jnp.int32), jnp.zeros((1, width))
        sides = zip(("user", "item"), jax.random.split(key), strict=True)
        params = {side: net.init(k, row, t, row)["params"] for side, k in sides}
        return Variables(params, State(*(jnp.asarray(part) for part in given)))

    def restore(params, side, key, clean, t, cond, row):
        k_eps, k_drop = jax.random.split(key)
        xt = forward.q_sample(tables, clean, t, rng.normal(k_eps, row, (width,)))
        if config.dropout_rate > 0:
            kept = rng.bernoulli(k_drop, row, 1.0 - config.dropout_rate, (width,))
            xt = jnp.where(kept, xt / (1.0 - config.dropout_rate), 0.0)
        return call(params, side, "__call__", xt, t, cond)

    def loss(params, state, key, example):
        k_t, k_user, k_item = jax.random.split(key, 3)
        row = example.row_id
        user = state.users[example.user]
        item, other = state.items[example.positive - 1], state.items[example.negative - 1]
        t = timesteps.uniform(k_t, row, config.num_steps)
        user_hat = restore(params, "user", k_user, user, t, item, row)
        item_hat = restore(params, "item", k_item, item, t, user, row)
        score = jnp.sum(user_hat * item_hat, axis=-1)
        ranked = losses.bpr(score, jnp.sum(user_hat * other, axis=-1))
        restored = 0.5 * (losses.mse(user_hat, user) + losses.mse(item_hat, item))
        each = (1.0 - config.reconstruction) * ranked + config.reconstruction * restored
        each = each * pair_weights(config, score, example.weight, axis_name)
        value = losses.weighted_mean(each, example.weight, axis_name)
        parts = {"bpr": ranked, "reconstruction": restored}
        metrics = {k: losses.weighted_mean(v, example.weight, axis_name) for k, v in parts.items()}
        return value, Aux(state, metrics | {"loss": value})

    def chain(params, state, key, query):
        k_start, k_steps = jax.random.split(key)
        x = state.means[query.user]
        if config.start_noise:
            eps = rng.normal(k_start, query.row_id, (width,))
            x = samplers.warm_start(tables, x, config.num_steps, eps)
        # the user's vector guides every step alike, so its part of the first layer is hoisted
        guide = call(params, "item", "guide", state.users[query.user])
        draw = samplers.draw_rows(k_steps, query.row_id, (width,)) if noisy else None
        return Chain(steps, lambda xt, t: call(params, "item", "guided", xt, t, guide), x, draw)

    def sample(params, state, key, query):
        return process.run(chain(params, state, key, query))

    def head(params, state):
        del params
        return Head(state.items)

    variants = {
        "backbone": lambda params, state, query: state.users[query.user],
        "mean_item": lambda params, state, query: state.means[query.user],
    }
    fixed = not (noisy or config.start_noise)
    return Model(init, loss, sample, head, chain, deterministic=fixed, variants=variants)


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
    input=lambda config: TRIPLETS_BY_USER if config.triples == "user" else TRIPLETS,
    requires=(("users",), ("items",)),
)
