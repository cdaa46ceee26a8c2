"""DiffuASR: items that could have come before a history, by diffusion (arXiv:2309.12858).

A point is the M x d embedding matrix of the M items before a history S; the network predicts its
noise from it, the step and the mean embedding of S. It recommends nothing: its M points a user are
rounded to items, and a recommender is trained on the longer sequences.

By default items are the rows of a recommender trained on the raw sequences, frozen and scaled to
unit variance. With rows trained by the noise loss, as released, the cheapest way down is to shrink
them: x_t then tells the noise whatever was learnt. `items="trained"` reports the share of the
initial spread that is left (`spread_left`), and a run warns below one half.

The released code differs from the paper in its guidance; `compat="official"` does what it does:
the classifier's term has the opposite sign and 0.01 in place of sqrt(1 - abar_t), both guidances
act in the training loss as well, and no condition is ever dropped. Its first convolution has 8
channels for M = 10 items and loses a fifth of x_t, so that no loss below (M - 8) / M can be
reached and that part of a sample is amplified noise.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.prefixes import PREFIXES
from jaxrec_diff.batches.types import Prefixes, SequenceQuery
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion import guidance as diffusion_guidance
from jaxrec_diff.diffusion.config import SamplerConfig, plan
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain, Denoiser, Steps
from jaxrec_diff.models import diffuasr_guidance, diffuasr_rows
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.diffuasr_check import check
from jaxrec_diff.models.diffuasr_guidance import (
    Classifier,
    LogProb,
    Question,
    extrapolated,
    released,
)
from jaxrec_diff.models.diffuasr_rows import Affine, Table, pooled
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.readers import Reader
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.plain import PlainDenoiser
from jaxrec_diff.nets.sunet import SUNet
from jaxrec_diff.ops import filled, rng, vectors

_CPU_ROWS = 64  # users walked down at once on a CPU: what one layer holds stays in the caches


@dataclass(frozen=True, kw_only=True)
class DiffuASRConfig:
    """Settings of DiffuASR; `data.prefix-len` is M."""

    channels: int = 32
    """Channels of SU-Net's first level, a multiple of 8; the released code has 8."""
    num_blocks: int = 2
    """Blocks a level of SU-Net."""
    dropout_rate: float = 0.1
    """Dropout inside SU-Net."""
    denoiser: Literal["sunet", "mlp"] = "sunet"
    """mlp: a plain network on the flat matrix, for comparison."""
    mlp_hidden: int = 4096
    """Units of its two hidden layers; 4096 costs what SU-Net of 32 channels costs (M = 10, d = 64).
    """
    predict: Literal["eps", "x0", "v"] = "eps"
    """What the network predicts."""
    input_skip: bool = False
    """Adds x_t to SU-Net's output."""
    schedule: Literal["linear_scaled", "quad", "sigmoid", "cosine_clip"] = "linear_scaled"
    """Noise schedule; betas of the first three are scaled by 1000 / T."""
    num_steps: int = 1000
    """Diffusion steps T."""
    items: Literal["frozen", "trained"] = "frozen"
    """frozen: rows of a trained recommender, standardised; trained: rows from N(0, 1), learnt with
    the rest, of which eval.metric=loss picks those that shrank the most."""
    width: int = 64
    """Size d of trained rows; frozen ones have the recommender's."""
    rounding_weight: float = 0.0
    """Weight of a cross entropy of x0_hat over items (cosines / 0.1), which keeps trained rows
    apart; trained rows only."""
    guidance: Literal["none", "classifier_free", "classifier"] = "classifier_free"
    """classifier_free: the condition is dropped in training and extrapolated in sampling;
    classifier: what the trained recommender thinks of S behind the points is raised."""
    guidance_weight: float = 1.0
    """gamma."""
    drop_rate: float = 0.1
    """Chance that training drops the condition (classifier_free only)."""
    classifier_target: Question = "item"
    """What is raised of the recommender's answer f to M points. item: log sigmoid of the first
    item's score; softmax: its log softmax over the catalogue; all: the mean of log sigmoid over the
    items of S; bpr: the same of each score minus that of an item drawn from outside S; cond: minus
    the mean square of f - c, c the pooled rows of S. The released code lacks softmax."""
    classifier_on: Literal["x0_hat", "xt"] = "x0_hat"
    """Where the recommender, which was trained on clean rows, is asked."""
    pool: Literal["mean", "sum"] = "mean"
    """The condition from the rows of S; the released code sums."""
    compat: Literal["paper", "official"] = "paper"
    """official: guidance as released (see the module)."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="ddim", steps=20))
    """The reverse path."""

    def __post_init__(self) -> None:
        if self.channels < 8 or self.channels % 8:
            near = max(8, round(self.channels / 8) * 8)
            raise ValueError(
                f"model.channels must be a multiple of 8, got {self.channels}; {near} is one"
            )
        validation.at_least("model.num-blocks", self.num_blocks, 1)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.at_least("model.mlp-hidden", self.mlp_hidden, 1)
        # at 20 the last scaled beta is 1, and nothing of x_0 is left in x_t to divide by
        validation.at_least("model.num-steps", self.num_steps, 21)
        validation.at_least("model.width", self.width, 2)
        validation.at_least("model.rounding-weight", self.rounding_weight, 0)
        validation.finite("model.guidance-weight", self.guidance_weight)
        validation.within("model.drop-rate", self.drop_rate, 0, 1)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        if self.items == "frozen" and self.rounding_weight > 0:
            raise ValueError(
                f"model.rounding-weight={self.rounding_weight:g} needs rows that are trained "
                "(model.items=trained); frozen ones take 0"
            )
        if self.sampler.kind in ("one_step", "closed_form"):
            raise ValueError(
                f"model.sampler.kind={self.sampler.kind} does not sample matrices; ddim does"
            )


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DiffuASRConfig
    net: nn.Module
    frozen: Table | None  # rows of a trained recommender; None where rows are trained
    classifier: Classifier | None
    reader: Reader | None  # what the classifier asks
    num_items: int
    shape: tuple[int, int]  # M, D of a point
    tables: Forward  # of the forward process
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None


def parts(config: DiffuASRConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network, the rows and the tables of DiffuASR; arguments as of `build`.

    Raises:
      ValueError: if the settings cannot work with what is known (`check`).
    """
    check(config, spec, frozenset(spec.exports) | ({"reader"} if spec.reader else set()))
    frozen = diffuasr_rows.standardised(spec) if config.items == "frozen" else None
    width = config.width if frozen is None else frozen.rows.shape[1]
    classifier, reader = None, spec.reader if config.guidance == "classifier" else None
    if reader is not None:
        back = Affine(0.0, 1.0) if frozen is None else frozen.back
        question = config.classifier_target
        classifier = Classifier(reader.read, back, question, config.pool, spec.num_items)
    betas = schedules.validate(schedules.named(config.schedule, config.num_steps, **_ends(config)))
    levels = forward.levels(betas)
    steps, noisy = plan(config.sampler, levels)
    shape, tables = (spec.prefix_len, width), forward.tables(levels)
    known = (frozen, classifier, reader, spec.num_items)
    return Parts(config, _network(config), *known, shape, tables, steps, noisy, axis_name)


def init(parts: Parts, key: jax.Array, example: Prefixes) -> Variables:
    """Parameters; in the state frozen rows, or the spread that trained ones start with, and the
    recommender that guides."""
    del example
    k_net, k_items, k_null = jax.random.split(key, 3)
    width = parts.shape[1]
    x = jnp.zeros((1, *parts.shape))
    params = {"net": parts.net.init(k_net, x, jnp.zeros(1, jnp.int32), x[:, 0])["params"]}
    if parts.config.guidance == "classifier_free":
        params["null"] = jax.random.normal(k_null, (width,))
    state: dict[str, Any] = {}
    if parts.frozen is None:
        items = jax.random.normal(k_items, (parts.num_items + 1, width))
        params["items"] = filled.padded(items)
        state["spread"] = diffuasr_rows.spread(params["items"], parts.num_items)
    else:
        state["items"] = filled.padded(jnp.asarray(parts.frozen.rows))
    if parts.reader is not None:
        state["reader"] = jax.tree.map(jnp.asarray, parts.reader.params)
    return Variables(params, state)


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Prefixes
) -> tuple[jax.Array, Aux]:
    """The squared error of the predicted noise (or x_0, or v); arXiv:2309.12858, training.

        L = |eps - f(x_t, t, c)|^2 + rounding_weight rounding,  c the pooled rows of S

    Args:
      parts: from `parts`.
      params: of `init`.
      state: of `init`, and stays so.
      key: of the steps, the noise, the conditions dropped, dropout and the classifier's draws, each
        row's own.
      example: the M items before B histories, and the histories.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss" and "noise", "rounding" where it
      has a weight and "spread_left" where rows are trained.

    >>> config = DiffuASRConfig(denoiser="mlp", mlp_hidden=4, items="trained", width=4)
    >>> made = parts(config, DataSpec(0, num_items=5, max_len=2, prefix_len=1))
    >>> prefix, seq = jnp.array([[1], [2]]), jnp.array([[3, 4], [5, 0]])
    >>> example = Prefixes(prefix, seq, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss', 'noise', 'spread_left'])
    """
    config, row = parts.config, example.row_id
    k_t, k_eps, k_drop, k_net, k_other = jax.random.split(key, 5)
    rows = item_rows(parts, params, state)
    x0, cond = rows[example.prefix], pooled(config.pool, rows[example.seq], example.seq)
    t = timesteps.antithetic_rows(k_t, row, config.num_steps)
    eps = rng.normal(k_eps, row, x0.shape[1:])
    xt = forward.q_sample(parts.tables, x0, t, eps)
    keys = rng.row_keys(k_net, row) if config.dropout_rate > 0 else None
    network = partial(predict, parts, params)
    if config.compat == "official":
        asked = _asked(parts, state, rows, k_other, example)
        null = params.get("null")
        out = released(network, asked, null, config.guidance_weight, xt, t, cond, keys)
    else:
        if config.guidance == "classifier_free":
            keep = rng.bernoulli(k_drop, row, 1.0 - config.drop_rate)
            cond = diffusion_guidance.drop(keep, cond, params["null"])
        out = network(xt, t, cond, keys)
    signal, level = (forward.extract(part, t, xt) for part in parts.tables)
    each = losses.mse(out, _wanted(config.predict, x0, eps, signal, level))
    terms = {"noise": each, "loss": each}
    if config.rounding_weight > 0:
        x0_hat, _ = forward.to_x0_eps(out, xt, signal, level, config.predict)
        near = jnp.where(t == 0, losses.mse(x0_hat, x0), 0.0)
        far = diffuasr_rows.rounding(x0_hat, rows, example.prefix, parts.num_items)
        terms["rounding"] = far + near
        terms["loss"] = each + config.rounding_weight * terms["rounding"]
    metrics = {
        name: losses.weighted_mean(term, example.weight, parts.axis_name)
        for name, term in terms.items()
    }
    if parts.frozen is None:
        now = diffuasr_rows.spread(params["items"], parts.num_items)
        metrics["spread_left"] = now / state["spread"]
    return metrics["loss"], Aux(state, metrics)


def predict(
    parts: Parts,
    params: Any,
    x: jax.Array,
    t: jax.Array,
    cond: jax.Array,
    keys: jax.Array | None = None,
) -> jax.Array:
    """The network's output f32[B, M, D]; arguments as of `diffuasr_guidance.Predict`."""
    t = jnp.broadcast_to(t, x.shape[:1])
    out: Any = parts.net.apply({"params": params["net"]}, x, t, cond, keys)
    return out


def denoiser(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> Denoiser:
    """(x_t f32[B, M, D], t) -> x0_hat, guided; `key` is of the classifier's draws."""
    config, rows = parts.config, item_rows(parts, params, state)
    official, weight = config.compat == "official", config.guidance_weight
    cond = pooled(config.pool, rows[query.seq], query.seq)
    # the released code shows the classifier a history backwards
    asked = _asked(parts, state, rows, key, query, last=official)
    output, null = partial(predict, parts, params), params.get("null")
    if official:
        output = partial(released, output, asked, null, weight)
    elif null is not None and weight != 0:
        output = partial(extrapolated, output, null, weight)

    def denoise(xt, t):
        signal, level = parts.tables.signal[t], parts.tables.noise[t]
        return forward.to_x0_eps(output(xt, t, cond), xt, signal, level, config.predict)[0]

    if official or asked is None or weight == 0:
        return denoise
    on = config.classifier_on
    return diffusion_guidance.classifier(denoise, asked, parts.tables, weight, on=on)


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The guided reverse process of every query, f32[B, M, D], from noise to M items' rows."""
    k_start, k_steps, k_other = jax.random.split(key, 3)
    start = rng.normal(k_start, query.row_id, parts.shape)
    draw = samplers.draw_rows(k_steps, query.row_id, parts.shape) if parts.noisy else None
    return Chain(parts.steps, denoiser(parts, params, state, k_other, query), start, draw)


def points(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Ends of `chain`, f32[B, M, D] in the space of the rows."""

    def walked(query):
        return process.run(chain(parts, params, state, key, query))

    def in_parts(query):
        return diffuasr_rows.in_parts(walked, query, _CPU_ROWS)

    return jax.lax.platform_dependent(query, cpu=in_parts, default=walked)


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """M unit rows a user, f32[B, M, D]: `points` without their length."""
    return finish(params, state, points(parts, params, state, key, query))


def finish(params: Any, state: Any, end: jax.Array) -> jax.Array:
    """Unit rows of the end of `chain`, f32[B, M, D]."""
    del params, state
    return vectors.unit(end)


def noised(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery, items: jax.Array,
    t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t f32[B, M, D] of the M items before a history, i32[B, M]: where a perfect chain would
    stand."""
    x0 = item_rows(parts, params, state)[items]
    return forward.at_step(parts.tables, key, query.row_id, x0, t)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows, of length 1."""
    rows = vectors.unit(item_rows(parts, params, state))
    return Head(rows, first=1, items=parts.num_items)


def log_prob(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery, points: jax.Array
) -> jax.Array:
    """What the recommender that guides thinks of S behind points, by `classifier_target`: f32[B].

    `points` f32[B, M, D] are in the space of the rows and `key` is that of `points`, for its draws.
    """
    k_other = jax.random.split(key, 3)[2]
    asked = _asked(parts, state, item_rows(parts, params, state), k_other, query)
    assert asked is not None, "nobody is asked unless model.guidance=classifier"
    return asked(points)


def item_rows(parts: Parts, params: Any, state: Any) -> jax.Array:
    """f32[R, D] the rows that the diffusion works on; row j is item j, row 0 padding."""
    return params["items"] if parts.frozen is None else state["items"]


def build(
    config: DiffuASRConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiffuASR as pure functions; `sample` returns M unit rows a user, f32[B, M, D].

    Args:
      config: settings.
      spec: sizes of the data, M, and the recommender's rows where they are frozen.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: both sample alike; `config.compat` has the released guidance.

    Raises:
      ValueError: if frozen rows or a classifier are asked for and no recommender was trained, or
        if SU-Net has fewer channels than there are items to denoise.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        finish=finish,
        noised=partial(noised, made),
    )


def _ends(config: DiffuASRConfig) -> dict[str, float]:
    """Betas of the released schedules are scaled by 1000 / T; linear_scaled does so itself."""
    if config.schedule not in ("quad", "sigmoid"):
        return {}
    factor = 1000.0 / config.num_steps
    return {"start": 1e-4 * factor, "stop": 2e-2 * factor}


def _network(config: DiffuASRConfig) -> nn.Module:
    if config.denoiser == "mlp":
        return PlainDenoiser(config.mlp_hidden)
    return SUNet(
        channels=config.channels,
        num_blocks=config.num_blocks,
        dropout_rate=config.dropout_rate,
        input_skip=config.input_skip,
    )


def _asked(parts: Parts, state: Any, rows, key, example, last: bool = False) -> LogProb | None:
    """The classifier about an example's or a query's histories; None where nobody is asked."""
    if parts.classifier is None:
        return None
    read = parts.classifier, state["reader"], rows
    return diffuasr_guidance.log_prob(*read, key, example, last=last)


def _wanted(
    predict: str, x0: jax.Array, eps: jax.Array, signal: jax.Array, level: jax.Array
) -> jax.Array:
    """What the network's output is compared with."""
    if predict == "v":
        return forward.v_from_x0_eps(x0, eps, signal, level)
    return eps if predict == "eps" else x0


SYSTEM = System(
    config=DiffuASRConfig,
    build=build,
    official=HISTORIES_COMPETE,
    input=PREFIXES,
    generates=True,
    check=check,
)
