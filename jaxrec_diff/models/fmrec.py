"""FMRec: DiffuRec's network on a flow's straight path (arXiv:2505.16298).

The next item's row x_0 is mixed with noise, x_t = (1 - t) x_0 + t eps; x_t and the embedding of t,
times a tiny random lambda, are added to every place of the history, and DiffuRec's Transformer
restores x_0 at the last item. The loss adds a squared error, and a decoder that restores the
history's items from an inner block, to DiffuRec's softmax.

Lists are made by the released loop, whose end is the mean of its estimates (`samplers.
fixed_noise_steps`). What is said of x_t at DiffuRec holds here: times lambda it is invisible, so
that one call ranks alike. Where the paper and the released code differ the default follows the
code, but for the decoder, which is off: of weight .4 and divided by all entries of the rows, its
loss is a thousandth of the whole, and on Beauty it has nine tenths of all parameters.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.sequences import SEQUENCES
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.diffusion import process, straight
from jaxrec_diff.diffusion.config import SamplerConfig, refuse_closed_form
from jaxrec_diff.diffusion.forward import Forward
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.diffusion.straight import Path, PathConfig
from jaxrec_diff.models import diffurec
from jaxrec_diff.models.contract import Aux, DataSpec, Model, Variables
from jaxrec_diff.models.diffurec import DiffuRecConfig, DiffuRecNet
from jaxrec_diff.models.network import call, noised_target
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.dense import Dense
from jaxrec_diff.nets.transformer import MaskMode
from jaxrec_diff.ops import negatives, rng


@dataclass(frozen=True, kw_only=True)
class FMRecConfig:
    """Settings of FMRec; those of its network are DiffuRec's."""

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
    """Padding where it is looked at: L - n places of their own, or one with the weight of all."""
    lambda_mean: float = 1e-3
    """Mean of what scales x_t and the time's embedding into the history."""
    lambda_std: float = 1e-3
    """Its deviation; every place, coordinate and call has its own draw in training."""
    lambda_draw: Literal["per_step", "per_user", "mean"] = "mean"
    """Lambda at evaluation. per_step: drawn at every reverse step (released); per_user: drawn once;
    mean: not drawn."""
    num_steps: int = 30
    """Times T of the grid that is sampled; training draws them from the whole line."""
    path: PathConfig = field(default_factory=PathConfig)
    """Law of the times, and their grid."""
    ce_weight: float = 0.2
    """Weight of the softmax over the catalogue."""
    mse_weight: float = 1.0
    """Weight of the squared error."""
    target: Literal["learned", "stopped"] = "learned"
    """Whether a gradient reaches the item table through the target and its noised form."""
    pad_class: bool = True
    """The padding row is a class of the training softmax (released)."""
    reconstruct: Literal["off", "released", "mean"] = "off"
    """Restore the history's items, and as many others, from an inner block. released: the sum of
    squared errors is divided by all entries of the rows; mean: by those that are looked at."""
    reconstruct_weight: float = 0.4
    """Weight of that."""
    reconstruct_last: int = 2
    """Blocks behind the one that is read for it."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(kind="fixed_noise"))
    """The reverse path; fixed_noise is the released loop, ddim Euler's step of the flow."""

    def __post_init__(self) -> None:
        _network(self)
        for name in ("ce-weight", "mse-weight", "reconstruct-weight"):
            validation.at_least(f"model.{name}", getattr(self, name.replace("-", "_")), 0)
        validation.above("model.ce-weight", self.ce_weight, 0, 0.2)
        validation.at_least("model.num-steps", self.num_steps, 1)
        validation.within("model.sampler.steps", self.sampler.steps, 0, self.num_steps)
        refuse_closed_form(self.sampler, "ddim")
        if self.reconstruct != "off":
            most = self.num_blocks - 1
            validation.within("model.reconstruct-last", self.reconstruct_last, 0, most)


class HistoryDecoder(nn.Module):
    """What a hidden state says of the history: d -> 512 -> 2048 -> an entry a row of the table."""

    num_rows: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """f32[B, D] -> f32[B, I + 1]"""
        z = nn.tanh(Dense(512, name="inner")(z))
        return Dense(self.num_rows, name="out")(nn.tanh(Dense(2048, name="outer")(z)))


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: FMRecConfig
    base: diffurec.Parts  # DiffuRec's, around the flow's path
    decoder: HistoryDecoder | None
    path: Path
    axis_name: str | None

    @property
    def net(self) -> DiffuRecNet:
        return self.base.net

    @property
    def tables(self) -> Forward:
        return self.path.tables


class Shown(NamedTuple):
    """The entries of rows over the table that the reconstruction looks at, bool[B, I + 1]."""

    ones: jax.Array  # items of the history
    zeros: jax.Array  # items outside it, as many or fewer


def parts(
    config: FMRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Parts:
    """The network and the tables of FMRec; arguments as of `build`."""
    path = straight.make(config.path, config.num_steps, config.sampler)
    shared = _network(config)
    net = DiffuRecNet(num_items=spec.num_items, max_len=spec.max_len, config=shared)
    base = diffurec.Parts(shared, net, path.tables, path.steps, path.noisy, axis_name, protocol)
    decoder = None if config.reconstruct == "off" else HistoryDecoder(spec.num_items + 1)
    return Parts(config, base, decoder, path, axis_name)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """DiffuRec's parameters and, as "decoder", those of the reconstruction where there is one."""
    params = diffurec.init(parts.base, key, example).params
    if parts.decoder is not None:
        none = jnp.zeros((1, parts.config.width))
        inner = parts.decoder.init(jax.random.fold_in(key, 1), none)["params"]
        params = params | {"decoder": inner}
    return Variables(params, state=())


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """The squared error of the estimate, its softmax and the history restored.

        L = w mse(x0_hat, e_j) - v log softmax(E x0_hat)_j + r R,  x0_hat = f(history, x_t, t)

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), and stays so.
      key: of the times, the noise, lambda, dropout and the entries that R looks at, each row's own.
      example: B histories with their targets, of one or of several lengths.

    Returns:
      f32[] the weighted mean, and `Aux` with the metrics "loss", "ce", "mse" and, where there is
      one, "reconstruction".

    >>> made = parts(FMRecConfig(width=8, num_blocks=1), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, sorted(aux.metrics)
    ((), ['ce', 'loss', 'mse'])
    """
    config, base, row = parts.config, parts.base, example.row_id
    k_t, k_eps, k_net, k_zeros = jax.random.split(key, 4)
    x0 = params["items"][example.target]
    if config.target == "stopped":
        x0 = jax.lax.stop_gradient(x0)
    t = straight.draw_times(config.path, k_t, row)
    xt = straight.noised(x0, t, rng.normal(k_eps, row, x0.shape[1:]))
    y = xt + call(base, params, "steps", straight.told(t))
    also = 0 if parts.decoder is None else config.num_blocks - config.reconstruct_last
    estimate = partial(diffurec.estimate, base, params, also=also)
    out = types.over_lengths(estimate, example.seq, y, rng.row_keys(k_net, row))
    points = out[0] if also else out
    classes = 0 if config.pad_class else 1, parts.net.num_items + 1
    each = {
        "ce": losses.full_softmax(points, params["items"], example.target, classes=classes),
        "mse": losses.mse(points, x0),
    }
    mean = partial(losses.weighted_mean, weight=example.weight, axis_name=parts.axis_name)
    means = {name: mean(of) for name, of in each.items()}
    value = config.ce_weight * means["ce"] + config.mse_weight * means["mse"]
    if parts.decoder is not None:
        shown = types.over_lengths(partial(looked_at, parts, k_zeros), example.seq, row)
        said: Any = parts.decoder.apply({"params": params["decoder"]}, out[1])
        means["reconstruction"] = reconstruction(
            said, shown, example.weight,
            by_entry=config.reconstruct == "mean", axis_name=parts.axis_name,
        )  # fmt: skip
        value += config.reconstruct_weight * means["reconstruction"]
    return value, Aux(state, {"loss": value} | means)


def looked_at(parts: Parts, key: jax.Array, seq: jax.Array, row_id: jax.Array) -> Shown:
    """The distinct items of histories i32[B, L], and as many draws of other entries of the table.

    The released code draws those of a whole batch at once, and not as many for each row.
    """
    size = parts.net.num_items + 1
    row = jnp.arange(len(seq))[:, None]
    nothing = jnp.zeros((len(seq), size), bool)
    ones = nothing.at[row, seq].set(True).at[:, 0].set(False)
    # padding is outside every history: as item I + 1 it may be drawn
    others = negatives.strangers(key, row_id, seq, size) % size
    drawn = jnp.arange(seq.shape[1]) < ones.sum(axis=1, keepdims=True)
    zeros = nothing.at[row, jnp.where(drawn, others, size)].set(True, mode="drop")
    return Shown(ones, zeros)


def reconstruction(
    said: jax.Array,
    shown: Shown,
    weight: jax.Array,
    *,
    by_entry: bool,
    axis_name: str | None = None,
) -> jax.Array:
    """R: squared errors of a decoder at the entries that are looked at, f32[].

    Args:
      said: f32[B, I + 1] the decoder's rows.
      shown: what they should be, and where it counts; an entry drawn twice counts once.
      weight: f32[B], 0 on padding rows.
      by_entry: divide by the entries that are looked at; the released code divides by all.
      axis_name: device axis of `pmap`: the mean over devices is R of the global batch.
    """
    mean = partial(losses.weighted_mean, weight=weight, axis_name=axis_name)
    looked = shown.ones | shown.zeros
    errors = jnp.sum(jnp.where(looked, jnp.square(said - shown.ones), 0.0), axis=1)
    if not by_entry:
        return mean(errors / said.shape[1])
    count = mean(jnp.sum(looked, axis=1).astype(said.dtype))
    if axis_name is not None:
        count = jax.lax.pmean(count, axis_name)
    return mean(errors) / jnp.maximum(count, 1e-12)


def chain(parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery) -> Chain:
    """The reverse process of every query, f32[B, D], from noise to the next item."""
    del state
    k_start, k_steps, k_lambda = jax.random.split(key, 3)
    start = rng.normal(k_start, query.row_id, (parts.config.width,))
    table = call(parts, params, "steps", straight.told(parts.path.times))
    denoise = diffurec.denoiser(parts.base, params, k_lambda, query, table)
    draw = straight.noise(parts.path, k_steps, query.row_id, start)
    return Chain(parts.path.steps, denoise, start, draw)


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """Estimates of the next item's row, f32[B, D]: ends of `chain`."""
    return process.run(chain(parts, params, state, key, query))


def build(
    config: FMRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """FMRec as pure functions.

    Histories may come in several lengths, as DiffuRec's.

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
        head=partial(diffurec.head, made.base),
        chain=partial(chain, made),
        noised=partial(noised_target, made),
    )


def _network(config: FMRecConfig) -> DiffuRecConfig:
    """DiffuRec under the same settings, which checks them; its own diffusion is not used."""
    return DiffuRecConfig(
        width=config.width, num_blocks=config.num_blocks, num_heads=config.num_heads,
        dropout_rate=config.dropout_rate, history_dropout_rate=config.history_dropout_rate,
        positions=config.positions, mask=config.mask, pads=config.pads,
        lambda_mean=config.lambda_mean, lambda_std=config.lambda_std,
        lambda_draw=config.lambda_draw, rescale_steps=False,
    )  # fmt: skip


SYSTEM = System(
    config=FMRecConfig,
    build=build,
    official=HISTORIES_COMPETE,
    input=SEQUENCES,
    accepts_buckets=lambda config: True,
    item_table=ItemTable(lambda config: 1.0),
)
