"""BERT4Rec: bidirectional attention over masked histories (arXiv:1904.06690).

In the form in which the DiffuASR code trains it: SASRec's blocks without the causal mask, positions
added to item rows times sqrt(d), a binary loss with one negative a masked place, and half of the
examples with the last item masked alone, which is what is asked at the end.

Generated items ahead of a sequence are context: by default they are never masked. The released code
also does not mask attention to padding (`pad_key_mask=False`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.types import SequenceQuery, WholeSequences
from jaxrec_diff.batches.whole_sequences import WHOLE_SEQUENCES
from jaxrec_diff.models.contract import (
    Aux,
    Compact,
    DataSpec,
    Head,
    Model,
    Table,
    Variables,
    check_heads,
)
from jaxrec_diff.models.network import by_row, call
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.readers import Reader, packed, unpacked
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.transformer import Transformer, places
from jaxrec_diff.ops import filled, rng

_SPARE_POSITIONS = 100  # beyond the longest history, as in the released code


@dataclass(frozen=True, kw_only=True)
class Bert4RecConfig:
    """Settings of BERT4Rec."""

    width: int = 64
    """Size d of embeddings and of the network."""
    num_blocks: int = 2
    """Blocks of attention and feed-forward part."""
    num_heads: int = 1
    """Attention heads."""
    dropout_rate: float = 0.5
    """Dropout of the input, of attention weights and of the feed-forward part."""
    mask_prob: float = 0.4
    """Chance that an item is masked; of those 8 in 10 become the mask, 1 another item."""
    last_share: float = 0.5
    """Share of examples in which the last item alone is masked."""
    mask_generated: bool = False
    """Whether generated items ahead of a sequence are masked and learnt like real ones."""
    pad_key_mask: bool = True
    """Whether attention passes over padding."""
    init_scale: float = 0.02
    """Deviation of initial rows; the released code leaves 1."""
    loss: Literal["binary", "full"] = "binary"
    """binary: a masked item against one that is not the user's (DiffuASR's code); full: softmax
    over the catalogue, as in the paper."""

    def __post_init__(self) -> None:
        validation.at_least("model.num-blocks", self.num_blocks, 1)
        check_heads(self.width, self.num_heads)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.within("model.mask-prob", self.mask_prob, 0, 1)
        validation.within("model.last-share", self.last_share, 0, 1)
        validation.above("model.init-scale", self.init_scale, 0, 0.02)
        if self.mask_prob == 0 and self.last_share == 0:
            raise ValueError(
                "model.mask-prob=0 with model.last-share=0 masks nothing; mask-prob 0.4 does"
            )


class Bert4RecNet(nn.Module):
    """All parameters; rows of `items`: padding, items 1..I, the mask."""

    num_items: int
    max_len: int
    config: Bert4RecConfig

    def setup(self) -> None:
        config = self.config
        normal = nn.initializers.normal(config.init_scale)
        self.items = self.param("items", filled.drawn(normal), (self.num_items + 2, config.width))
        size = (self.max_len + _SPARE_POSITIONS, config.width)
        self.positions = self.param("positions", normal, size)
        self.dropout = Dropout(config.dropout_rate)
        self.encoder = Transformer(
            width=config.width,
            num_blocks=config.num_blocks,
            num_heads=config.num_heads,
            hidden=config.width,
            block="sasrec",
            activation="relu",
            dropout_rate=config.dropout_rate,
            epsilon=1e-8,
        )

    def encode(
        self, seq: jax.Array, read: jax.Array | None = None, deterministic: bool = True
    ) -> jax.Array:
        """i32[B, L] ids, right-padded -> f32[B, L, D], or f32[B, D] at the places `read`."""
        return self.encode_rows(self.items[seq], seq > 0, read, deterministic)

    def encode_rows(
        self,
        rows: jax.Array,
        mask: jax.Array,
        read: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """f32[B, L, D] item rows, bool[B, L] real places."""
        # real items are numbered from 1, the oldest first
        x = rows * self.config.width**0.5 + self.positions[1 : rows.shape[1] + 1]
        x = self.dropout(x, deterministic=deterministic)
        where = places(mask, "key" if self.config.pad_key_mask else "none")
        return self.encoder(x, where, read=read, deterministic=deterministic)


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: Bert4RecConfig
    net: Bert4RecNet
    mask_id: int  # row of the mask
    axis_name: str | None


class Asked(NamedTuple):
    """Every place of a batch as a question with an answer, N = B L of them."""

    point: jax.Array  # f32[N, D] what the network says of it
    label: jax.Array  # i32[N] the item that stands there
    negative: jax.Array  # i32[N] an item that is not the user's
    weight: jax.Array  # f32[N], 0 where nothing is masked


def parts(config: Bert4RecConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network of BERT4Rec; arguments as of `build`."""
    net = Bert4RecNet(spec.num_items, spec.max_len, config)
    return Parts(config, net, spec.num_items + 1, axis_name)


def init(parts: Parts, key: jax.Array, example: WholeSequences) -> Variables:
    """Parameters, and no state."""
    seq = types.first_length(example.seq)
    return Variables(parts.net.init(key, seq, method="encode")["params"], state=())


def draw(parts: Parts, key: jax.Array, example: WholeSequences) -> WholeSequences:
    """The example with its masks, if it has none yet; `key` is that of `loss`."""
    if example.shown is not None:
        return example
    k_mask = jax.random.split(key)[0]

    def behind_masks(*rows):
        return masked(parts.config, k_mask, WholeSequences(*rows), parts.mask_id)

    found = types.at_lengths(behind_masks, *example[:5])
    shown, asked = zip(*found, strict=True) if isinstance(example.seq, tuple) else found
    return example._replace(shown=shown, asked=asked)


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: WholeSequences
) -> tuple[jax.Array, Aux]:
    """The Cloze task of the paper: items behind masks, each against one drawn item (`binary`).

        L = -log sigmoid(f . e_j) - log(1 - sigmoid(f . e_n)), a mean over masked places

    or under loss="full" the softmax over all items, without the mask and padding.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), and stays so.
      key: of the masks and of dropout, each row's own.
      example: B whole sequences with a negative a place, of one or of several lengths, and behind
        masks if they are drawn.

    Returns:
      f32[] the mean over places that are masked, and `Aux` with the metric "loss".

    >>> config = Bert4RecConfig(width=4, last_share=1.0)
    >>> made = parts(config, DataSpec(0, num_items=5, max_len=2))
    >>> seq, negative = jnp.array([[1, 2], [3, 0]]), jnp.array([[4, 5], [4, 0]])
    >>> rows = {"weight": jnp.ones(2), "row_id": jnp.arange(2)}
    >>> example = WholeSequences(seq, jnp.zeros(2, int), negative, **rows)
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss'])
    """
    example, k_encoder = draw(parts, key, example), jax.random.split(key)[1]
    asked = types.over_lengths(partial(_ask_masked, parts, params, k_encoder), *example)
    items = params["items"]
    if parts.config.loss == "full":
        classes = 1, parts.net.num_items + 1
        each = losses.full_softmax(asked.point, items, asked.label, classes=classes)
        value = losses.weighted_mean(each, asked.weight, parts.axis_name)
    else:
        value = binary(
            asked.point, items, asked.label, asked.negative, asked.weight, parts.axis_name
        )
    return value, Aux(state, {"loss": value})


def _ask_masked(parts: Parts, params: Any, k_encoder: jax.Array, *rows) -> Asked:
    example: Any = WholeSequences(*rows)
    keys = rng.row_keys(k_encoder, example.row_id)
    point = by_row(partial(call, parts, params, "encode"), keys, example.shown)
    asked = Asked(point, example.seq, example.negative, example.asked * example.weight[:, None])
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), asked)


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """What stands behind a mask at the end of each history, f32[B, D]; nothing is drawn."""
    del state, key
    seq = query.seq
    if seq.shape[1] < parts.net.max_len:  # histories of a shorter length keep their oldest item
        seq = jnp.pad(seq, ((0, 0), (0, 1)))
    asked, place = with_mask(seq, parts.mask_id)
    return call(parts, params, "encode", asked, place)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows, without the mask."""
    del state
    return Head(params["items"], first=1, items=parts.net.num_items)


def build(
    config: Bert4RecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """BERT4Rec as pure functions, on `WholeSequences`; `sample` draws nothing.

    Sequences may come in several lengths where attention passes over padding, and only there: other
    places then see nothing of it.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: both rank alike.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)

    def compact(rows):  # the mask is a row that an example names
        return partial(loss, made._replace(net=made.net.clone(num_items=rows - 2)))

    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        draw=partial(draw, made),
        compact=None if config.loss == "full" else Compact((Table("items"),), compact),
        sample=partial(sample, made),
        head=partial(head, made),
        deterministic=True,
    )


def masked(config: Bert4RecConfig, key: jax.Array, example, mask_id: int):
    """(ids as shown, i32[B, L]; whether a place is to be found, bool[B, L]) of `WholeSequences`."""
    seq, size = example.seq, example.seq.shape[1:]
    k_kind, k_chosen, k_how, k_other = jax.random.split(key, 4)
    place = jnp.arange(size[0])
    real = seq > 0
    if not config.mask_generated:
        real &= place >= example.first[:, None]
    last = place == (seq > 0).sum(axis=-1, keepdims=True) - 1
    alone = rng.bernoulli(k_kind, example.row_id, config.last_share)[:, None]
    chosen = rng.bernoulli(k_chosen, example.row_id, config.mask_prob, size)
    how = rng.uniform(k_how, example.row_id, size)
    other = rng.randint(k_other, example.row_id, 1, mask_id, size)
    replaced = jnp.where(how < 0.8, mask_id, jnp.where(how < 0.9, other, seq))
    labelled = real & jnp.where(alone, last, chosen)
    shown = jnp.where(labelled, jnp.where(alone, mask_id, replaced), seq)
    return shown.astype(jnp.int32), labelled


def with_mask(seq: jax.Array, mask_id: int) -> tuple[jax.Array, jax.Array]:
    """The mask behind each history, and its place; a full history drops its oldest item.

    >>> import jax.numpy as jnp
    >>> asked, place = with_mask(jnp.array([[4, 0, 0], [4, 5, 6]]), 9)
    >>> asked.tolist(), place.tolist()
    ([[4, 9, 0], [5, 6, 9]], [1, 2])
    """
    length = seq.shape[1]
    count = (seq > 0).sum(axis=-1)
    full = (count == length)[:, None]
    place = jnp.minimum(count, length - 1)
    seq = jnp.where(full, jnp.roll(seq, -1, axis=1), seq)
    return jnp.where(jnp.arange(length) == place[:, None], mask_id, seq), place


def binary(
    features: jax.Array,
    items: jax.Array,
    label: jax.Array,
    negative: jax.Array,
    weight: jax.Array,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean of -log sigmoid(f . e_label) plus mean of -log(1 - sigmoid(f . e_negative)), f32[].

    Args:
      features: f32[..., D].
      items: f32[R, D] rows.
      label: i32[...].
      negative: i32[...].
      weight: f32[...], 0 where nothing is to be found.
    """
    positive = jnp.sum(features * items[label], axis=-1)
    other = jnp.sum(features * items[negative], axis=-1)
    each = losses.bce(positive, other)
    return losses.weighted_mean(each.reshape(-1), weight.reshape(-1), axis_name)


def export(
    config: Bert4RecConfig, spec: DataSpec, params: Any, state: Any
) -> dict[str, np.ndarray]:
    """ "items" f32[I, D] and the whole network, for `reader`."""
    del config, state
    return {"items": np.asarray(params["items"][1 : spec.num_items + 1])} | packed(params)


def reader(config: Bert4RecConfig, spec: DataSpec, exports: Any) -> Reader:
    """The network that `export` stored, asked about M embedded items."""
    net = Bert4RecNet(spec.num_items, spec.max_len, config)

    def read(params, points):
        size = points.shape[:1]
        rows = jnp.concatenate(
            [
                points,
                jnp.broadcast_to(params["items"][spec.num_items + 1], (*size, 1, config.width)),
            ],
            axis=1,
        )
        last = jnp.full(size, points.shape[1], jnp.int32)
        mask = jnp.ones(rows.shape[:2], bool)
        out: Any = net.apply({"params": params}, rows, mask, last, method="encode_rows")
        return out

    return Reader(unpacked(exports), read)


SYSTEM = System(
    config=Bert4RecConfig,
    build=build,
    official=HISTORIES_COMPETE,
    official_differs=False,
    input=WHOLE_SEQUENCES,
    export=export,
    exports=("items",),
    accepts_buckets=lambda config: config.pad_key_mask,
    drawn_by=lambda config: "--model.loss=binary" if config.loss == "full" else "",
    reader=reader,
    item_table=ItemTable(lambda config: config.init_scale, grows=False),
)
