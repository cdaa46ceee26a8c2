"""DiffuRec: the noised target scaled into every place of the history (arXiv:2304.00686).

The next item's embedding x_0 is noised to x_t; x_t and the step's embedding, times a tiny random
lambda, are added to every place of the history; a bidirectional Transformer reads that, and its
output at the last item is the estimate of x_0. Training is softmax cross entropy of that estimate
against the item table; recommending is the reverse chain from noise, then the inner product.

Where the paper and the released code differ the default follows the code: lambda has mean and
*deviation* 0.001 (not variance), there are no positions, the mask hides the *rows* of padding and
not its columns, the padding row is a class of the softmax, the reverse noise is sqrt(beta), and
steps are drawn uniformly although the sampler is named loss-aware.

Under the released mask every padding place is looked at, so a history of n items is not a short
sequence: it is one of L places. `pads` says how that is computed.
"""

import warnings
from dataclasses import dataclass, field
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables, padding_last
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.embeddings import StepEmbedding
from jaxrec_diff.nets.transformer import MaskMode, Norm, Places, Transformer, places
from jaxrec_diff.ops import rng

EPSILON = 1e-12  # of every LayerNorm
Schedule = Literal["trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin"]


@dataclass(frozen=True, kw_only=True)
class DiffuRecConfig:
    """Settings of DiffuRec; the defaults are the released code's."""

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
    positions: bool = False
    """Add learned positions, counted from the last item; the released code has none, and is blind
    to the order of all items but the last."""
    mask: MaskMode = "query"
    """query: padding is looked at, its own rows look at everything alike (released); key: padding
    is hidden (textbook); none."""
    pads: Literal["all", "one"] = "all"
    """Padding where it is looked at. all: L - n places of their own; one: a single place with the
    weight of all, which is the same function of deterministic inputs, but in training those places
    then share their dropout and their lambda. Evaluation with lambda_draw=mean always takes one,
    because there nothing is drawn."""
    schedule: Schedule = "trunc_lin"
    """Noise schedule."""
    num_steps: int = 32
    """Diffusion steps T."""
    rescale_steps: bool = True
    """Embed 1000 t / T instead of t."""
    step_sampler: Literal["uniform", "fixstep", "lossaware"] = "uniform"
    """How training draws t. fixstep: the first half of the steps twice as likely; lossaware: in
    proportion to the root mean square of each step's last ten losses. Both divide the loss by
    T p_t; the released code's "lossaware" never sees a loss and is uniform."""
    lambda_mean: float = 1e-3
    """Mean of what scales x_t and the step's embedding into the history."""
    lambda_std: float = 1e-3
    """Its deviation; every place, coordinate and call has its own draw in training."""
    lambda_draw: Literal["per_step", "per_user", "mean"] = "mean"
    """Lambda at evaluation. per_step: drawn at every reverse step (released); per_user: drawn once;
    mean: not drawn, which ranks the same to within the noise of a draw."""
    target: Literal["learned", "stopped"] = "learned"
    """Whether a gradient reaches the item table through the noised target."""
    pad_class: bool = True
    """The padding row is a class of the training softmax (released)."""
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(noise="std_large", spacing="leading")
    )
    """The reverse path; leading, so that few steps end in step 0 as all do."""

    def __post_init__(self) -> None:
        validation.at_least("model.num-blocks", self.num_blocks, 1)
        check_heads(self.width, self.num_heads)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.within("model.history-dropout-rate", self.history_dropout_rate, 0, 0.999)
        validation.finite("model.lambda-mean", self.lambda_mean)
        validation.at_least("model.lambda-std", self.lambda_std, 0)
        check_released_schedule(self.schedule, self.num_steps)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        refuse_closed_form(self.sampler, "mean")


def check_heads(width: int, num_heads: int) -> None:
    """Refuses heads that do not divide the width, and a width without two halves.

    Raises:
      ValueError: naming the nearest width.
    """
    validation.at_least("model.num-heads", num_heads, 1)
    unit = num_heads if num_heads % 2 == 0 else 2 * num_heads
    if width < unit or width % unit:
        near = max(round(width / unit), 1) * unit
        raise ValueError(
            f"model.width must be a multiple of {unit} (two halves, {num_heads} heads), got "
            f"{width}; the nearest is {near}"
        )


def check_released_schedule(schedule: str, num_steps: int) -> None:
    """Refuses too few steps for a schedule of DiffuRec's and DiQDiff's code.

    Raises:
      ValueError: naming the fewest steps.
    """
    low = {"linear": 20, "pw_lin": 11}.get(schedule, 1)
    if num_steps < low:
        raise ValueError(
            f"model.num-steps must be at least {low} for model.schedule={schedule}, got {num_steps}"
        )
    if schedule == "trunc_lin" and num_steps <= 20:
        warnings.warn(
            f"model.schedule=trunc_lin with model.num-steps={num_steps} does not end in noise "
            "(abar_T is 0.46 at 20 steps, 4e-9 at 21), but sampling starts from noise",
            stacklevel=2,
        )


def released_betas(schedule: Schedule, num_steps: int) -> np.ndarray:
    """float64[T]; the code's "linear" is the one scaled by 1000 / T."""
    return schedules.named("linear_scaled" if schedule == "linear" else schedule, num_steps)


class DiffuRecNet(nn.Module):
    """All parameters of DiffuRec; row 0 of `items` is padding, an ordinary row."""

    num_items: int
    max_len: int
    config: DiffuRecConfig

    def setup(self) -> None:
        c = self.config
        self.items = self.param("items", nn.initializers.normal(1.0), (self.num_items + 1, c.width))
        if c.positions:
            self.positions = self.param(
                "positions", nn.initializers.normal(1.0), (self.max_len, c.width)
            )
        self.norm_in = Norm(EPSILON)
        self.history_dropout = Dropout(c.history_dropout_rate)
        self.step = StepEmbedding(c.width, 4 * c.width, "silu", "cos_sin")
        self.transformer = Transformer(
            width=c.width,
            num_blocks=c.num_blocks,
            num_heads=c.num_heads,
            hidden=4 * c.width,
            dropout_rate=c.dropout_rate,
            stream_dropout_rate=c.dropout_rate,
            kernels="mixed",
            epsilon=EPSILON,
        )

    def __call__(self, seq: jax.Array) -> jax.Array:
        """Touches every parameter, for `init` only."""
        zeros = jnp.zeros(seq.shape[:1], jnp.int32)
        return self.read(self.embed(seq), self.steps(zeros)[:, None], seq)

    def steps(self, t: jax.Array) -> jax.Array:
        """i32[...] -> f32[..., D] the step's embedding."""
        scale = 1000.0 / self.config.num_steps if self.config.rescale_steps else 1.0
        return self.step(t * scale)

    def embed(self, seq: jax.Array, deterministic: bool = True) -> jax.Array:
        """i32[B, L] -> f32[B, L, D] the history before anything is injected."""
        x = self.items[seq]
        if self.config.positions:
            real = seq > 0
            # The last item is place L - 1; padding has no place, so all of it is alike.
            place = self.max_len - real.sum(axis=-1, keepdims=True) + jnp.arange(seq.shape[-1])
            x = x + self.positions[place % self.max_len] * real[..., None]
        return self.norm_in(self.history_dropout(x, deterministic=deterministic))

    def read(
        self,
        history: jax.Array,
        injected: jax.Array,
        seq: jax.Array,
        where: Places | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """x_0 at the last item: f32[B, L, D], f32[B, 1 or L, D], i32[B, L] -> f32[B, D].

        `injected` is lambda (x_t + tau(t)); below bfloat16's resolution of the history, so both
        are float32.
        """
        where = places(seq > 0, self.config.mask) if where is None else where
        last = jnp.maximum(jnp.sum(seq > 0, axis=-1) - 1, 0)
        return self.transformer(history + injected, where, read=last, deterministic=deterministic)


def padded(seq: jax.Array, mask: MaskMode, max_len: int, *, one: bool) -> tuple[jax.Array, Places]:
    """The places that a history of any length stands for.

    Args:
      seq: i32[B, L_k] right-padded histories, L_k <= L.
      mask: whether padding is looked at.
      max_len: L, places of a whole sequence.
      one: let one place stand for all L - n of padding, where they are looked at.

    Returns:
      Ids i32[B, L_k], [B, L_k + 1] or [B, L] and how the places look at one another.
    """
    if mask == "key":
        return seq, places(seq > 0)
    width = seq.shape[1]
    if not one:
        seq = jnp.pad(seq, ((0, 0), (0, max_len - width)))
        return seq, places(seq > 0, mask)
    seq = jnp.pad(seq, ((0, 0), (0, 1)))
    real = seq > 0
    missing = (max_len - real.sum(axis=-1, keepdims=True)).astype(jnp.float32)
    count = jnp.where(jnp.arange(width + 1) == width, missing, real.astype(jnp.float32))
    return seq, places(real, mask, count)


def draw_steps(
    config: DiffuRecConfig, key: jax.Array, state: timesteps.History | tuple[()], row: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """i32[B] steps and their weights f32[B], 1 / (T p_t) where p is not uniform."""
    if isinstance(state, timesteps.History):
        return timesteps.importance(key, row, state)
    if config.step_sampler == "fixstep":
        probs = jnp.asarray(timesteps.fixed_step_weights(config.num_steps), jnp.float32)
        return timesteps.categorical(key, row, probs)
    return timesteps.uniform(key, row, config.num_steps), jnp.ones(row.shape)


def draw_lambda(config: DiffuRecConfig, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """f32[shape], every entry N(mean, std^2)."""
    return config.lambda_mean + config.lambda_std * jax.random.normal(key, shape)


def build(
    config: DiffuRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiffuRec as four pure functions.

    Histories may come in several lengths (`types.over_lengths`). Under mask="key" they are all
    that is computed, exactly; under the released mask see `DiffuRecConfig.pads`.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: "official" lets the padding row compete, as an item I + 1 that nobody wants.
    """
    net = DiffuRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config)
    betas = released_betas(config.schedule, config.num_steps)
    levels = forward.levels(betas)
    tables = forward.tables(levels)
    path, noisy = plan(config.sampler, levels)

    def call(params, method, *args, **kwargs):
        return net.apply({"params": params}, *args, method=method, **kwargs)

    def init(key, example):
        seq = example.seq[0] if isinstance(example.seq, tuple) else example.seq
        params = net.init(key, seq)["params"]
        aware = config.step_sampler == "lossaware"
        return Variables(params, timesteps.init_history(config.num_steps) if aware else ())

    def estimate(params, seq, y, keys):
        """x_0 with the noise of training: i32[B, L_k], f32[B, D], key[B] -> f32[B, D]."""
        seq, where = padded(seq, config.mask, spec.max_len, one=config.pads == "one")

        def one(seq, where, y, key):
            k_lambda, k_embed, k_read = jax.random.split(key, 3)
            scale = draw_lambda(config, k_lambda, (*seq.shape, config.width))
            history = call(params, "embed", seq[None], False, rngs={"dropout": k_embed})
            where = jax.tree.map(lambda leaf: leaf[None], where)
            return call(
                params, "read", history, (scale * y)[None], seq[None], where, False,
                rngs={"dropout": k_read},
            )[0]  # fmt: skip

        return jax.vmap(one)(seq, where, y, keys)

    def loss(params, state, key, example):
        k_t, k_eps, k_net = jax.random.split(key, 3)
        x0 = params["items"][example.target]
        if config.target == "stopped":
            x0 = jax.lax.stop_gradient(x0)
        t, step_weight = draw_steps(config, k_t, state, example.row_id)
        xt = forward.q_sample(tables, x0, t, rng.normal(k_eps, example.row_id, x0.shape[1:]))
        y = xt + call(params, "steps", t)
        keys = rng.row_keys(k_net, example.row_id)
        points = types.over_lengths(
            lambda seq, y, keys: estimate(params, seq, y, keys), example.seq, y, keys
        )
        first = 0 if config.pad_class else 1
        each = losses.full_softmax(points, params["items"][first:], example.target - first)
        if config.step_sampler == "lossaware":
            state = timesteps.update_history(state, t, each, example.weight, axis_name)
        value = losses.weighted_mean(step_weight * each, example.weight, axis_name)
        return value, Aux(state, {"loss": value})

    def chain(params, state, key, query):
        del state
        k_start, k_steps, k_lambda = jax.random.split(key, 3)
        drawn = config.lambda_draw != "mean" and config.lambda_std > 0
        seq, where = padded(
            query.seq, config.mask, spec.max_len, one=config.pads == "one" or not drawn
        )
        history = call(params, "embed", seq)
        table = call(params, "steps", jnp.arange(config.num_steps))

        def scale(key):
            keys = rng.row_keys(key, query.row_id)
            return jax.vmap(lambda key: draw_lambda(config, key, history.shape[1:]))(keys)

        once = scale(k_lambda) if drawn and config.lambda_draw == "per_user" else config.lambda_mean

        def denoise(xt, t):
            per_step = drawn and config.lambda_draw == "per_step"
            weight = scale(jax.random.fold_in(k_lambda, t)) if per_step else once
            return call(params, "read", history, weight * (xt + table[t])[:, None], seq, where)

        start = rng.normal(k_start, query.row_id, (config.width,))
        draw = samplers.draw_rows(k_steps, query.row_id, (config.width,)) if noisy else None
        return Chain(path, denoise, start, draw)

    def sample(params, state, key, query):
        return process.run(chain(params, state, key, query))

    def head(params, state):
        del state
        if protocol == "official":
            return Head(padding_last(params["items"]))
        return Head(params["items"][1:])

    return Model(init, loss, sample, head, chain)


SYSTEM = System(
    config=DiffuRecConfig,
    build=build,
    official=HISTORIES_COMPETE,
    input=SEQUENCES,
    accepts_buckets=lambda config: True,
)
