"""DiffRec2: diffusion of the next item behind a clean history (arXiv:2304.04541).

The last place of a sequence holds the next item's embedding, noised; the history before it stays
clean. A bidirectional Transformer with positions and a step embedding on every place reads both,
and its last row is the estimate of the clean embedding:

    L = E |h0 - f(h^n, n)|^2 + E [-log softmax(W h0 + b)[v]],   h0 = E(v) + sqrt(beta_0) eps_0

The second term does not see the Transformer; it keeps the embeddings apart. Recommending starts
from a noised [unk] token and either walks all steps back ("full") or calls the network once, at the
noisiest step, for several draws of noise ("efficient"). Whether one call is as good as the chain is
the open question about this model, so each way is a variant of the other: whatever is evaluated
reports both.

The paper calls its model DiffRec; no code was released. What it leaves open is a setting, and its
default is named as ours.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, check_diffusion, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain, Denoiser, Steps
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.network import by_row, call, noised_target
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.last_place import LastPlace
from jaxrec_diff.nets.transformer import MaskMode
from jaxrec_diff.ops import rng


@dataclass(frozen=True, kw_only=True)
class DiffRec2Config:
    """Settings of DiffRec2. The defaults are ours: no code was released."""

    width: int = 128
    """Size d of embeddings and of the network."""
    num_blocks: int = 4
    """Blocks of the Transformer."""
    num_heads: int = 4
    """Attention heads."""
    dropout_rate: float = 0.1
    """Dropout inside the Transformer."""
    embedding_dropout_rate: float = 0.3
    """Dropout of the history's embeddings."""
    position_scale: float = 1.0
    """Deviation of the initial positions. Attention finds the latest item by its position alone:
    it reads in the noised place, not in that item's."""
    mask_mode: MaskMode = "key"
    """What padding means to attention; key: it is not looked at."""
    schedule: Literal["linear_scaled", "linear", "cosine", "sqrt", "trunc_lin"] = "linear_scaled"
    """Noise schedule; linear_scaled multiplies both ends by 1000 / N."""
    num_steps: int = 1000
    """Diffusion steps N."""
    beta_start: float = 1e-4
    """First beta of the linear schedules."""
    beta_stop: float = 2e-2
    """Last beta of the linear schedules."""
    beta_item: float = 1e-4
    """beta_0, the variance of q(h0 | v) around the item's embedding; 0 has none."""
    jitter_history: bool = False
    """Also draw the history's embeddings with beta_0, in training and when recommending, as the
    printed algorithms do."""
    rescale_steps: bool = False
    """Embed 1000 n / N instead of n."""
    step_sampler: Literal["importance", "uniform"] = "importance"
    """importance: steps in proportion to the root mean square of their last ten losses, weighted
    back."""
    mse_reduction: Literal["mean", "sum"] = "mean"
    """Over coordinates; the paper sums, and then the squared error drowns the other loss."""
    mse_weight: float = 1.0
    """Of the squared error of one drawn step; N makes it the paper's sum over steps."""
    rec_weight: float = 1.0
    """Of the cross entropy of the clean embedding."""
    ce_weight: float = 0.0
    """Of a cross entropy of the *estimate*, which the paper does not have."""
    stop_grad_target: bool = False
    """Keep the squared error from moving the embedding that it aims at."""
    tie_head: bool = False
    """Score with the item embeddings instead of rows of their own."""
    out_norm: bool = True
    """End in a LayerNorm over embeddings from N(0, 1); False: in a linear layer over N(0, 0.02^2)
    ones."""
    history_blind: bool = False
    """The fast variant: places of the history see neither the noised place nor the step, so they
    are computed once a user instead of once a step and seed."""
    inference: Literal["efficient", "full"] = "efficient"
    """What recommends: one call for several seeds, or the whole reverse chain. The other one is
    ranked beside it."""
    num_seeds: int = 10
    """Draws of noise S of efficient inference."""
    seed_average: Literal["vector", "prob"] = "vector"
    """vector: the mean estimate, whose scores are the mean scores; prob: the mean of the S
    softmaxes."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """The reverse path of full inference; fewer steps take recomputed betas."""

    def __post_init__(self) -> None:
        validation.at_least("model.width", self.width, 2)
        validation.at_least("model.num-heads", self.num_heads, 1)
        if self.width % (2 * self.num_heads):
            near = max(self.width // (2 * self.num_heads), 1) * 2 * self.num_heads
            raise ValueError(
                f"model.width must be a multiple of {2 * self.num_heads} (sines and cosines, "
                f"{self.num_heads} heads), got {self.width}; the nearest valid value is {near}"
            )
        validation.at_least("model.num-blocks", self.num_blocks, 1)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.within("model.embedding-dropout-rate", self.embedding_dropout_rate, 0, 0.999)
        validation.at_least("model.position-scale", self.position_scale, 0)
        validation.within("model.beta-item", self.beta_item, 0, 1)
        validation.at_least("model.mse-weight", self.mse_weight, 0)
        validation.at_least("model.rec-weight", self.rec_weight, 0)
        validation.at_least("model.ce-weight", self.ce_weight, 0)
        validation.at_least("model.num-seeds", self.num_seeds, 1)
        check_diffusion(self.num_steps, self.beta_start, self.beta_stop, self.sampler)
        refuse_closed_form(self.sampler, "ddpm")


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DiffRec2Config
    net: LastPlace
    tables: Forward  # of the forward process
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None


def parts(config: DiffRec2Config, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network and the tables of DiffRec2; arguments as of `build`."""
    net = network(config, spec.num_items, spec.max_len)
    levels = forward.levels(make_betas(config))
    steps, noisy = plan(config.sampler, levels)
    return Parts(config, net, forward.tables(levels), steps, noisy, axis_name)


def network(config: DiffRec2Config, num_items: int, max_len: int) -> LastPlace:
    """f(h^n, n), of I items and histories of L."""
    return LastPlace(
        num_items=num_items,
        max_len=max_len,
        width=config.width,
        num_blocks=config.num_blocks,
        num_heads=config.num_heads,
        dropout_rate=config.dropout_rate,
        embedding_dropout_rate=config.embedding_dropout_rate,
        position_scale=config.position_scale,
        mask_mode=config.mask_mode,
        step_scale=1000 / config.num_steps if config.rescale_steps else 1,
        out_norm=config.out_norm,
        tie_head=config.tie_head,
        history_blind=config.history_blind,
    )


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and the losses of each step where those decide which are drawn."""
    params = parts.net.init(key, types.first_length(example.seq))["params"]
    aware = parts.config.step_sampler == "importance"
    return Variables(params, timesteps.init_history(parts.config.num_steps) if aware else ())


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """The squared error of the estimate and the cross entropy of the clean embedding.

        L = |h0 - f(h^n, n)|^2 + [-log softmax(W h0 + b)[v]],  h0 = E(v) + sqrt(beta_0) eps_0

    of arXiv:2304.04541 (training), each with its weight; at n = 1 the first aims at E(v).

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), or the last squared errors of each step under step_sampler="importance".
      key: of the steps, h0, the noise, jitter and dropout, each row's own.
      example: B histories with their targets, of one or of several lengths.

    Returns:
      f32[] the weighted mean, and `Aux` with the state after it and the metrics "loss", "mse" and
      "rec".

    >>> made = parts(DiffRec2Config(width=8, num_steps=30), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss', 'mse', 'rec'])
    """
    config, row, axis_name = parts.config, example.row_id, parts.axis_name
    k_t, k_item, k_eps, k_net = jax.random.split(key, 4)
    if config.step_sampler == "importance":
        t, weight = timesteps.importance(k_t, row, state)
    else:
        t, weight = timesteps.uniform(k_t, row, config.num_steps), jnp.ones_like(example.weight)
    clean = params["items"][example.target]
    x0 = clean + config.beta_item**0.5 * rng.normal(k_item, row, clean.shape[1:])
    xt = forward.q_sample(parts.tables, x0, t, rng.normal(k_eps, row, x0.shape[1:]))
    x0_hat = types.over_lengths(partial(estimate, parts, params, k_net), example.seq, row, xt, t)
    aim = jnp.where((t == 0)[:, None], clean, x0)
    if config.stop_grad_target:
        aim = jax.lax.stop_gradient(aim)
    squared = losses.mse(x0_hat, aim) * (config.width if config.mse_reduction == "sum" else 1)
    rec = cross_entropy(parts, params, x0, example.target)
    each = config.mse_weight * weight * squared + config.rec_weight * rec
    if config.ce_weight > 0:
        each += config.ce_weight * cross_entropy(parts, params, x0_hat, example.target)
    if config.step_sampler == "importance":
        state = timesteps.update_history(state, t, squared, example.weight, axis_name)
    terms = {"loss": each, "mse": weight * squared, "rec": rec}
    means = {k: losses.weighted_mean(v, example.weight, axis_name) for k, v in terms.items()}
    return means["loss"], Aux(state, means)


def cross_entropy(parts: Parts, params: Any, points: jax.Array, item: jax.Array) -> jax.Array:
    """-log softmax(W points + b)[item] over the items: f32[B, D], i32[B] -> f32[B]."""
    table, bias, first = call(parts, params, "head")
    classes = first, first + parts.net.num_items
    return losses.full_softmax(points, table, item + (first - 1), bias, classes=classes)


def estimate(
    parts: Parts,
    params: Any,
    key: jax.Array,
    seq: jax.Array,
    row: jax.Array,
    xt: jax.Array,
    t: jax.Array,
) -> jax.Array:
    """f(h^n, n) f32[B, D] with the noise of training, of histories of one length.

    Args:
      parts: from `parts`.
      params: of `init`.
      key: of jitter and dropout, each row's own.
      seq: i32[B, L_k] right-padded.
      row: i32[B] global row.
      xt: f32[B, D] noised embeddings h^n.
      t: i32[B], n - 1.
    """
    seq = _whole(parts, seq)
    k_jitter, k_drop = jax.random.split(key)
    k_embed, k_net = rng.split(rng.row_keys(k_drop, row))
    history = by_row(partial(call, parts, params, "embed"), k_embed, seq)
    history = _jittered(parts.config, k_jitter, row, history)
    return by_row(partial(call, parts, params, "denoise"), k_net, history, seq > 0, xt, t)


def denoiser(parts: Parts, params: Any, key: jax.Array, query: SequenceQuery) -> Denoiser:
    """(xt f32[B, D] or [B, S, D], t i32[]) -> x0_hat, with all that has no step hoisted."""
    seq = _whole(parts, query.seq)
    mask = seq > 0
    history = _jittered(parts.config, key, query.row_id, call(parts, params, "embed", seq))
    if parts.config.history_blind:
        memory = call(parts, params, "remember", history, mask)

        def follow(xt, t):
            flat = xt if xt.ndim == 3 else xt[:, None]
            return call(parts, params, "follow", memory, mask, flat, t).reshape(xt.shape)

        return follow

    def denoise(xt, t):
        if xt.ndim == 2:
            return call(parts, params, "denoise", history, mask, xt, t)
        # one seed at a time: all at once would hold S times the activations
        one = jax.lax.map(lambda x: denoise(x, t), jnp.moveaxis(xt, 1, 0))
        return jnp.moveaxis(one, 0, 1)

    return denoise


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The reverse process of every query, f32[B, D], from a noised [unk] to the next item."""
    del state
    k_start, k_jitter, k_steps = jax.random.split(key, 3)
    shape = (parts.config.width,)
    start = _start(parts, params, rng.normal(k_start, query.row_id, shape))
    draw = samplers.draw_rows(k_steps, query.row_id, shape) if parts.noisy else None
    return Chain(parts.steps, denoiser(parts, params, k_jitter, query), start, draw)


def efficient(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """One call at the noisiest step for S draws of noise: their mean f32[B, D], or see `finish`."""
    del state
    k_start, k_jitter = jax.random.split(key)
    shape = (parts.config.num_seeds, parts.config.width)
    start = _start(parts, params, rng.normal(k_start, query.row_id, shape))
    last = jnp.int32(parts.config.num_steps - 1)
    return finish(parts, params, denoiser(parts, params, k_jitter, query)(start, last))


def full(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> jax.Array:
    """Ends of `chain` as points, f32[B, D], or see `finish`."""
    return finish_chain(parts, params, state, process.run(chain(parts, params, state, key, query)))


def finish_chain(parts: Parts, params: Any, state: Any, ends: jax.Array) -> jax.Array:
    """Points of the ends of `chain` f32[B, D], one a user."""
    del state
    return ends if parts.config.seed_average == "vector" else finish(parts, params, ends[:, None])


def finish(parts: Parts, params: Any, estimates: jax.Array) -> jax.Array:
    """Points of S estimates a user f32[B, S, D]: their mean f32[B, D], or under
    seed_average="prob" each of them as log probabilities, f32[B, S, D + 1]."""
    if parts.config.seed_average == "vector":
        return estimates.mean(axis=1)
    return _as_logits(parts, params, estimates)


_WAYS = {"efficient": efficient, "full": full}


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Estimates of the next item's embedding, the way that the settings name."""
    return _WAYS[parts.config.inference](parts, params, state, key, query)


def other_way(parts: Parts, params: Any, state: Any, query: SequenceQuery) -> jax.Array:
    """The same the other way."""
    # the noise of a variant is fixed: it is keyed by the row like all noise
    return _WAYS[_other(parts.config)](parts, params, state, jax.random.key(0), query)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """W and b; under seed_average="prob" with the column that log-normalisers are added by."""
    del state
    table, bias, first = call(parts, params, "head")
    if parts.config.seed_average == "prob":
        table = jnp.pad(table, ((0, 0), (0, 1)), constant_values=1.0)
    return Head(table, bias, first, parts.net.num_items)


def build(
    config: DiffRec2Config,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiffRec2 as pure functions, with the other way to recommend as a variant.

    Histories may come in several lengths (`types.over_lengths`): exact under mask_mode="key",
    where padding is hidden; under the others they are padded to L first.

    Args:
      config: settings.
      spec: sizes of the data; a history has `spec.max_len` places beside the noised one.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: changes nothing here: no released script says how it ranks.

    Raises:
      ValueError: on a schedule outside (0, 1].
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)
    walked: dict[str, Any] = {}
    if config.inference == "full":
        walked = {
            "chain": partial(chain, made),
            "finish": partial(finish_chain, made),
            "noised": partial(noised_target, made),
        }
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        **walked,
        variants={_other(config): partial(other_way, made)},
        score_pooling="mixture" if config.seed_average == "prob" else "best",
    )


def _other(config: DiffRec2Config) -> str:
    return "full" if config.inference == "efficient" else "efficient"


def _whole(parts: Parts, seq: jax.Array) -> jax.Array:
    """Histories as long as padding has to be: where it is hidden, as they are."""
    hidden = parts.config.mask_mode == "key"
    return jnp.pad(seq, ((0, 0), (0, 0 if hidden else parts.net.max_len - seq.shape[1])))


def _jittered(config: DiffRec2Config, key: jax.Array, row: jax.Array, history: jax.Array):
    if not config.jitter_history:
        return history
    return history + config.beta_item**0.5 * rng.normal(key, row, history.shape[1:])


def _start(parts: Parts, params: Any, eps: jax.Array) -> jax.Array:
    """x_N, [unk] at the noisiest level: shaped like `eps`, f32[B, ..., D]."""
    unknown = params["items"][parts.net.num_items + 1]
    return parts.tables.signal[-1] * unknown + parts.tables.noise[-1] * eps


def make_betas(config: DiffRec2Config):
    """beta_1 .. beta_N, float64[N]."""
    options = {}
    if config.schedule in ("linear", "linear_scaled"):
        options = {"start": config.beta_start, "stop": config.beta_stop}
    return schedules.named(config.schedule, config.num_steps, **options)


def _as_logits(parts: Parts, params: Any, points: jax.Array) -> jax.Array:
    """Points f32[B, S, D] and minus the log-normaliser of each softmax, f32[B, S, D + 1]: scored
    against [W, 1] they give log probabilities up to the bias."""
    table, bias, first = call(parts, params, "head")
    classes = first, first + parts.net.num_items
    flat = points.reshape(-1, points.shape[-1])
    normaliser = losses.log_normaliser(flat, table, bias, classes=classes)
    return jnp.concatenate([points, -normaliser.reshape(*points.shape[:2], 1)], axis=-1)


SYSTEM = System(
    config=DiffRec2Config, build=build, official=HISTORIES_COMPETE, official_differs=False,
    input=SEQUENCES, accepts_buckets=lambda config: True,
    walks=lambda config: replace(config, inference="full"),
    item_table=ItemTable(lambda config: 1.0 if config.out_norm else 0.02, grows=False),
)  # fmt: skip
