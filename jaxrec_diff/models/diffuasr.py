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

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.prefixes import PREFIXES
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion import guidance as diffusion_guidance
from jaxrec_diff.diffusion.config import SamplerConfig, plan
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.models import diffuasr_rows
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.diffuasr_rows import Affine
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.plain import PlainDenoiser
from jaxrec_diff.nets.sunet import SUNet
from jaxrec_diff.ops import negatives, rng, vectors

_ROUNDING_TEMPERATURE = 0.1


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
    classifier_target: Literal["item", "softmax", "all", "bpr", "cond"] = "item"
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


def build(
    config: DiffuASRConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiffuASR as four pure functions; `sample` returns M unit rows a user, f32[B, M, D].

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
    made = generator(config, spec, axis_name=axis_name)

    def sample(params, state, key, query):
        return vectors.unit(made.points(params, state, key, query))

    return Model(made.init, made.loss, sample, made.head, made.chain)


class Generator(NamedTuple):
    """What `build` is made of."""

    init: Callable[[jax.Array, Any], Variables]
    loss: Callable[[Any, Any, jax.Array, Any], tuple[jax.Array, Aux]]
    points: Callable[[Any, Any, jax.Array, Any], jax.Array]
    """params, state, key, query -> f32[B, M, d], in the space of the rows."""
    head: Callable[[Any, Any], Head]
    chain: Callable[[Any, Any, jax.Array, Any], Chain]
    """params, state, key, query -> the reverse process that ends in `points`."""
    log_prob: Callable[[Any, Any, jax.Array, Any, jax.Array], jax.Array]
    """params, state, key, query, points f32[B, M, d] -> f32[B]: what the recommender thinks of S
    behind the points, by `classifier_target`; the key is that of `points`, for its draws."""


def generator(config: DiffuASRConfig, spec: DataSpec, *, axis_name: str | None = None) -> Generator:
    """The parts of `build`, with points as they come out of the reverse path."""
    official, length = config.compat == "official", spec.prefix_len
    classified = config.guidance == "classifier"
    check(config, spec, frozenset(spec.exports) | ({"reader"} if spec.reader else set()))
    table = diffuasr_rows.standardised(spec) if config.items == "frozen" else None
    width = config.width if table is None else table.rows.shape[1]
    net: Any = (
        PlainDenoiser(config.mlp_hidden)
        if config.denoiser == "mlp"
        else SUNet(
            channels=config.channels,
            num_blocks=config.num_blocks,
            dropout_rate=config.dropout_rate,
            input_skip=config.input_skip,
        )
    )
    betas = schedules.validate(schedules.named(config.schedule, config.num_steps, **_ends(config)))
    levels = forward.levels(betas)
    tables = forward.tables(levels)
    steps, noisy = plan(config.sampler, levels)

    def init(key, example):
        k_net, k_items, k_null = jax.random.split(key, 3)
        x = jnp.zeros((1, length, width))
        params = {"net": net.init(k_net, x, jnp.zeros(1, jnp.int32), x[:, 0])["params"]}
        if config.guidance == "classifier_free":
            params["null"] = jax.random.normal(k_null, (width,))
        state: dict[str, Any] = {}
        if table is None:
            params["items"] = jax.random.normal(k_items, (spec.num_items + 1, width))
            state["spread"] = _spread(params["items"])
        else:
            state["items"] = jnp.asarray(table.rows)
        if classified:
            assert spec.reader is not None  # `check` looked
            state["reader"] = jax.tree.map(jnp.asarray, spec.reader.params)
        return Variables(params, state)

    def rows_of(params, state):
        return params["items"] if table is None else state["items"]

    def pooled(vectors, seq):
        """f32[B, L, d] at the places of S -> f32[B, d]."""
        real = (seq > 0)[..., None]
        total = jnp.sum(jnp.where(real, vectors, 0.0), axis=1)
        return total if config.pool == "sum" else total / jnp.maximum(real.sum(axis=1), 1)

    def condition(rows, seq):
        return pooled(rows[seq], seq)

    def apply(params, x, t, cond, keys=None):
        t = jnp.broadcast_to(t, x.shape[:1])
        return net.apply({"params": params["net"]}, x, t, cond, keys)

    def extrapolated(params, x, t, cond, keys=None):
        """(1 + gamma) f(c) - gamma f(null), one call on a doubled batch."""
        null = jnp.broadcast_to(params["null"], cond.shape)
        keys = None if keys is None else jnp.concatenate([keys, keys])
        t = jnp.broadcast_to(t, x.shape[:1])
        x, t, cond = (jnp.concatenate(pair) for pair in ((x, x), (t, t), (cond, null)))
        with_cond, without = jnp.split(apply(params, x, t, cond, keys), 2)
        return (1.0 + config.guidance_weight) * with_cond - config.guidance_weight * without

    def log_prob(state, rows, key, query, *, last=False):
        """What the classifier makes of points, f32[B, M, d] -> f32[B]; a query or an example."""
        seq, kind = query.seq, config.classifier_target
        reader, back = spec.reader, Affine(0.0, 1.0) if table is None else table.back
        assert reader is not None  # `check` looked
        target = seq if kind in ("all", "bpr") else diffuasr_rows.one(seq, last)
        real, wanted = target > 0, back(rows[target])
        if kind == "bpr":
            other = negatives.strangers(key, query.row_id, seq, spec.num_items)
            real = real & (other <= spec.num_items)
            wanted = wanted - back(rows[jnp.minimum(other, spec.num_items)])

        def of(x):
            found = reader.read(state["reader"], back(x))
            if kind == "cond":
                return -losses.mse(found, pooled(back(rows[seq]), seq))
            logits = jnp.einsum("bd,bnd->bn", found, wanted)
            if kind == "softmax":
                return logits[:, 0] - losses.log_normaliser(found, back(rows[1:]))
            each = jnp.where(real, jax.nn.log_sigmoid(logits), 0.0)
            return each.sum(axis=-1) / jnp.maximum(real.sum(axis=-1), 1)

        return of

    def released(params, x, t, cond, asked, keys=None):
        """The noise as the released code has it, in training and in sampling; `asked` is the
        classifier, or None."""
        if config.guidance == "classifier_free":
            return extrapolated(params, x, t, cond, keys)
        out = apply(params, x, t, cond, keys)
        return (
            out
            if asked is None
            else out + diffuasr_rows.released_correction(asked, x, config.guidance_weight)
        )

    def loss(params, state, key, example):
        k_t, k_eps, k_drop, k_net, k_other = jax.random.split(key, 5)
        rows = rows_of(params, state)
        x0, cond = rows[example.prefix], condition(rows, example.seq)
        t = timesteps.antithetic_rows(k_t, example.row_id, config.num_steps)
        eps = rng.normal(k_eps, example.row_id, x0.shape[1:])
        xt = forward.q_sample(tables, x0, t, eps)
        keys = rng.row_keys(k_net, example.row_id) if config.dropout_rate > 0 else None
        if official:
            asked = log_prob(state, rows, k_other, example) if classified else None
            out = released(params, xt, t, cond, asked, keys)
        else:
            if config.guidance == "classifier_free":
                keep = rng.bernoulli(k_drop, example.row_id, 1.0 - config.drop_rate)
                cond = diffusion_guidance.drop(keep, cond, params["null"])
            out = apply(params, xt, t, cond, keys)
        signal, level = (forward.extract(part, t, xt) for part in tables)
        wanted_out = {"eps": lambda: eps, "x0": lambda: x0,
                      "v": lambda: forward.v_from_x0_eps(x0, eps, signal, level)}  # fmt: skip
        each = losses.mse(out, wanted_out[config.predict]())
        metrics = {"noise": losses.weighted_mean(each, example.weight, axis_name)}
        if config.rounding_weight > 0:
            x0_hat, _ = forward.to_x0_eps(out, xt, signal, level, config.predict)
            near = jnp.where(t == 0, losses.mse(x0_hat, x0), 0.0)
            rounding = _rounding(x0_hat, rows[1:], example.prefix - 1) + near
            metrics["rounding"] = losses.weighted_mean(rounding, example.weight, axis_name)
            each = each + config.rounding_weight * rounding
        if table is None:
            metrics["spread_left"] = _spread(params["items"]) / state["spread"]
        value = losses.weighted_mean(each, example.weight, axis_name)
        return value, Aux(state, {"loss": value} | metrics)

    def denoiser(params, state, key, query):
        rows = rows_of(params, state)
        cond = condition(rows, query.seq)
        # the released code shows the classifier a history backwards
        asked = log_prob(state, rows, key, query, last=official) if classified else None

        def predict(x, t):
            if official:
                return released(params, x, t, cond, asked)
            if config.guidance == "classifier_free" and config.guidance_weight != 0:
                return extrapolated(params, x, t, cond)
            return apply(params, x, t, cond)

        def denoise(xt, t):
            signal, level = tables.signal[t], tables.noise[t]
            return forward.to_x0_eps(predict(xt, t), xt, signal, level, config.predict)[0]

        if official or asked is None or config.guidance_weight == 0:
            return denoise
        return diffusion_guidance.classifier(
            denoise, asked, tables, config.guidance_weight, on=config.classifier_on
        )

    def points(params, state, key, query):
        if jax.default_backend() != "cpu":
            return part(params, state, key, query)
        return diffuasr_rows.in_parts(
            lambda query: part(params, state, key, query), query, _CPU_ROWS
        )

    def part(params, state, key, query):
        return process.run(chain(params, state, key, query))

    def chain(params, state, key, query):
        k_start, k_steps, k_other = jax.random.split(key, 3)
        shape = (length, width)
        start = rng.normal(k_start, query.row_id, shape)
        draw = samplers.draw_rows(k_steps, query.row_id, shape) if noisy else None
        return Chain(steps, denoiser(params, state, k_other, query), start, draw)

    def head(params, state):
        return Head(vectors.unit(rows_of(params, state)[1:]))

    def likelihood(params, state, key, query, points):
        k_other = jax.random.split(key, 3)[2]
        return log_prob(state, rows_of(params, state), k_other, query)(points)

    return Generator(init, loss, points, head, chain, likelihood)


def check(config: DiffuASRConfig, spec: DataSpec, given: frozenset[str]) -> None:
    """Refuses settings that cannot work, before anything is trained.

    Args:
      config: settings.
      spec: sizes; nothing of the recommender is looked at.
      given: names of the recommender's arrays, and "reader" if it can be asked about points.

    Raises:
      ValueError: in one sentence.
    """
    if spec.prefix_len < 1:
        raise ValueError(f"data.prefix-len must be at least 1, got {spec.prefix_len}")
    if config.items == "frozen" and "items" not in given:
        raise ValueError(
            "model.items=frozen takes the rows of a trained recommender, got none: give "
            "--backbone=sasrec, or model.items=trained"
        )
    if config.guidance == "classifier":
        if "reader" not in given:
            raise ValueError(
                "model.guidance=classifier asks a trained recommender, got none that reads points: "
                "give --backbone=sasrec, or model.guidance=classifier_free"
            )
        if spec.prefix_len > spec.max_len:
            raise ValueError(
                f"data.prefix-len={spec.prefix_len} items are more than data.max-len="
                f"{spec.max_len} that the recommender reads; model.guidance=classifier needs fewer"
            )
        if config.items == "trained" and config.compat == "paper":
            raise ValueError(
                "model.guidance=classifier asks the recommender about its own rows, which "
                "model.items=trained are not; model.items=frozen are"
            )
    blind = config.denoiser == "sunet" and config.predict == "eps" and not config.input_skip
    if blind and config.channels < spec.prefix_len and config.compat == "paper":
        near = -(-spec.prefix_len // 8) * 8
        raise ValueError(
            f"model.channels={config.channels} is less than data.prefix-len={spec.prefix_len}: a "
            f"network that predicts noise cannot see all of x_t; {near} channels can, and "
            "model.predict=x0 need not"
        )


def _ends(config: DiffuASRConfig) -> dict[str, float]:
    """Betas of the released schedules are scaled by 1000 / T; linear_scaled does so itself."""
    if config.schedule not in ("quad", "sigmoid"):
        return {}
    factor = 1000.0 / config.num_steps
    return {"start": 1e-4 * factor, "stop": 2e-2 * factor}


def _spread(items: jax.Array) -> jax.Array:
    """Root mean variance of a coordinate over items; row 0 is padding."""
    return jnp.sqrt(jnp.mean(jnp.var(items[1:], axis=0)))


def _rounding(x0_hat: jax.Array, rows: jax.Array, index: jax.Array) -> jax.Array:
    """Cross entropy of each estimate's cosines / 0.1 over all rows, means over M: f32[B]."""
    flat = vectors.unit(x0_hat).reshape(-1, x0_hat.shape[-1]) / _ROUNDING_TEMPERATURE
    each = losses.full_softmax(flat, vectors.unit(rows), index.reshape(-1))
    return each.reshape(index.shape).mean(axis=-1)


SYSTEM = System(
    config=DiffuASRConfig,
    build=build,
    official=HISTORIES_COMPETE,
    input=PREFIXES,
    generates=True,
    check=check,
)
