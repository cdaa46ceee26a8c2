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

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, check_diffusion, plan, refuse_closed_form
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.embeddings import sinusoidal
from jaxrec_diff.nets.transformer import MaskMode, Memory, Places, Projection, Transformer, places
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


class DiffRec2Net(nn.Module):
    """All parameters of DiffRec2; row 0 of `items` is padding and row I + 1 is [unk]."""

    num_items: int
    max_len: int
    config: DiffRec2Config

    def setup(self) -> None:
        config, width = self.config, self.config.width
        scale = 1.0 if config.out_norm else 0.02
        normal = nn.initializers.normal
        self.items = self.param("items", normal(scale), (self.num_items + 2, width))
        self.positions = self.param(
            "positions", normal(config.position_scale), (self.max_len + 1, width)
        )
        self.transformer = Transformer(
            width=width,
            num_blocks=config.num_blocks,
            num_heads=config.num_heads,
            hidden=4 * width,
            dropout_rate=config.dropout_rate,
            kernels="xavier",
            last_norm=config.out_norm,
        )
        self.out = None if config.out_norm else Projection(width, "xavier", "zero")
        xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
        table = None if config.tie_head else self.param("head", xavier, (self.num_items, width))
        self.table = table
        self.bias = self.param("bias", nn.initializers.zeros, (self.num_items,))
        self.dropout = Dropout(config.embedding_dropout_rate)

    def __call__(self, seq: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        history = self.embed(seq)
        return self.denoise(history, seq > 0, history[:, 0], jnp.int32(0))

    def head(self) -> tuple[jax.Array, jax.Array]:
        """W f32[I, D] and b f32[I]."""
        return self.items[1:-1] if self.table is None else self.table, self.bias

    def embed(self, seq: jax.Array, deterministic: bool = True) -> jax.Array:
        """i32[B, L] -> f32[B, L, D]"""
        return self.dropout(self.items[seq], deterministic=deterministic)

    def denoise(
        self,
        history: jax.Array,
        mask: jax.Array,
        xt: jax.Array,
        t: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """The estimate of h0, f32[B, D], read in the noised place.

        Args:
          history: f32[B, L, D] embeddings, right-padded.
          mask: bool[B, L], real places.
          xt: f32[B, D] the noised embedding.
          t: i32[] or i32[B] steps, n - 1.
        """
        if self.config.history_blind:
            memory = self.remember(history, mask, deterministic)
            return self.follow(memory, mask, xt[:, None], t, deterministic)[:, 0]
        step = self.step(t)
        if step.ndim == 2:
            step = step[:, None]
        last = (xt + self.positions[-1])[:, None]
        x = jnp.concatenate([history + self._placed(mask), last], axis=1) + step
        everywhere = jnp.pad(mask, ((0, 0), (0, 1)), constant_values=True)
        read = jnp.full(xt.shape[:1], mask.shape[1], jnp.int32)
        where = places(everywhere, self.config.mask_mode)
        out = self.transformer(x, where, read=read, deterministic=deterministic)
        return out if self.out is None else self.out(out)

    def remember(
        self, history: jax.Array, mask: jax.Array, deterministic: bool = True
    ) -> tuple[Memory, ...]:
        """history_blind: what the noised place needs of its history, whatever the step."""
        x = history + self._placed(mask)
        return self.transformer.remember(x, self._places(mask), deterministic=deterministic)

    def follow(
        self,
        memory: tuple[Memory, ...],
        mask: jax.Array,
        xt: jax.Array,
        t: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """history_blind: estimates for S noised places a user, f32[B, S, D] -> f32[B, S, D]."""
        step = self.step(t)
        if step.ndim == 2:
            step = step[:, None]
        out = self.transformer.follow(
            xt + self.positions[-1] + step,
            self._places(mask),
            memory,
            deterministic=deterministic,
        )
        return out if self.out is None else self.out(out)

    def step(self, t: jax.Array) -> jax.Array:
        """z_n of Eq. 3 for n = t + 1: f32[..., D], sines and cosines interleaved."""
        n = (t + 1) * (1000 / self.config.num_steps if self.config.rescale_steps else 1)
        return sinusoidal(jnp.asarray(n), self.config.width, variant="interleaved")

    def _places(self, mask: jax.Array) -> Places:
        return places(mask, self.config.mask_mode)

    def _placed(self, mask: jax.Array) -> jax.Array:
        """Positions f32[B, L, D]: the latest item has the last one but one, whatever the length,
        and padding the first ones, as if it stood on the left."""
        place = jnp.arange(mask.shape[1]) - mask.sum(axis=1)[:, None]
        return self.positions[jnp.mod(place, self.max_len)]


def build(
    config: DiffRec2Config,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiffRec2 as four pure functions and the other way to recommend as a variant.

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
    net = DiffRec2Net(num_items=spec.num_items, max_len=spec.max_len, config=config)
    levels = forward.levels(make_betas(config))
    tables = forward.tables(levels)
    steps, noisy = plan(config.sampler, levels)
    jitter = config.beta_item**0.5

    def call(params, method, *args, **kwargs):
        return net.apply({"params": params}, *args, method=method, **kwargs)

    def whole(seq):
        """Histories as long as padding has to be: where it is hidden, as they are."""
        missing = 0 if config.mask_mode == "key" else spec.max_len - seq.shape[1]
        return jnp.pad(seq, ((0, 0), (0, missing)))

    def init(key, example):
        seq = example.seq[0] if isinstance(example.seq, tuple) else example.seq
        return Variables(
            net.init(key, seq)["params"],
            timesteps.init_history(config.num_steps) if config.step_sampler == "importance" else (),
        )

    def jittered(key, row, history):
        eps = rng.normal(key, row, history.shape[1:])
        return history + jitter * eps if config.jitter_history else history

    def estimate(params, key, seq, row, xt, t):
        """f with dropout, every row under a key of its own."""
        seq = whole(seq)
        k_jitter, k_drop = jax.random.split(key)

        def one(seq, row, xt, t, key):
            k_embed, k_net = jax.random.split(key)
            rngs = [{"dropout": k} for k in (k_embed, k_net)]
            history = call(params, "embed", seq[None], deterministic=False, rngs=rngs[0])
            history = jittered(k_jitter, row[None], history)
            args = (history, seq[None] > 0, xt[None], t[None])
            return call(params, "denoise", *args, deterministic=False, rngs=rngs[1])[0]

        return jax.vmap(one)(seq, row, xt, t, rng.row_keys(k_drop, row))

    def loss(params, state, key, example):
        k_t, k_item, k_eps, k_net = jax.random.split(key, 4)
        row, weight = example.row_id, jnp.ones_like(example.weight)
        if config.step_sampler == "importance":
            t, weight = timesteps.importance(k_t, row, state)
        else:
            t = timesteps.uniform(k_t, row, config.num_steps)
        clean = params["items"][example.target]
        x0 = clean + jitter * rng.normal(k_item, row, clean.shape[1:])
        xt = forward.q_sample(tables, x0, t, rng.normal(k_eps, row, x0.shape[1:]))
        x0_hat = types.over_lengths(partial(estimate, params, k_net), example.seq, row, xt, t)
        aim = jnp.where((t == 0)[:, None], clean, x0)
        if config.stop_grad_target:
            aim = jax.lax.stop_gradient(aim)
        squared = losses.mse(x0_hat, aim) * (config.width if config.mse_reduction == "sum" else 1)
        table, bias = call(params, "head")
        rec = losses.full_softmax(x0, table, example.target - 1, bias)
        each = config.mse_weight * weight * squared + config.rec_weight * rec
        if config.ce_weight > 0:
            each += config.ce_weight * losses.full_softmax(x0_hat, table, example.target - 1, bias)

        def mean(values):
            return losses.weighted_mean(values, example.weight, axis_name)

        if config.step_sampler == "importance":
            state = timesteps.update_history(state, t, squared, example.weight, axis_name)
        value = mean(each)
        return value, Aux(state, {"loss": value, "mse": mean(weight * squared), "rec": mean(rec)})

    def denoiser(params, key, query):
        """(xt f32[B, D] or [B, S, D], t i32[]) -> x0_hat, with all that has no step hoisted."""
        seq = whole(query.seq)
        mask = seq > 0
        history = jittered(key, query.row_id, call(params, "embed", seq))
        if config.history_blind:
            memory = call(params, "remember", history, mask)

            def follow(xt, t):
                flat = xt if xt.ndim == 3 else xt[:, None]
                return call(params, "follow", memory, mask, flat, t).reshape(xt.shape)

            return follow

        def denoise(xt, t):
            if xt.ndim == 2:
                return call(params, "denoise", history, mask, xt, t)
            # one seed at a time: all at once would hold S times the activations
            one = jax.lax.map(lambda x: denoise(x, t), jnp.moveaxis(xt, 1, 0))
            return jnp.moveaxis(one, 0, 1)

        return denoise

    def start(params, eps):
        return tables.signal[-1] * params["items"][-1] + tables.noise[-1] * eps

    def efficient(params, key, query):
        k_start, k_jitter = jax.random.split(key)
        eps = rng.normal(k_start, query.row_id, (config.num_seeds, config.width))
        denoise = denoiser(params, k_jitter, query)
        found = denoise(start(params, eps), jnp.int32(config.num_steps - 1))
        if config.seed_average == "vector":
            return found.mean(axis=1)
        return _as_logits(found, call(params, "head"))

    def chain(params, state, key, query):
        del state
        k_start, k_jitter, k_steps = jax.random.split(key, 3)
        shape = (config.width,)
        eps = rng.normal(k_start, query.row_id, shape)
        draw = samplers.draw_rows(k_steps, query.row_id, shape) if noisy else None
        denoise = denoiser(params, k_jitter, query)
        return Chain(steps, denoise, start(params, eps), draw)

    def full(params, key, query):
        found = process.run(chain(params, (), key, query))
        if config.seed_average == "vector":
            return found
        return _as_logits(found[:, None], call(params, "head"))

    ways = {"efficient": efficient, "full": full}
    chosen = ways.pop(config.inference)

    def sample(params, state, key, query):
        del state
        return chosen(params, key, query)

    def variant(way):
        # the noise of a variant is fixed: it is keyed by the row like all noise
        return lambda params, state, query: way(params, jax.random.key(0), query)

    def head(params, state):
        del state
        table, bias = call(params, "head")
        if config.seed_average == "prob":
            table = jnp.pad(table, ((0, 0), (0, 1)), constant_values=1.0)
        return Head(table, bias)

    return Model(
        init,
        loss,
        sample,
        head,
        chain if config.inference == "full" else None,
        variants={name: variant(way) for name, way in ways.items()},
        score_pooling="mixture" if config.seed_average == "prob" else "best",
    )


def make_betas(config: DiffRec2Config):
    """beta_1 .. beta_N, float64[N]."""
    options = {}
    if config.schedule in ("linear", "linear_scaled"):
        options = {"start": config.beta_start, "stop": config.beta_stop}
    return schedules.named(config.schedule, config.num_steps, **options)


def _as_logits(points: jax.Array, head: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Points f32[B, S, D] and minus the log-normaliser of each softmax, f32[B, S, D + 1]: scored
    against [W, 1] they give log probabilities up to the bias."""
    table, bias = head
    normaliser = losses.log_normaliser(points.reshape(-1, points.shape[-1]), table, bias)
    return jnp.concatenate([points, -normaliser.reshape(*points.shape[:2], 1)], axis=-1)


SYSTEM = System(
    config=DiffRec2Config,
    build=build,
    official=HISTORIES_COMPETE,
    input=SEQUENCES,
    accepts_buckets=lambda config: True,
)
