"""DiQDiff: quantised guidance and contrast over DiffuRec's network (arXiv:2501.17670).

Every history, an L x D block, picks one of K codes; a code is the mean of the histories that
picked it (`jaxrec_diff.ops.quantize`), and is added to the history before the Transformer reads it:

    z = lambda_h h + lambda_q s_q + delta (x_t + tau(t)),   L = CE(z) + lambda_c contrast

with the contrast of `losses.contrast` between the estimates of a batch. The rest is DiffuRec.

Where the paper and the released code differ the default follows the code: the loss is a cross
entropy, the selector of codes is never trained (nothing reaches it through an argmax), so it is a
fixed random projection and lives in `state`; codes are means over the batch at hand. `svq="paper"`
trains the selector with a straight-through gradient against a codebook that is kept.

The released evaluation draws codes with noise and takes their means over the *test* batch: a
user's list then depends on who else is asked for. `eval_codes="frozen"`, the default, uses the
codebook of training and no noise; `protocol="official"` does as released, and whichever is not
used is a variant of the other.

A code has all L places, those of padding too, and differs from place to place, so histories are
never shorter than L here: DiffuRec's single padding place would not be exact.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import SequenceQuery, Sequences, latest_last
from jaxrec_diff.diffusion import forward, process, samplers, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.models import network
from jaxrec_diff.models.contract import (
    Aux,
    DataSpec,
    Head,
    Model,
    Variables,
    check_heads,
    head_of,
)
from jaxrec_diff.models.diffurec import (
    DiffuRecConfig,
    DiffuRecNet,
    Schedule,
    check_released_schedule,
    released_betas,
)
from jaxrec_diff.models.network import by_row
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.dense import uniform_fan_in
from jaxrec_diff.nets.transformer import MaskMode, places
from jaxrec_diff.ops import quantize, rng

EvalCodes = Literal["frozen", "official"]
_OTHER: dict[EvalCodes, EvalCodes] = {"frozen": "official", "official": "frozen"}


@dataclass(frozen=True, kw_only=True)
class DiQDiffConfig:
    """Settings of DiQDiff; the defaults are those published for Amazon Beauty."""

    width: int = 128
    """Size d of embeddings and of the network."""
    num_blocks: int = 4
    """Blocks of the Transformer."""
    num_heads: int = 4
    """Attention heads."""
    dropout_rate: float = 0.1
    """Dropout inside the Transformer."""
    history_dropout_rate: float = 0.3
    """Dropout of the history's embeddings."""
    mask: MaskMode = "query"
    """query: padding is looked at, its own rows look at everything alike (released); key: padding
    is hidden (textbook); none."""
    schedule: Schedule = "trunc_lin"
    """Noise schedule."""
    num_steps: int = 32
    """Diffusion steps T."""
    rescale_steps: bool = True
    """Embed 1000 t / T instead of t."""
    num_codes: int = 32
    """Codes K."""
    code_weight: float = 0.4
    """lambda_q, of the code ("intent" in the released script)."""
    history_weight: float = 0.6
    """lambda_h, of the history itself."""
    contrast_weight: float = 1.0
    """lambda_c, of the contrast between the estimates of a batch."""
    contrast_temperature: float = 0.07
    """Of the contrast."""
    inject: float = 1e-3
    """delta, of x_t and the step's embedding; a constant, where DiffuRec draws it."""
    svq: Literal["official", "paper"] = "official"
    """official: codes are means of the batch, the selector is never trained; paper: a codebook
    that is kept, picked by a trained selector with a straight-through gradient."""
    code_temperature: float = 0.1
    """Gumbel temperature of svq=paper; an argmax has none."""
    codebook_decay: float = 0.0
    """Share of the old codebook that an update keeps; the paper replaces it."""
    eval_codes: EvalCodes = "frozen"
    """frozen: the codebook of training, no noise: a user's list depends on nobody else. official:
    codes from the batch that is evaluated (svq=official: with noise; svq=paper: the codebook is
    updated by the batch first), so eval.batch-size and the order of users matter."""
    recon: Literal["ce", "mse"] = "ce"
    """ce: cross entropy over the items and padding (released); mse: |x_0 - estimate|^2 (paper)."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(spacing="leading"))
    """The reverse path. noise=exp_var is the released code, which takes exp(v / 2) of the
    posterior variance v where exp(log v / 2) was meant; leading, so that few steps end in step 0 as
    all do."""

    def __post_init__(self) -> None:
        validation.at_least("model.num-blocks", self.num_blocks, 1)
        check_heads(self.width, self.num_heads, halves=True)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.within("model.history-dropout-rate", self.history_dropout_rate, 0, 0.999)
        check_released_schedule(self.schedule, self.num_steps)
        validation.at_least("model.num-codes", self.num_codes, 1)
        validation.finite("model.code-weight", self.code_weight)
        validation.finite("model.history-weight", self.history_weight)
        validation.finite("model.inject", self.inject)
        validation.at_least("model.contrast-weight", self.contrast_weight, 0)
        validation.above("model.contrast-temperature", self.contrast_temperature, 0, 0.07)
        validation.above("model.code-temperature", self.code_temperature, 0, 0.1)
        validation.within("model.codebook-decay", self.codebook_decay, 0, 1)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        refuse_closed_form(self.sampler, "mean")

    def backbone(self) -> DiffuRecConfig:
        """The settings of the network that both systems share."""
        return DiffuRecConfig(
            width=self.width,
            num_blocks=self.num_blocks,
            num_heads=self.num_heads,
            dropout_rate=self.dropout_rate,
            history_dropout_rate=self.history_dropout_rate,
            mask=self.mask,
            schedule=self.schedule,
            num_steps=self.num_steps,
            rescale_steps=self.rescale_steps,
        )


class Quantiser(NamedTuple):
    """State of DiQDiff."""

    codebook: jax.Array  # f32[K, L, D], codes of the last update
    selector: Any  # {"kernel": f32[L D, K], "bias": f32[K]}, or () where it is trained


def read_last(net: DiffuRecNet, z: jax.Array, real: jax.Array, deterministic: bool = True):
    """The Transformer's output in the last place: f32[B, L, D], bool[B, L] -> f32[B, D]."""
    last = jnp.full(z.shape[:1], z.shape[1] - 1, jnp.int32)
    where = places(real, net.config.mask)
    return net.transformer(z, where, read=last, deterministic=deterministic)


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DiQDiffConfig
    net: DiffuRecNet
    tables: Forward  # of the forward process
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None
    protocol: Protocol


def parts(
    config: DiQDiffConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Parts:
    """The network and the tables of DiQDiff; arguments as of `build`."""
    net = DiffuRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config.backbone())
    levels = forward.levels(released_betas(config.schedule, config.num_steps))
    steps, noisy = plan(config.sampler, levels)
    return Parts(config, net, forward.tables(levels), steps, noisy, axis_name, protocol)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and the codebook: the first K histories, over again where there are fewer."""
    k_net, k_kernel, k_bias = jax.random.split(key, 3)
    config, seq = parts.config, _whole(example.seq, parts.net.max_len)
    params = parts.net.init(k_net, seq)["params"]
    inside = parts.net.max_len * config.width
    uniform = uniform_fan_in(inside)
    selector = {
        "kernel": uniform(k_kernel, (inside, config.num_codes)),
        "bias": uniform(k_bias, (config.num_codes,)),
    }
    first = jnp.arange(config.num_codes) % seq.shape[0]
    codebook = call(parts, params, "embed", seq[first])
    if config.svq == "paper":
        return Variables(params | {"selector": selector}, Quantiser(codebook, ()))
    return Variables(params, Quantiser(codebook, selector))


def loss(
    parts: Parts, params: Any, state: Quantiser, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """Reconstruction and contrast of the estimates; arXiv:2501.17670, training.

        L = -log softmax(E x0_hat)_j + lambda_c contrast(x0_hat),  x0_hat = f(z) in the last place

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the codebook, and the selector where it is not trained.
      key: of the steps, the noise, the codes and dropout, each row's own.
      example: B histories with their targets, of one or of several lengths; codes and contrast are
        taken over all of them.

    Returns:
      f32[] the weighted mean, and `Aux` with the codebook after the batch and the metrics "loss",
      "recon", "contrast" and "codes_used".

    >>> config = DiQDiffConfig(width=8, num_blocks=1, num_codes=2, schedule="sqrt", num_steps=3)
    >>> made = parts(config, DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['codes_used', 'contrast', 'loss', 'recon'])
    """
    config, row, weight = parts.config, example.row_id, example.weight
    k_t, k_eps, k_code, k_embed, k_read = jax.random.split(key, 5)
    seq = _whole(example.seq, parts.net.max_len)
    history = by_row(partial(call, parts, params, "embed"), rng.row_keys(k_embed, row), seq)
    codes, found = training_codes(parts, params, state, k_code, history, row, weight)
    x0 = params["items"][example.target]
    t = timesteps.uniform(k_t, row, config.num_steps)
    xt = forward.q_sample(parts.tables, x0, t, rng.normal(k_eps, row, x0.shape[1:]))
    injected = config.inject * (xt + call(parts, params, "steps", t))
    z = config.history_weight * history + config.code_weight * codes + injected[:, None]
    points = by_row(partial(call, parts, params, read_last), rng.row_keys(k_read, row), z, seq > 0)
    if config.recon == "ce":
        classes = 0, parts.net.num_items + 1
        recon = losses.full_softmax(points, params["items"], example.target, classes=classes)
    else:
        recon = config.width * losses.mse(points, x0)
    axis_name, heat = parts.axis_name, config.contrast_temperature
    apart = losses.contrast(points, weight, temperature=heat, axis_name=axis_name)
    each = recon + config.contrast_weight * apart
    terms = {"loss": each, "recon": recon, "contrast": apart}
    metrics = {name: losses.weighted_mean(v, weight, axis_name) for name, v in terms.items()}
    metrics["codes_used"] = jnp.sum(found.counts > 0).astype(jnp.float32)
    codebook = quantize.update(state.codebook, found, decay=config.codebook_decay)
    return metrics["loss"], Aux(Quantiser(codebook, state.selector), metrics)


def training_codes(
    parts: Parts,
    params: Any,
    state: Quantiser,
    key: jax.Array,
    history: jax.Array,
    row: jax.Array,
    weight: jax.Array,
) -> tuple[jax.Array, quantize.Codes]:
    """The codes that a training batch picks.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: the codebook before the batch.
      key: of the Gumbel noise, each row's own.
      history: f32[B, L, D] embedded histories.
      row: i32[B] global row.
      weight: f32[B], 0 on padding rows.

    Returns:
      Codes f32[B, L, D], and the means of the histories that picked each.
    """
    config = parts.config
    logits = _logits(parts, params, state, history)
    gumbel = rng.gumbel(key, row, (config.num_codes,))
    labels = quantize.assign(logits, gumbel)
    found = quantize.code_means(history, labels, weight, config.num_codes, parts.axis_name)
    if config.svq == "official":
        return quantize.pick(found.means, labels), found
    hot = quantize.straight_through(logits, gumbel, temperature=config.code_temperature)
    return jnp.einsum("bk,kld->bld", hot, jax.lax.stop_gradient(state.codebook)), found


def evaluation_codes(
    parts: Parts,
    params: Any,
    state: Quantiser,
    key: jax.Array,
    history: jax.Array,
    row: jax.Array,
    kind: EvalCodes,
) -> jax.Array:
    """The codes of queries, f32[B, L, D]; arguments as of `training_codes`."""
    config, trained = parts.config, parts.config.svq == "paper"
    logits = _logits(parts, params, state, history)
    if kind == "frozen":
        return quantize.pick(state.codebook, quantize.assign(logits))
    gumbel = None if trained else rng.gumbel(key, row, (config.num_codes,))
    labels = quantize.assign(logits, gumbel)
    real = (row >= 0).astype(history.dtype)
    found = quantize.code_means(history, labels, real, config.num_codes)
    # rows pick only codes that some row picked, so the old codebook shows in none of them
    decay = config.codebook_decay if trained else 0.0
    return quantize.pick(quantize.update(state.codebook, found, decay=decay), labels)


def chain(
    parts: Parts,
    params: Any,
    state: Quantiser,
    key: jax.Array,
    query: SequenceQuery,
    kind: EvalCodes | None = None,
) -> Chain:
    """The reverse process of every query, f32[B, D], from noise to the next item.

    `kind` is of the codes: those that the settings and the protocol evaluate with by default.
    """
    config, kind = parts.config, kind or eval_codes(parts)
    k_start, k_steps, k_code = jax.random.split(key, 3)
    seq = latest_last(query.seq, parts.net.max_len)
    history = call(parts, params, "embed", seq)
    codes = evaluation_codes(parts, params, state, k_code, history, query.row_id, kind)
    base = config.history_weight * history + config.code_weight * codes
    table = call(parts, params, "steps", jnp.arange(config.num_steps))

    def denoise(xt, t):
        z = base + (config.inject * (xt + table[t]))[:, None]
        return call(parts, params, read_last, z, seq > 0)

    shape = (config.width,)
    start = rng.normal(k_start, query.row_id, shape)
    draw = samplers.draw_rows(k_steps, query.row_id, shape) if parts.noisy else None
    return Chain(parts.steps, denoise, start, draw)


def sample(
    parts: Parts, params: Any, state: Quantiser, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Estimates of the next item's embedding, f32[B, D]: ends of `chain`."""
    return process.run(chain(parts, params, state, key, query))


def other_codes(parts: Parts, params: Any, state: Quantiser, query: SequenceQuery) -> jax.Array:
    """The same with the codes that `sample` does not take, f32[B, D]."""
    kind = _OTHER[eval_codes(parts)]
    # the noise of a variant is fixed: it is keyed by the row like all noise
    return process.run(chain(parts, params, state, jax.random.key(0), query, kind))


def head(parts: Parts, params: Any, state: Quantiser) -> Head:
    """The items' rows; under the official protocol the padding row competes as an item I + 1."""
    del state
    return head_of(params["items"], parts.net.num_items, parts.protocol)


def build(
    config: DiQDiffConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiQDiff as pure functions, with the other evaluation codes as a variant.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`, over whose whole batch codes and contrast
        are taken; None under `jit`, which sees the whole batch.
      protocol: "official" evaluates with the codes of the batch, whatever `eval_codes` says, and
        lets the padding row compete, as an item I + 1 that nobody wants.
    """
    made = parts(config, spec, axis_name=axis_name, protocol=protocol)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(network.noised_target, made),
        variants={f"{_OTHER[eval_codes(made)]}_codes": partial(other_codes, made)},
    )


def call(parts: Parts, params: Any, method: Any, *args: Any, **options: Any) -> Any:
    """A method of the network under its parameters, to which the selector does not belong."""
    of_net = {name: leaf for name, leaf in params.items() if name != "selector"}
    return network.call(parts, of_net, method, *args, **options)


def eval_codes(parts: Parts) -> EvalCodes:
    """Which codes are evaluated with: the protocol's, or those of the settings."""
    return "official" if parts.protocol == "official" else parts.config.eval_codes


def _logits(parts: Parts, params: Any, state: Quantiser, history: jax.Array) -> jax.Array:
    """What the selector makes of histories, f32[B, K]."""
    selector = params["selector"] if parts.config.svq == "paper" else state.selector
    return history.reshape(history.shape[0], -1) @ selector["kernel"] + selector["bias"]


def _whole(seq: Any, max_len: int) -> jax.Array:
    """i32[B, L] with the latest items last, from histories of one or of several lengths."""
    return types.over_lengths(partial(latest_last, max_len=max_len), seq)


SYSTEM = System(
    config=DiQDiffConfig, build=build, official=HISTORIES_COMPETE, input=SEQUENCES,
    item_table=ItemTable(lambda config: 1.0),
)  # fmt: skip
