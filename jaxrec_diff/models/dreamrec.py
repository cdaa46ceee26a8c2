"""DreamRec: classifier-free guided diffusion of the next item (arXiv:2310.20453).

The history becomes a condition h; a diffusion on the *embedding of the next item*, conditioned on
h, is run backwards from noise to an "oracle item"; the catalogue is ranked by inner product with
it. There are no negatives and no softmax.

Where the paper and the released code differ the default follows the code, except that dropout is
off and the padding row is no candidate at evaluation; `protocol="official"` restores both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import closed_form as diffusion_closed_form
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion import guidance as diffusion_guidance
from jaxrec_diff.diffusion.config import SamplerConfig, check_diffusion, plan
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables, head_of
from jaxrec_diff.models.network import by_row, call
from jaxrec_diff.models.protocols import DREAMREC_SCRIPT, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.dense import Dense
from jaxrec_diff.nets.embeddings import StepEmbedding
from jaxrec_diff.nets.encoders import HistoryBlock
from jaxrec_diff.ops import filled, rng, vectors


@dataclass(frozen=True, kw_only=True)
class DreamRecConfig:
    """Settings of DreamRec; the defaults are the paper's on Zhihu."""

    width: int = 64
    """Size d of embeddings and of the network."""
    num_heads: int = 1
    """Attention heads of the history encoder."""
    dropout_rate: float = 0.1
    """Dropout of the history encoder."""
    denoiser: Literal["mlp1", "mlp2"] = "mlp1"
    """mlp1: one affine layer, as in every published run; mlp2: a hidden layer of 2d."""
    schedule: Literal["linear", "exp", "cosine_clip", "sqrt"] = "linear"
    """Noise schedule; cosine_clip is the code's "cosine"."""
    num_steps: int = 500
    """Diffusion steps T."""
    beta_start: float = 1e-4
    """First beta of the linear schedule."""
    beta_stop: float = 2e-2
    """Last beta of the linear schedule; it is not rescaled with T."""
    drop_rate: float = 0.1
    """Chance that training drops the condition (p_u of the paper)."""
    guidance_weight: float = 4.0
    """w in (1 + w) f(x, h) - w f(x, null)."""
    loss: Literal["l2", "l1", "huber"] = "l2"
    """Distance between the target's embedding and its estimate."""
    item_embedding: Literal["learned", "frozen", "unit_norm"] = "learned"
    """learned: the gradient flows into the target's row, the paper's way, which lets all trained
    rows shrink to a point; frozen: it does not; unit_norm: targets are rows scaled to length
    sqrt(d)."""
    score: Literal["ip", "cos"] = "ip"
    """Inner product with raw or with normalised rows."""
    guidance: Literal["folded", "two_calls"] = "folded"
    """folded: one call with the condition (1 + w) h - w null, exact for mlp1 (for mlp2 the hidden
    units are combined); two_calls: the plain form."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """The reverse path."""

    def __post_init__(self) -> None:
        validation.at_least("model.width", self.width, 4)
        if self.width % (2 * self.num_heads):
            raise ValueError(
                f"model.width must be a multiple of {2 * self.num_heads} (two halves, "
                f"{self.num_heads} heads), got {self.width}"
            )
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.within("model.drop-rate", self.drop_rate, 0, 1)
        validation.finite("model.guidance-weight", self.guidance_weight)
        check_diffusion(self.num_steps, self.beta_start, self.beta_stop, self.sampler)
        if self.sampler.kind == "closed_form" and self.denoiser != "mlp1":
            raise ValueError(
                f"model.sampler.kind=closed_form needs the affine denoiser mlp1, got "
                f"model.denoiser={self.denoiser}"
            )


class DreamRecNet(nn.Module):
    """All parameters of DreamRec; row j of `items` is item j, row 0 padding."""

    num_items: int
    max_len: int
    config: DreamRecConfig
    encoder: Callable[..., nn.Module] = HistoryBlock  # width, heads, dropout rate -> the block

    def setup(self) -> None:
        width = self.config.width
        normal = nn.initializers.normal(1.0)
        self.items = self.param("items", filled.drawn(normal), (self.num_items + 1, width))
        self.null = self.param("null", normal, (1, width))
        self.positions = self.param("positions", normal, (self.max_len, width))
        self.block = self.encoder(width, self.config.num_heads, self.config.dropout_rate)
        self.step = StepEmbedding(width)
        self.inner = Dense(2 * width) if self.config.denoiser == "mlp2" else None
        self.outer = Dense(width)

    def __call__(self, seq: jax.Array, target: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        cond = self.encode(seq)
        return self.denoise(self.embed(target), jnp.zeros(target.shape, jnp.int32), cond)

    def rows(self, ids: jax.Array | None = None) -> jax.Array:
        """f32[..., D] the embeddings as the diffusion sees them, of all items by default."""
        items = self.items if ids is None else self.items[ids]
        if self.config.item_embedding == "unit_norm":
            length = jnp.linalg.norm(items, axis=-1, keepdims=True)
            # sqrt(d): unit variance a coordinate, like the noise that is added to it.
            return items * (self.config.width**0.5 / jnp.maximum(length, 1e-12))
        return items

    def embed(self, ids: jax.Array) -> jax.Array:
        """i32[B] -> f32[B, D] the clean point x_0 of an item."""
        rows = self.rows(ids)
        return jax.lax.stop_gradient(rows) if self.config.item_embedding == "frozen" else rows

    def encode(self, seq: jax.Array, deterministic: bool = True) -> jax.Array:
        """i32[B, L] -> f32[B, D] the condition h."""
        # Places count from the left: the oldest shown item has position 0.
        x = self.rows(seq) + self.positions[: seq.shape[-1]]
        return self.block(x, seq > 0, deterministic=deterministic)

    def denoise(self, xt: jax.Array, t: jax.Array, cond: jax.Array) -> jax.Array:
        """f32[B, D], i32[B], f32[B, D] -> f32[B, D]: x_0 from [x_t ; h ; tau(t)]."""
        joined = jnp.concatenate([xt, cond, self.step(t)], axis=-1)
        if self.inner is not None:
            joined = nn.gelu(self.inner(joined), approximate=False)
        return self.outer(joined)

    def embed_steps(self, t: jax.Array) -> jax.Array:
        return self.step(t)


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DreamRecConfig
    net: DreamRecNet
    tables: Forward  # of the forward process
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None
    protocol: Protocol


def parts(
    config: DreamRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Parts:
    """The network and the tables of DreamRec; arguments as of `build`."""
    net = DreamRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config)
    levels = forward.levels(_betas(config))
    steps, noisy = plan(config.sampler, levels)
    return Parts(config, net, forward.tables(levels), steps, noisy, axis_name, protocol)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and no state."""
    return Variables(parts.net.init(key, example.seq, example.target)["params"], state=())


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """The distance of x0_hat from the target's embedding; DreamRec, Algorithm 1.

        L = |x_0 - f(x_t, h, t)|^2, h replaced by the null row with chance p_u

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), and stays so.
      key: of the steps, the noise, dropout and the conditions dropped, each row's own.
      example: B histories with their targets.

    Returns:
      f32[] the weighted mean, and `Aux` with the metric "loss".

    >>> made = parts(DreamRecConfig(width=4, num_steps=3), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss'])
    """
    distance = {"l2": losses.mse, "l1": losses.l1, "huber": losses.huber}[parts.config.loss]
    each = distance(*estimate(parts, params, key, example))
    value = losses.weighted_mean(each, example.weight, parts.axis_name)
    return value, Aux(state, {"loss": value})


def estimate(
    parts: Parts, params: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, jax.Array]:
    """x0_hat of noised targets under training's dropout, and x_0: f32[B, D] each."""
    k_t, k_eps, k_drop, k_encoder = jax.random.split(key, 4)
    x0 = call(parts, params, "embed", example.target)
    t = timesteps.uniform(k_t, example.row_id, parts.config.num_steps)
    cond = training_condition(parts, params, k_drop, k_encoder, example)
    return restored(parts, params, k_eps, example.row_id, x0, t, cond), x0


def training_condition(
    parts: Parts, params: Any, k_drop: jax.Array, k_encoder: jax.Array, example: Sequences
) -> jax.Array:
    """h under dropout, in some rows replaced by the null row: f32[B, D]."""
    cond = encode_with_dropout(parts, params, k_encoder, example.seq, example.row_id)
    keep = rng.bernoulli(k_drop, example.row_id, 1.0 - parts.config.drop_rate)
    return diffusion_guidance.drop(keep, cond, params["null"])


def restored(
    parts: Parts,
    params: Any,
    key: jax.Array,
    row_id: jax.Array,
    x0: jax.Array,
    t: jax.Array,
    cond: jax.Array,
) -> jax.Array:
    """x0_hat of points f32[B, D] that are noised to steps t, i32[B]: f32[B, D]."""
    xt = forward.q_sample(parts.tables, x0, t, rng.normal(key, row_id, x0.shape[1:]))
    return call(parts, params, "denoise", xt, t, cond)


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The guided reverse process of every query, f32[B, D], from noise to the oracle item."""
    del state
    k_start, k_steps, cond = _condition(parts, params, key, query)
    start = rng.normal(k_start, query.row_id, cond.shape[1:])
    draw = samplers.draw_rows(k_steps, query.row_id, cond.shape[1:]) if parts.noisy else None
    denoise = folded if parts.config.guidance == "folded" else two_calls
    return Chain(parts.steps, denoise(parts.net, params, cond), start, draw)


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Oracle items f32[B, D]: ends of `chain`, or draws from their law in closed form."""
    if parts.config.sampler.kind != "closed_form":
        return process.run(chain(parts, params, state, key, query))
    k_start, _, cond = _condition(parts, params, key, query)
    z = rng.normal(k_start, query.row_id, cond.shape[1:])
    scale = parts.config.sampler.temperature > 0
    return closed_form(parts.net, params, parts.steps, cond, z * scale)


def noised(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery, items: jax.Array,
    t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t f32[B, D] of the first of the answers i32[B, R]: where a perfect chain would stand."""
    del state
    x0 = call(parts, params, "rows", items[:, 0])
    return forward.at_step(parts.tables, key, query.row_id, x0, t)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows; under the official protocol the padding row competes as an item I + 1."""
    del state
    rows = call(parts, params, "rows")
    if parts.config.score == "cos":
        rows = vectors.unit(rows)
    return head_of(rows, parts.net.num_items, parts.protocol)


def build(
    config: DreamRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DreamRec as pure functions.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: "official" keeps dropout on at evaluation and lets the padding row compete, as an
        item I + 1 that nobody wants: the released script does both.

    Raises:
      ValueError: on a schedule outside (0, 1].
    """
    made = parts(config, spec, axis_name=axis_name, protocol=protocol)
    mean_only = config.sampler.kind == "closed_form" and config.sampler.temperature == 0
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(noised, made),
        deterministic=mean_only and (protocol != "official" or config.dropout_rate == 0),
    )


def encode_with_dropout(
    parts: Parts, params: Any, key: jax.Array, seq: jax.Array, row: jax.Array
) -> jax.Array:
    """i32[B, L] -> f32[B, D] the condition under dropout, each row's own."""
    return by_row(partial(call, parts, params, "encode"), rng.row_keys(key, row), seq)


def _condition(parts: Parts, params: Any, key: jax.Array, query: SequenceQuery):
    """Keys of the start and of the steps, and the condition f32[B, D]."""
    k_start, k_steps, k_encoder = jax.random.split(key, 3)
    if parts.protocol == "official":
        cond = encode_with_dropout(parts, params, k_encoder, query.seq, query.row_id)
    else:
        cond = call(parts, params, "encode", query.seq)
    return k_start, k_steps, cond


def two_calls(net: DreamRecNet, params, cond: jax.Array):
    """The guided denoiser as the paper writes it: two calls of the network a step."""

    def conditioned(cond):
        def denoise(xt, t):
            step = jnp.broadcast_to(t, xt.shape[:1])
            return net.apply({"params": params}, xt, step, cond, method="denoise")

        return denoise

    null = jnp.broadcast_to(params["null"], cond.shape)
    weight = net.config.guidance_weight
    return diffusion_guidance.classifier_free(conditioned(cond), conditioned(null), weight)


def folded(net: DreamRecNet, params, cond: jax.Array, visited: jax.Array | None = None):
    """The same function of (x_t, t) with everything that does not depend on x_t hoisted.

    The steps are embedded once a path: those visited, falling i32[N], or all of the schedule.
    mlp1 is affine, so guidance moves into the condition, (1 + w) h - w null, and a step costs one
    [B, D] x [D, D] product. mlp2 shares the product with x_t between both branches and combines
    them on the hidden units, because its output layer is linear.
    """
    weight = net.config.guidance_weight
    steps = jnp.arange(net.config.num_steps) if visited is None else visited[::-1]
    w_x, w_h, shifts = first_layer(net, params, steps)

    def shift(t):
        return shifts[t if visited is None else jnp.searchsorted(steps, t, method="compare_all")]

    if net.config.denoiser == "mlp1":
        user = guided(net, params, cond)
        return lambda xt, t: xt @ w_x + user + shift(t)

    out, with_cond, without = params["outer"], cond @ w_h, params["null"] @ w_h

    def denoise(xt, t):
        shared = xt @ w_x + shift(t)
        kept = nn.gelu(shared + with_cond, approximate=False)
        dropped = nn.gelu(shared + without, approximate=False)
        hidden = (1.0 + weight) * kept - weight * dropped
        return hidden @ out["kernel"] + out["bias"]

    return denoise


def closed_form(net: DreamRecNet, params, steps: Steps, cond: jax.Array, z: jax.Array) -> jax.Array:
    """A draw from the law of the whole reverse chain in one product: x = G u + g + C z.

    With mlp1 every step is affine, so x_0 given h is normal with a covariance that all users
    share. `z` = 0 gives the mean.
    """
    w_x, _, shifts = first_layer(net, params, steps.t)
    law = diffusion_closed_form.closed_form(steps, w_x, shifts)
    return diffusion_closed_form.apply(law, guided(net, params, cond), z)


def first_layer(
    net: DreamRecNet, params: Any, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The layer on [x ; h ; tau(t)] in parts, x W_x + h W_h + s_t; all of the network if mlp1.

    Args:
      net: the network.
      params: its parameters.
      t: i32[N] steps.

    Returns:
      W_x and W_h f32[D, F], and s_t = tau(t) W_t + b f32[N, F]; F is D if mlp1.
    """
    width = net.config.width
    tau: Any = net.apply({"params": params}, t, method="embed_steps")
    first = params["inner" if net.config.denoiser == "mlp2" else "outer"]
    w_x, w_h, w_t = jnp.split(first["kernel"], [width, 2 * width])
    return w_x, w_h, tau @ w_t + first["bias"]


def guided(net: DreamRecNet, params: Any, cond: jax.Array) -> jax.Array:
    """What conditions add to every guided estimate of mlp1: ((1 + w) h - w null) W_h, f32[B, D]."""
    width, weight = net.config.width, net.config.guidance_weight
    w_h = params["outer"]["kernel"][width : 2 * width]
    return ((1.0 + weight) * cond - weight * params["null"]) @ w_h


def _betas(config: DreamRecConfig):
    options = {}
    if config.schedule == "linear":
        options = {"start": config.beta_start, "stop": config.beta_stop}
    return schedules.named(config.schedule, config.num_steps, **options)


SYSTEM = System(
    config=DreamRecConfig, build=build, official=DREAMREC_SCRIPT, input=SEQUENCES,
    item_table=ItemTable(lambda config: 1.0),
)  # fmt: skip
