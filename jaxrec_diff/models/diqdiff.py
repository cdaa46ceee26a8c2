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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.diffusion import forward, process, samplers, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables, padding_last
from jaxrec_diff.models.diffurec import (
    DiffuRecConfig,
    DiffuRecNet,
    Schedule,
    check_heads,
    check_released_schedule,
    released_betas,
)
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.dense import uniform_fan_in
from jaxrec_diff.nets.transformer import MaskMode, places
from jaxrec_diff.ops import quantize, rng


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
    eval_codes: Literal["frozen", "official"] = "frozen"
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
        check_heads(self.width, self.num_heads)
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


def latest_last(seq: jax.Array, max_len: int) -> jax.Array:
    """Right-padded histories i32[B, L_k] with their latest item in place L - 1: i32[B, L].

    >>> import jax.numpy as jnp
    >>> latest_last(jnp.array([[7, 8, 0], [9, 0, 0]]), 4).tolist()
    [[0, 0, 7, 8], [0, 0, 0, 9]]
    """
    place = jnp.arange(max_len) - max_len + (seq > 0).sum(axis=1, keepdims=True)
    found = jnp.take_along_axis(seq, jnp.clip(place, 0, seq.shape[1] - 1), axis=1)
    return jnp.where(place >= 0, found, 0)


def read_last(net: DiffuRecNet, z: jax.Array, real: jax.Array, deterministic: bool = True):
    """The Transformer's output in the last place: f32[B, L, D], bool[B, L] -> f32[B, D]."""
    last = jnp.full(z.shape[:1], z.shape[1] - 1, jnp.int32)
    where = places(real, net.config.mask)
    return net.transformer(z, where, read=last, deterministic=deterministic)


def build(
    config: DiQDiffConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiQDiff as four pure functions, with the other evaluation codes as a variant.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`, over whose whole batch codes and contrast
        are taken; None under `jit`, which sees the whole batch.
      protocol: "official" evaluates with the codes of the batch, whatever `eval_codes` says, and
        lets the padding row compete, as an item I + 1 that nobody wants.
    """
    net = DiffuRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config.backbone())
    betas = released_betas(config.schedule, config.num_steps)
    levels = forward.levels(betas)
    tables = forward.tables(levels)
    path, noisy = plan(config.sampler, levels)
    trained = config.svq == "paper"

    def call(params, method, *args, **kwargs):
        of_net = {name: leaf for name, leaf in params.items() if name != "selector"}
        return net.apply({"params": of_net}, *args, method=method, **kwargs)

    def init(key, example):
        k_net, k_kernel, k_bias = jax.random.split(key, 3)
        seq = _whole(example.seq, spec.max_len)
        params = net.init(k_net, seq)["params"]
        inside = spec.max_len * config.width
        uniform = uniform_fan_in(inside)
        selector = {
            "kernel": uniform(k_kernel, (inside, config.num_codes)),
            "bias": uniform(k_bias, (config.num_codes,)),
        }
        # the first K histories of the first batch, over again where it has fewer
        first = jnp.arange(config.num_codes) % seq.shape[0]
        codebook = call(params, "embed", seq[first])
        if trained:
            return Variables(params | {"selector": selector}, Quantiser(codebook, ()))
        return Variables(params, Quantiser(codebook, selector))

    def logits_of(params, state, history):
        selector = params["selector"] if trained else state.selector
        flat = history.reshape(history.shape[0], -1)
        return flat @ selector["kernel"] + selector["bias"]

    def training_codes(params, state, key, history, row, weight):
        """Codes f32[B, L, D] of a training batch and the codebook after it."""
        logits = logits_of(params, state, history)
        gumbel = rng.gumbel(key, row, (config.num_codes,))
        labels = quantize.assign(logits, gumbel)
        found = quantize.code_means(history, labels, weight, config.num_codes, axis_name)
        codebook = quantize.update(state.codebook, found, decay=config.codebook_decay)
        if not trained:
            return quantize.pick(found.means, labels), codebook, found.counts
        hot = quantize.straight_through(logits, gumbel, temperature=config.code_temperature)
        kept = jax.lax.stop_gradient(state.codebook)
        return jnp.einsum("bk,kld->bld", hot, kept), codebook, found.counts

    def loss(params, state, key, example):
        k_t, k_eps, k_code, k_embed, k_read = jax.random.split(key, 5)
        row, weight = example.row_id, example.weight
        seq = _whole(example.seq, spec.max_len)

        def embed(seq, key):
            return call(params, "embed", seq[None], False, rngs={"dropout": key})[0]

        def read(z, real, key):
            rngs = {"dropout": key}
            return call(params, read_last, z[None], real[None], False, rngs=rngs)[0]

        history = jax.vmap(embed)(seq, rng.row_keys(k_embed, row))
        codes, codebook, counts = training_codes(params, state, k_code, history, row, weight)
        x0 = params["items"][example.target]
        t = timesteps.uniform(k_t, row, config.num_steps)
        xt = forward.q_sample(tables, x0, t, rng.normal(k_eps, row, x0.shape[1:]))
        injected = config.inject * (xt + call(params, "steps", t))
        z = config.history_weight * history + config.code_weight * codes + injected[:, None]
        points = jax.vmap(read)(z, seq > 0, rng.row_keys(k_read, row))
        if config.recon == "ce":
            recon = losses.full_softmax(points, params["items"], example.target)
        else:
            recon = config.width * losses.mse(points, x0)
        apart = losses.contrast(
            points, weight, temperature=config.contrast_temperature, axis_name=axis_name
        )

        def mean(values):
            return losses.weighted_mean(values, weight, axis_name)

        value = mean(recon + config.contrast_weight * apart)
        metrics = {"loss": value, "recon": mean(recon), "contrast": mean(apart)}
        metrics["codes_used"] = jnp.sum(counts > 0).astype(jnp.float32)
        return value, Aux(Quantiser(codebook, state.selector), metrics)

    def evaluation_codes(params, state, key, history, row, kind):
        logits = logits_of(params, state, history)
        if kind == "frozen":
            return quantize.pick(state.codebook, quantize.assign(logits))
        gumbel = None if trained else rng.gumbel(key, row, (config.num_codes,))
        labels = quantize.assign(logits, gumbel)
        real = (row >= 0).astype(history.dtype)
        found = quantize.code_means(history, labels, real, config.num_codes)
        # rows pick only codes that some row picked, so the old codebook shows in none of them
        decay = config.codebook_decay if trained else 0.0
        return quantize.pick(quantize.update(state.codebook, found, decay=decay), labels)

    def walk(params, state, key, query, kind):
        k_start, k_steps, k_code = jax.random.split(key, 3)
        seq = latest_last(query.seq, spec.max_len)
        history = call(params, "embed", seq)
        codes = evaluation_codes(params, state, k_code, history, query.row_id, kind)
        base = config.history_weight * history + config.code_weight * codes
        table = call(params, "steps", jnp.arange(config.num_steps))

        def denoise(xt, t):
            z = base + (config.inject * (xt + table[t]))[:, None]
            return call(params, read_last, z, seq > 0)

        shape = (config.width,)
        start = rng.normal(k_start, query.row_id, shape)
        draw = samplers.draw_rows(k_steps, query.row_id, shape) if noisy else None
        return Chain(path, denoise, start, draw)

    chosen = "official" if protocol == "official" else config.eval_codes
    other = "frozen" if chosen == "official" else "official"

    def chain(params, state, key, query):
        return walk(params, state, key, query, chosen)

    def sample(params, state, key, query):
        return process.run(chain(params, state, key, query))

    def variant(params, state, query):
        # the noise of a variant is fixed: it is keyed by the row like all noise
        return process.run(walk(params, state, jax.random.key(0), query, other))

    def head(params, state):
        del state
        if protocol == "official":
            return Head(padding_last(params["items"]))
        return Head(params["items"][1:])

    return Model(init, loss, sample, head, chain, variants={f"{other}_codes": variant})


def _whole(seq: Any, max_len: int) -> jax.Array:
    """i32[B, L] with the latest items last, from histories of one or of several lengths."""
    parts = seq if isinstance(seq, tuple) else (seq,)
    return jnp.concatenate([latest_last(part, max_len) for part in parts])


SYSTEM = System(config=DiQDiffConfig, build=build, official=HISTORIES_COMPETE, input=SEQUENCES)
