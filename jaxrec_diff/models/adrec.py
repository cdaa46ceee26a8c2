"""ADRec: every place of a history restores its own next item, at a step of its own
(arXiv:2505.19544).

A causal Transformer encodes the history, c. The next item of every place is noised to a step that
is drawn for that place alone; a second causal Transformer reads c + lambda (x_t + tau(t)) and
estimates all next items at once, against the catalogue and in squares. Training has three stages:
another recommender makes the rows of items (the backbone), all else learns on those rows, and after
some epochs the rows learn too.

To recommend, only the last place is walked back from noise; earlier places show the items that
followed them. No place sees a later one, so the earlier ones are computed once, exactly, and a
reverse step costs one place.

Where the paper and the released code differ the default follows the code, except that a frozen
table does stay as it is (`freeze`), and that one step recommends (`sampler`).
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import LAST_WINDOW, WINDOWS
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import forward, guidance, process, samplers, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig, plan, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain, Denoiser, Steps
from jaxrec_diff.models.adrec_places import Asked, ask, looked_up
from jaxrec_diff.models.adrec_table import check, trained_rows
from jaxrec_diff.models.contract import (
    Aux,
    DataSpec,
    Head,
    Model,
    Thaw,
    Variables,
    check_heads,
    head_of,
)
from jaxrec_diff.models.diffurec import Schedule, check_released_schedule, released_betas
from jaxrec_diff.models.network import by_row, call
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.models.sasrec import asks, next_items
from jaxrec_diff.nets.token_wise import TokenWise
from jaxrec_diff.nets.transformer import take
from jaxrec_diff.ops import gradients, rng


@dataclass(frozen=True, kw_only=True)
class ADRecConfig:
    """Settings of ADRec."""

    width: int = 128
    """Size d of embeddings and of the network; a backbone's rows must have it."""
    encoder_blocks: int = 2
    """Blocks that read the history."""
    denoiser_blocks: int = 2
    """Blocks that restore the next items."""
    num_heads: int = 4
    """Attention heads."""
    dropout_rate: float = 0.1
    """Dropout inside the Transformers."""
    history_dropout_rate: float = 0.3
    """Dropout of the history's embeddings."""
    mask: Literal["query", "key"] = "query"
    """query: padding on the left is looked at, its own rows look at everything before them alike
    (released); key: padding is hidden."""
    pads: Literal["all", "one"] = "all"
    """Padding where it is looked at. all: L - n places of their own; one: a single place with the
    weight of all, which is the same function of deterministic inputs, but in training those places
    then share their dropout. Evaluation always takes one."""
    windows: Literal["last", "all"] = "last"
    """Training examples. last: of each user the newest L + 1 items alone (released); all: windows
    in which every training item is a target once."""
    schedule: Schedule = "trunc_lin"
    """Noise schedule."""
    num_steps: int = 32
    """Diffusion steps T."""
    rescale_steps: bool = True
    """Embed 1000 t / T instead of t."""
    independent: bool = True
    """Whether every place has a step of its own, or a row's places share one."""
    lambda_scale: float = 1e-3
    """lambda, what x_t and the step's embedding are scaled by before the encoded history; constant.
    At the released .001 they change next to nothing of it; 0 leaves no diffusion at all."""
    x0_scale: Literal["raw", "unit"] = "raw"
    """raw: rows are noised as they are, which drowns those of rms .1; unit: divided by the rms of
    all items' rows."""
    ce_weight: float = 1.0
    """Weight of the cross entropy over the catalogue, in which every place counts alike."""
    mse_weight: float = 1.0
    """Weight of the squared error, in which every user counts alike."""
    pad_class: bool = True
    """The padding row is a class of the training softmax (released)."""
    pcgrad: bool = False
    """Where the gradients of the two losses are at odds, take from each what is against the other
    (arXiv:2001.06782)."""
    table: Literal["backbone", "random"] = "backbone"
    """What rows of items start from: those that the backbone has trained, or N(0, 1)."""
    freeze_epochs: int = 5
    """Epochs in which given rows stay as they are, while all else learns."""
    freeze: Literal["true", "released"] = "true"
    """true: they do stay; released: their gradient is zero, but weight decay moves them, under
    adam_l2 by the learning rate an update towards zero."""
    drop_rate: float = 0.3
    """Chance that training hides a row's whole history, where there is guidance."""
    guidance_weight: float = 0.0
    """w in (1 + w) f(x, c) - w f(x, 0); w + 1 is the code's cfg_scale."""
    sampler: SamplerConfig = field(
        default_factory=lambda: SamplerConfig(noise="std_large", spacing="leading", steps=1)
    )
    """The reverse path; one step at t = 0 ranks as all 32 do. leading, so that few steps end in
    step 0 as all do."""

    def __post_init__(self) -> None:
        validation.at_least("model.encoder-blocks", self.encoder_blocks, 1)
        validation.at_least("model.denoiser-blocks", self.denoiser_blocks, 1)
        check_heads(self.width, self.num_heads, halves=True)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.within("model.history-dropout-rate", self.history_dropout_rate, 0, 0.999)
        check_released_schedule(self.schedule, self.num_steps)
        validation.finite("model.lambda-scale", self.lambda_scale)
        validation.at_least("model.ce-weight", self.ce_weight, 0)
        validation.at_least("model.mse-weight", self.mse_weight, 0)
        validation.at_least("model.freeze-epochs", self.freeze_epochs, 0)
        validation.within("model.drop-rate", self.drop_rate, 0, 1)
        validation.finite("model.guidance-weight", self.guidance_weight)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        refuse_closed_form(self.sampler, "mean")


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: ADRecConfig
    net: TokenWise
    max_len: int
    tables: Forward  # of the forward process
    steps: Steps  # of the reverse path
    noisy: bool  # whether its rows add noise
    axis_name: str | None
    protocol: Protocol


class Restored(NamedTuple):
    """What the network made of a batch: N = B P places, and B rows."""

    point: jax.Array  # f32[N, D] x0_hat
    target: jax.Array  # i32[N]
    weight: jax.Array  # f32[N], 0 where nothing is asked
    squared: jax.Array  # f32[B] its squared error, a mean over the places that are asked


def parts(
    config: ADRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Parts:
    """The network and the tables of ADRec; arguments as of `build`."""
    levels = forward.levels(released_betas(config.schedule, config.num_steps))
    steps, noisy = plan(config.sampler, levels)
    net = TokenWise(
        num_items=spec.num_items,
        width=config.width,
        encoder_blocks=config.encoder_blocks,
        denoiser_blocks=config.denoiser_blocks,
        num_heads=config.num_heads,
        dropout_rate=config.dropout_rate,
        history_dropout_rate=config.history_dropout_rate,
        step_scale=1000.0 / config.num_steps if config.rescale_steps else 1.0,
    )
    tables = forward.tables(levels)
    return Parts(config, net, spec.max_len, tables, steps, noisy, axis_name, protocol)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and no state."""
    seq = types.first_length(example.seq)
    return Variables(parts.net.init(key, seq, method="touch")["params"], state=())


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """Cross entropy and squared error of the next item of every place; arXiv:2505.19544.

        L = mean_j -log softmax(E x0_hat_j)[v_j] + mean_users mean_j |x0_hat_j - E[v_j]|^2 / D,
        x0_hat = g(c + lambda (x_t + tau(t))),  x_t_j = q(x_t | E[v_j]) at a step t_j of its own

    The released code averages the two gradients, which is half of this one's; Adam does not see
    the factor.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), and stays so.
      key: of the steps, the noise, dropout and the histories hidden, each row's own.
      example: B histories with their targets, of one or of several lengths.

    Returns:
      f32[] the value, and `Aux` with the metrics "loss", "ce" and "mse".

    >>> made = parts(ADRecConfig(width=8, mask="key"), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, sorted(aux.metrics)
    ((), ['ce', 'loss', 'mse'])
    """
    config = parts.config

    def terms(params):
        ce, mse = both_losses(parts, params, key, example)
        return (config.ce_weight * ce, config.mse_weight * mse), {"ce": ce, "mse": mse}

    if config.pcgrad:
        value, metrics = gradients.at_peace(terms, params, parts.axis_name)
    else:
        pair, metrics = terms(params)
        value = sum(pair)
    return value, Aux(state, {"loss": value} | metrics)


def both_losses(
    parts: Parts, params: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, jax.Array]:
    """The cross entropy and the squared error of `loss`, f32[] each."""
    first = jnp.zeros_like(example.row_id) if example.first is None else example.first
    rows = (example.target, example.weight, first, example.row_id)
    found = types.over_lengths(partial(_restored, parts, params, key), example.seq, *rows)
    classes = 0 if parts.config.pad_class else 1, parts.net.num_items + 1
    each = losses.full_softmax(found.point, params["items"], found.target, classes=classes)
    return (
        losses.weighted_mean(each, found.weight, parts.axis_name),
        losses.weighted_mean(found.squared, example.weight, parts.axis_name),
    )


def _restored(parts: Parts, params: Any, key: jax.Array, seq, target, weight, first, row_id):
    """`Restored` of histories of one length, with the noise of training."""
    config, items = parts.config, params["items"]
    k_t, k_eps, k_keep, k_net = jax.random.split(key, 4)
    asked = asked_of(parts, seq, target, first, one=config.pads == "one")
    shape = asked.seq.shape
    if config.independent:
        t = rng.randint(k_t, row_id, 0, config.num_steps, shape[1:])
    else:
        t = jnp.broadcast_to(timesteps.uniform(k_t, row_id, config.num_steps)[:, None], shape)
    t = jnp.where(asked.target > 0, t, 0)
    x0 = looked_up(items, asked.target)
    xt = noised_places(parts, params, asked, t, rng.normal(k_eps, row_id, x0.shape[1:]))
    injected = config.lambda_scale * (xt + call(parts, params, "steps", t))
    kept = jnp.ones_like(weight)
    if config.guidance_weight:
        kept = rng.bernoulli(k_keep, row_id, 1.0 - config.drop_rate).astype(kept.dtype)
    keys, restore = rng.row_keys(k_net, row_id), partial(call, parts, params, "restore")
    rows = looked_up(items, asked.seq)
    point = by_row(restore, keys, rows, injected, asked.where, kept)
    size = jnp.mean(jnp.square(point - x0), axis=-1)
    squared = jnp.sum(asked.weight * size, axis=-1)
    squared = squared / jnp.maximum(jnp.sum(asked.weight, axis=-1), 1.0)
    each = asked.weight * weight[:, None]
    return Restored(
        point.reshape(-1, config.width), asked.target.reshape(-1), each.reshape(-1), squared
    )


def asked_of(parts: Parts, seq, target, first, *, one: bool) -> Asked:
    """`adrec_places.ask` of i32[B, L_k], i32[B], i32[B] as the settings say."""
    after = jnp.where(seq > 0, next_items(seq, target), 0)
    counts, mask = asks(seq, first), parts.config.mask
    return ask(seq, after, counts, mask=mask, one=one, max_len=parts.max_len)


def noised_places(
    parts: Parts, params: Any, asked: Asked, t: jax.Array, eps: jax.Array
) -> jax.Array:
    """x_t f32[B, P, D] of the next items at steps i32[B, P]; padding stays as it is."""
    x0 = looked_up(params["items"], asked.target) / rms(parts, params)
    flat = (-1, parts.config.width)
    xt = forward.q_sample(parts.tables, x0.reshape(flat), t.reshape(-1), eps.reshape(flat))
    return jnp.where(asked.target[..., None] > 0, xt.reshape(x0.shape), x0)


def rms(parts: Parts, params: Any) -> jax.Array | float:
    """What x_0 is divided by, f32[]: 1, or the root mean square of the items' rows."""
    if parts.config.x0_scale == "raw":
        return 1.0
    rows = params["items"][1 : parts.net.num_items + 1]
    return jnp.sqrt(jnp.mean(jnp.square(jax.lax.stop_gradient(rows))))


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The reverse process of the last place of every query, f32[B, D], from noise to its item."""
    del state
    k_start, k_steps = jax.random.split(key)
    shape = (parts.config.width,)
    start = rng.normal(k_start, query.row_id, shape)
    draw = samplers.draw_rows(k_steps, query.row_id, shape) if parts.noisy else None
    return Chain(parts.steps, denoiser(parts, params, query), start, draw)


def denoiser(parts: Parts, params: Any, query: SequenceQuery) -> Denoiser:
    """(x_t f32[B, D], t i32[]) -> x0_hat of the last place, in the units of x_t."""
    table = call(parts, params, "steps", jnp.arange(parts.config.num_steps))
    size = rms(parts, params)
    restore = last_place(parts, params, query, params["items"] / size, table[0])

    def injected(xt, t):
        return parts.config.lambda_scale * (xt + table[t])

    def read(kept):
        follow = restore(kept)
        return lambda xt, t: follow(injected(xt, t)) / size

    if not parts.config.guidance_weight:
        return read(1.0)
    return guidance.classifier_free(read(1.0), read(0.0), parts.config.guidance_weight)


def last_place(parts: Parts, params: Any, query: SequenceQuery, shown: jax.Array, step: jax.Array):
    """How the last place of every query is restored, all others computed once.

    Args:
      parts: from `parts`.
      params: of `init`.
      query: B histories.
      shown: f32[R, D], what earlier places are shown of the items that followed them.
      step: f32[D], the step's embedding that they are shown.

    Returns:
      (share of the history f32[]) -> (lambda (x_t + tau(t)) f32[B, D]) -> x0_hat f32[B, D].
    """
    none = jnp.zeros_like(query.row_id)
    asked = asked_of(parts, query.seq, none, none, one=True)
    place = jnp.arange(asked.seq.shape[1])
    behind = int(parts.config.mask == "query")  # the place that stands for padding
    last = jnp.maximum(jnp.sum(query.seq > 0, axis=-1), 1) - 1 + behind
    before = jnp.where(place < last[:, None], asked.where.count, 0.0)
    where = asked.where._replace(count=before)
    read = call(parts, params, "encode", looked_up(params["items"], asked.seq), asked.where)
    earlier = parts.config.lambda_scale * (shown[asked.target] + step)

    def restore(kept):
        memory = call(parts, params, "remember", kept * read + earlier, where)
        own = kept * take(read, last)[:, 0]
        return lambda injected: call(parts, params, "follow", own + injected, where, memory)

    return restore


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Estimates of the next item's row, f32[B, D]: ends of `chain`, of the rows' length."""
    end = process.run(chain(parts, params, state, key, query))
    return finish(parts, params, state, end)


def finish(parts: Parts, params: Any, state: Any, end: jax.Array) -> jax.Array:
    """Ends of the chain f32[B, D] in the units of the rows."""
    del state
    return end * rms(parts, params)


def without_x_t(parts: Parts, params: Any, state: Any, query: SequenceQuery) -> jax.Array:
    """One call at step 0 with nothing in place of x_t, at the last place and at those before."""
    del state
    step = call(parts, params, "steps", jnp.zeros((), jnp.int32))
    follow = last_place(parts, params, query, jnp.zeros_like(params["items"]), step)(1.0)
    return follow(parts.config.lambda_scale * step)


def without_diffusion(parts: Parts, params: Any, state: Any, query: SequenceQuery) -> jax.Array:
    """The denoiser on the encoded history alone, without x_t and without a step."""
    del state
    nothing = jnp.zeros_like(params["items"])
    return last_place(parts, params, query, nothing, nothing[0])(1.0)(nothing[0])


def noised(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery,
    items: jax.Array, t: jax.Array,
) -> jax.Array:  # fmt: skip
    """x_t f32[B, D] of the first of the answers i32[B, R], where a perfect chain would stand."""
    del state
    x0 = params["items"][items[:, 0]] / rms(parts, params)
    return forward.at_step(parts.tables, key, query.row_id, x0, t)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows; under the official protocol the padding row competes as an item I + 1."""
    del state
    return head_of(params["items"], parts.net.num_items, parts.protocol)


def build(
    config: ADRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """ADRec as pure functions.

    Histories may come in several lengths (`types.over_lengths`): exact under mask="key", where they
    are all that is computed; under the released mask see `ADRecConfig.pads`.

    Args:
      config: settings.
      spec: sizes of the data, and the rows that a backbone has trained.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: "official" lets the padding row compete, as an item I + 1 that nobody wants.

    Raises:
      ValueError: if a backbone's rows do not fit the data or the settings.
    """
    made = parts(config, spec, axis_name=axis_name, protocol=protocol)
    starts = config.table == "backbone" and "items" in spec.exports
    given = {"items": trained_rows(config, spec)} if starts else {}
    late = config.freeze_epochs and (given or spec.given is not None)
    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        sample=partial(sample, made),
        head=partial(head, made),
        chain=partial(chain, made),
        finish=partial(finish, made),
        noised=partial(noised, made),
        variants={
            "without_x_t": partial(without_x_t, made),
            "without_diffusion": partial(without_diffusion, made),
        },
        given=given,
        thawed={"items": Thaw(config.freeze_epochs, config.freeze == "released")} if late else {},
    )


SYSTEM = System(
    config=ADRecConfig,
    build=build,
    official=HISTORIES_COMPETE,
    input=lambda config: LAST_WINDOW if config.windows == "last" else WINDOWS,
    accepts_buckets=lambda config: True,
    requires=(("items",),),
    optional_when=lambda config: config.table == "random",
    item_table=ItemTable(lambda config: 1.0),
    check=check,
)
