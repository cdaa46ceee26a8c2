"""BayesRec, of no paper: SASRec trained as the denoiser of a diffusion whose x_t it cannot ignore.

A catalogue is discrete, so the best estimate of x_0 has a closed form. Where x_0 is one of the rows
u_i, all of length 1, x_t = a_t x_0 + n_t eps, and a network says p(i | h) from the history alone,
Bayes' rule gives the rest, because |x_t - a_t u_i|^2 depends on i through x_t . u_i only:

    log p(i | h, x_t) = (s h + (a_t / n_t^2) x_t) . u_i + const

So x_t enters beside the history at the strength that its noise deserves, without a parameter: shown
the true x_0 the network finds it, shown noise it falls back on the history. What is trained is a
softmax over the catalogue at every place of a history and at a step of its own: at the noisiest one
that is SASRec's, at others the items near the target, which x_t points to, are told apart. A small
network on [x_t ; h ; t] may be added to what Bayes' rule says.

The encoder runs once a list; a reverse step is a few products of its width.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import LAST_WINDOW, WINDOWS
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, guidance, process, samplers, sphere
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain, Denoiser, Steps
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.network import by_row, call
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.models.sasrec import SASRecConfig, SASRecNet, asks, encoded, next_items
from jaxrec_diff.nets.dense import Dense
from jaxrec_diff.nets.embeddings import StepEmbedding
from jaxrec_diff.ops import rng


@dataclass(frozen=True, kw_only=True)
class BayesRecConfig:
    """Settings of BayesRec; those of the encoder are SASRec's."""

    width: int = 64
    """Size d of embeddings and of the network."""
    num_blocks: int = 2
    """Blocks."""
    num_heads: int = 1
    """Attention heads."""
    dropout_rate: float = 0.2
    """Dropout of the embeddings and of the blocks."""
    init_scale: float = 0.02
    """Deviation of initial item and position embeddings; of items only the direction counts."""
    windows: Literal["all", "last"] = "all"
    """Training examples, as SASRec's."""
    sharpness: float = 2.0
    """What the encoder's output is multiplied by, whose norm makes it about sqrt(d) long."""
    hidden: int = 0
    """Units of the network on [x_t ; h ; t] beside Bayes' rule; 0 has none."""
    num_steps: int = 32
    """Levels T of the straight path, x_t = (1 - t) x_0 + t eps at t = 1/T .. 1."""
    noise_share: float = 0.8
    """Share of training's places that are asked at the last level, where x_t says nothing; the
    others draw a level uniformly. 1 is a SASRec with rows of length 1."""
    target: Literal["learned", "stopped"] = "learned"
    """Whether a gradient reaches the rows of items through x_t."""
    drop_rate: float = 0.0
    """Share of places whose history is replaced by a learned row, for guidance."""
    guidance_weight: float = 0.0
    """w: (1 + w) of the history less w of that row."""
    estimate: Literal["direction", "mean"] = "direction"
    """x0_hat of a reverse step. direction: the unit vector that scores items alike; mean: the mean
    of all items under the softmax, which costs a product with the catalogue."""
    start: Literal["zero", "noise"] = "zero"
    """x_T: its mean, or a draw."""
    num_draws: int = 1
    """Chains a list, whose ends nominate together."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="one_step"))
    """The reverse path."""

    def __post_init__(self) -> None:
        encoder(self)
        validation.above("model.sharpness", self.sharpness, 0, 2.0)
        validation.at_least("model.hidden", self.hidden, 0)
        validation.at_least("model.num-steps", self.num_steps, 1)
        validation.within("model.noise-share", self.noise_share, 0, 1)
        validation.within("model.drop-rate", self.drop_rate, 0, 0.999)
        validation.at_least("model.num-draws", self.num_draws, 1)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        refuse_closed_form(self.sampler, "ddpm")
        if self.guidance_weight and not self.drop_rate:
            raise ValueError(
                f"model.guidance-weight={self.guidance_weight:g} needs a model.drop-rate above 0 "
                "in training; the nearest is 0.1"
            )


def encoder(config: BayesRecConfig) -> SASRecConfig:
    """SASRec under the same settings, which checks them."""
    return SASRecConfig(
        width=config.width, num_blocks=config.num_blocks, num_heads=config.num_heads,
        dropout_rate=config.dropout_rate, init_scale=config.init_scale, windows=config.windows,
    )  # fmt: skip


class BayesRecNet(SASRecNet):
    """SASRec whose rows of items have length 1 wherever they are read."""

    hidden: int = 0
    guided: bool = False

    def setup(self) -> None:
        super().setup()
        width = self.config.width
        if self.guided:
            self.null = self.param("null", nn.initializers.normal(1.0), (width,))
        if self.hidden:
            self.step = StepEmbedding(width)
            self.inner, self.outer = Dense(self.hidden), Dense(width)

    def embed(self, rows: jax.Array, real: jax.Array) -> jax.Array:
        return super().embed(sphere.normalize(rows), real)

    def everything(self, seq: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        h = self(seq)[:, 0]
        return self.beside(h, h, jnp.zeros(len(h), jnp.int32)) if self.hidden else h

    def beside(self, h: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
        """What is added to Bayes' rule: f32[..., D] twice, i32[...] -> f32[..., D].

        `xt` comes scaled to a variance of 1 a coordinate.
        """
        tau = jnp.broadcast_to(self.step(t), xt.shape)
        both = jnp.concatenate([jnp.broadcast_to(h, xt.shape), xt, tau], axis=-1)
        return self.outer(nn.silu(self.inner(both)))


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: BayesRecConfig
    net: BayesRecNet
    tables: Forward  # of the forward process
    gain: jax.Array  # f32[T], a / n^2
    size: jax.Array  # f32[T], the deviation of a coordinate of x_t
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None


class State(NamedTuple):
    """No array is kept but what an evaluation works out once."""

    rows: jax.Array | None = None  # f32[R, D] of length 1, of `precompute`


def parts(config: BayesRecConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network and the tables; arguments as of `build`."""
    net = BayesRecNet(
        num_items=spec.num_items, max_len=spec.max_len, config=encoder(config),
        hidden=config.hidden, guided=config.drop_rate > 0,
    )  # fmt: skip
    levels = forward.straight(config.num_steps)
    gain = levels.signal / levels.noise**2
    size = np.sqrt(levels.signal**2 / config.width + levels.noise**2)
    steps, noisy = plan(config.sampler, levels)
    tables = forward.tables(levels)
    return Parts(config, net, tables, jnp.asarray(gain), jnp.asarray(size), steps, noisy, axis_name)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and an empty state."""
    seq = types.first_length(example.seq)
    return Variables(parts.net.init(key, seq, method="everything")["params"], State())


def loss(
    parts: Parts, params: Any, state: State, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """The next item at every place, given the history and a noised look at the answer.

        L = -log softmax(U (s h + (a_t / n_t^2) x_t))_j,  x_t = a_t u_j + n_t eps

    Args:
      parts: from `parts`.
      params: of `init`.
      state: stays as it is.
      key: of dropout, the steps and the noise, each row's own.
      example: B histories with their targets, of one or of several lengths.

    Returns:
      f32[] the mean over places that are asked, and `Aux` with the metric "loss".

    >>> made = parts(BayesRecConfig(width=4), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss'])
    """
    keys = rng.row_keys(key, example.row_id)
    first = jnp.zeros_like(example.row_id) if example.first is None else example.first
    rows = (example.target, example.weight, first, keys)
    points, target, weight = types.over_lengths(
        partial(_everywhere, parts, params), example.seq, *rows
    )
    classes = 1, parts.net.num_items + 1
    table = sphere.normalize(params["items"])
    each = losses.full_softmax(points, table, target, classes=classes)
    value = losses.weighted_mean(each, weight, parts.axis_name)
    return value, Aux(state, {"loss": value})


def _everywhere(parts: Parts, params: Any, seq, target, weight, first, keys):
    """Points f32[N, D], targets and weights of all places of histories of one length."""
    config = parts.config
    k_net, k_t, k_pure, k_eps, k_keep = rng.split(keys, 5)
    h = by_row(partial(call, parts, params, "__call__"), k_net, seq)
    asked, place = next_items(seq, target), seq.shape[1:]

    def drawn(key, k_pure):
        t = jax.random.randint(key, place, 0, config.num_steps)
        pure = jax.random.bernoulli(k_pure, config.noise_share, place)
        return jnp.where(pure, config.num_steps - 1, t)

    t = jax.vmap(drawn)(k_t, k_pure).reshape(-1)
    x0 = sphere.normalize(params["items"][asked])
    if config.target == "stopped":
        x0 = jax.lax.stop_gradient(x0)
    eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(k_eps)
    if config.drop_rate:
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - config.drop_rate, place))(k_keep)
        h = jnp.where(keep[..., None], h, params["null"])
    flat = [leaf.reshape(-1, leaf.shape[-1]) for leaf in (h, x0, eps)]
    xt = forward.q_sample(parts.tables, flat[1], t, flat[2])
    weight = asks(seq, first) * weight[:, None]
    return point(parts, params, flat[0], xt, t), asked.reshape(-1), weight.reshape(-1)


def point(parts: Parts, params: Any, h: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
    """What scores items after x_t has been seen, s h + (a / n^2) x_t: f32[..., D].

    Args:
      parts: from `parts`.
      params: of `init`.
      h: f32[B, ..., D] of histories.
      xt: f32[B, ..., D].
      t: i32[] or i32[B].
    """
    out = parts.config.sharpness * h + forward.extract(parts.gain, t, xt) * xt
    if parts.config.hidden:
        scaled = xt / forward.extract(parts.size, t, xt)
        out = out + call(parts, params, "beside", h, scaled, t)
    return out


def chain(parts: Parts, params: Any, state: State, key: jax.Array, query: SequenceQuery) -> Chain:
    """The reverse process of every query, f32[B, D] or f32[B, S, D] of S draws."""
    config = parts.config
    k_start, k_steps = jax.random.split(key)
    h = encoded(parts, params, query)
    shape = _shape(config)
    if len(shape) > 1:
        h = h[:, None]
    start = jnp.zeros((h.shape[0], *shape), h.dtype)
    if config.start == "noise":
        start = rng.normal(k_start, query.row_id, shape)
    draw = samplers.draw_rows(k_steps, query.row_id, shape) if parts.noisy else None
    return Chain(parts.steps, denoiser(parts, params, state, h), start, draw)


def denoiser(parts: Parts, params: Any, state: State, h: jax.Array) -> Denoiser:
    """(x_t, t) -> x0_hat of histories read as f32[B, ..., D]."""
    config = parts.config

    def towards(h):
        return lambda xt, t: point(parts, params, h, xt, t)

    find = towards(h)
    if config.guidance_weight:
        null = towards(params["null"])
        find = guidance.classifier_free(find, null, config.guidance_weight)

    def denoise(xt, t):
        found = find(xt, t)
        unit = sphere.normalize(found)
        if config.estimate == "direction":
            return unit
        rows = table(params, state)
        item = jnp.arange(len(rows))
        logits = jnp.where((item > 0) & (item <= parts.net.num_items), found @ rows.T, -1e30)
        mean = jax.nn.softmax(logits) @ rows
        return jnp.where(t == parts.steps.t[-1], unit, mean)

    return denoise


def sample(
    parts: Parts, params: Any, state: State, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Ends of `chain`."""
    return process.run(chain(parts, params, state, key, query))


def noised(
    parts: Parts, params: Any, state: State, key: jax.Array, query: SequenceQuery,
    items: jax.Array, t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t of the first of the answers i32[B, R], of every draw where there are several."""
    x0 = table(params, state)[items[:, 0]]
    shape = _shape(parts.config)
    if len(shape) > 1:
        x0 = jnp.broadcast_to(x0[:, None], (x0.shape[0], *shape))
    return forward.at_step(parts.tables, key, query.row_id, x0, t)


def table(params: Any, state: State) -> jax.Array:
    """The rows of items at length 1, f32[R, D]."""
    return sphere.normalize(params["items"]) if state.rows is None else state.rows


def precompute(parts: Parts, params: Any, state: State) -> State:
    """The state with `table`."""
    del parts
    return state._replace(rows=table(params, state))


def head(parts: Parts, params: Any, state: State) -> Head:
    """The items' rows."""
    return Head(table(params, state), first=1, items=parts.net.num_items)


def _shape(config: BayesRecConfig) -> tuple[int, ...]:
    return (config.width,) if config.num_draws == 1 else (config.num_draws, config.width)


def build(
    config: BayesRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """BayesRec as pure functions.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: both rank alike.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    # At the last level Bayes' rule does not look at x_T, so one call there reads no noise either.
    blind = not config.hidden and made.steps.t.tolist() == [config.num_steps - 1]
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(noised, made),
        deterministic=blind or (config.start == "zero" and not made.noisy),
        precompute=partial(precompute, made),
    )


SYSTEM = System(
    config=BayesRecConfig,
    build=build,
    official=HISTORIES_COMPETE,
    official_differs=False,
    input=lambda config: LAST_WINDOW if config.windows == "last" else WINDOWS,
    accepts_buckets=lambda config: True,
    item_table=ItemTable(lambda config: config.init_scale),
)
