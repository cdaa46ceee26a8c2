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
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, process, samplers, schedules, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain, Denoiser, Steps
from jaxrec_diff.models.contract import (
    Aux,
    DataSpec,
    Head,
    Model,
    Variables,
    check_heads,
    head_of,
)
from jaxrec_diff.models.network import by_row, call, noised_target
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.embeddings import StepEmbedding
from jaxrec_diff.nets.transformer import MaskMode, Norm, Places, Transformer, padded, places
from jaxrec_diff.ops import filled, rng

EPSILON = 1e-12  # of every LayerNorm
Schedule = Literal["trunc_lin", "linear", "cosine", "sqrt", "trunc_cos", "pw_lin"]


@dataclass(frozen=True, kw_only=True)
class DiffuRecConfig:
    """Settings of DiffuRec."""

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
        check_heads(self.width, self.num_heads, halves=True)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.within("model.history-dropout-rate", self.history_dropout_rate, 0, 0.999)
        validation.finite("model.lambda-mean", self.lambda_mean)
        validation.at_least("model.lambda-std", self.lambda_std, 0)
        check_released_schedule(self.schedule, self.num_steps)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        refuse_closed_form(self.sampler, "mean")


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
        normal = nn.initializers.normal(1.0)
        self.items = self.param("items", filled.drawn(normal), (self.num_items + 1, c.width))
        if c.positions:
            self.positions = self.param("positions", normal, (self.max_len, c.width))
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
        also: int = 0,
    ) -> Any:
        """x_0 at the last item: f32[B, L, D], f32[B, 1 or L, D], i32[B, L] -> f32[B, D].

        `injected` is lambda (x_t + tau(t)); below bfloat16's resolution of the history, so both
        are float32. `also` as of `Transformer`.
        """
        where = places(seq > 0, self.config.mask) if where is None else where
        last = jnp.maximum(jnp.sum(seq > 0, axis=-1) - 1, 0)
        return self.transformer(
            history + injected, where, read=last, also=also, deterministic=deterministic
        )


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: DiffuRecConfig
    net: DiffuRecNet
    tables: Forward  # of the forward process
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None
    protocol: Protocol


def parts(
    config: DiffuRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Parts:
    """The network and the tables of DiffuRec; arguments as of `build`."""
    net = DiffuRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config)
    levels = forward.levels(released_betas(config.schedule, config.num_steps))
    steps, noisy = plan(config.sampler, levels)
    return Parts(config, net, forward.tables(levels), steps, noisy, axis_name, protocol)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and the losses of each step where those decide which are drawn."""
    params = parts.net.init(key, types.first_length(example.seq))["params"]
    aware = parts.config.step_sampler == "lossaware"
    return Variables(params, timesteps.init_history(parts.config.num_steps) if aware else ())


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """Cross entropy of the estimate over the item table; arXiv:2304.00686, training.

        L = -log softmax(E x0_hat)_j,  x0_hat = f(history + lambda (x_t + tau(t)))

    times 1 / (T p_t) where steps are not drawn uniformly.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), or the last losses of each step under step_sampler="lossaware".
      key: of the steps, the noise, lambda and dropout, each row's own.
      example: B histories with their targets, of one or of several lengths.

    Returns:
      f32[] the weighted mean, and `Aux` with the state after it and the metric "loss".

    >>> config = DiffuRecConfig(width=8, num_blocks=1, schedule="sqrt", num_steps=3)
    >>> made = parts(config, DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss'])
    """
    config = parts.config
    k_t, k_eps, k_net = jax.random.split(key, 3)
    x0 = params["items"][example.target]
    if config.target == "stopped":
        x0 = jax.lax.stop_gradient(x0)
    t, step_weight = draw_steps(config, k_t, state, example.row_id)
    xt = forward.q_sample(parts.tables, x0, t, rng.normal(k_eps, example.row_id, x0.shape[1:]))
    y = xt + call(parts, params, "steps", t)
    keys = rng.row_keys(k_net, example.row_id)
    points = types.over_lengths(partial(estimate, parts, params), example.seq, y, keys)
    classes = 0 if config.pad_class else 1, parts.net.num_items + 1
    each = losses.full_softmax(points, params["items"], example.target, classes=classes)
    if config.step_sampler == "lossaware":
        state = timesteps.update_history(state, t, each, example.weight, parts.axis_name)
    value = losses.weighted_mean(step_weight * each, example.weight, parts.axis_name)
    return value, Aux(state, {"loss": value})


def estimate(
    parts: Parts, params: Any, seq: jax.Array, y: jax.Array, keys: jax.Array, *, also: int = 0
) -> Any:
    """x0_hat with the noise of training, of histories of one length.

    Args:
      parts: from `parts`.
      params: of `init`.
      seq: i32[B, L_k] right-padded.
      y: f32[B, D] x_t + tau(t).
      keys: key[B], of lambda and dropout.
      also: as of `Transformer`.

    Returns:
      f32[B, D], or a pair of them.
    """
    config = parts.config
    seq, where = padded(seq, config.mask, parts.net.max_len, one=config.pads == "one")
    k_lambda, k_embed, k_read = rng.split(keys, 3)
    scale = _lambda_by_row(config, k_lambda, (seq.shape[1], config.width))
    history = by_row(partial(call, parts, params, "embed"), k_embed, seq)
    read = partial(call, parts, params, "read", also=also)
    return by_row(read, k_read, history, scale * y[:, None], seq, where)


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The reverse process of every query, f32[B, D], from noise to the next item."""
    del state
    k_start, k_steps, k_lambda = jax.random.split(key, 3)
    shape = (parts.config.width,)
    start = rng.normal(k_start, query.row_id, shape)
    draw = samplers.draw_rows(k_steps, query.row_id, shape) if parts.noisy else None
    table = call(parts, params, "steps", jnp.arange(parts.config.num_steps))
    return Chain(parts.steps, denoiser(parts, params, k_lambda, query, table), start, draw)


def denoiser(
    parts: Parts, params: Any, key: jax.Array, query: SequenceQuery, table: jax.Array
) -> Denoiser:
    """(x_t, t) -> x0_hat of the queries' histories, without dropout.

    Args:
      parts: from `parts`.
      params: of `init`.
      key: of lambda.
      query: B histories.
      table: f32[T, D] the embedding of every step.
    """
    config = parts.config
    drawn = config.lambda_draw != "mean" and config.lambda_std > 0
    one = config.pads == "one" or not drawn
    seq, where = padded(query.seq, config.mask, parts.net.max_len, one=one)
    history = call(parts, params, "embed", seq)

    def scale(key):
        keys = rng.row_keys(key, query.row_id)
        return _lambda_by_row(config, keys, history.shape[1:])

    once = scale(key) if drawn and config.lambda_draw == "per_user" else config.lambda_mean

    def denoise(xt, t):
        per_step = drawn and config.lambda_draw == "per_step"
        weight = scale(jax.random.fold_in(key, t)) if per_step else once
        injected = weight * (xt + table[t])[:, None]
        return call(parts, params, "read", history, injected, seq, where)

    return denoise


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Estimates of the next item's embedding, f32[B, D]: ends of `chain`."""
    return process.run(chain(parts, params, state, key, query))


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows; under the official protocol the padding row competes as an item I + 1."""
    del state
    return head_of(params["items"], parts.net.num_items, parts.protocol)


def build(
    config: DiffuRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """DiffuRec as pure functions.

    Histories may come in several lengths (`types.over_lengths`). Under mask="key" they are all
    that is computed, exactly; under the released mask see `DiffuRecConfig.pads`.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: "official" lets the padding row compete, as an item I + 1 that nobody wants.
    """
    made = parts(config, spec, axis_name=axis_name, protocol=protocol)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        noised=partial(noised_target, made),
    )


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


def _lambda_by_row(config: DiffuRecConfig, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.vmap(partial(draw_lambda, config, shape=shape))(keys)


SYSTEM = System(
    config=DiffuRecConfig,
    build=build,
    official=HISTORIES_COMPETE,
    input=SEQUENCES,
    accepts_buckets=lambda config: True,
    item_table=ItemTable(lambda config: 1.0),
)
