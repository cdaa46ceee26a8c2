"""BERT4Rec: bidirectional attention over masked histories (arXiv:1904.06690).

In the form in which the DiffuASR code trains it: SASRec's blocks without the causal mask, positions
added to item rows times sqrt(d), a binary loss with one negative a masked place, and half of the
examples with the last item masked alone, which is what is asked at the end.

Generated items ahead of a sequence are context: by default they are never masked. The released code
also does not mask attention to padding (`pad_key_mask=False`).
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import types
from jaxrec_diff.batches.types import WholeSequences
from jaxrec_diff.batches.whole_sequences import WHOLE_SEQUENCES
from jaxrec_diff.models.contract import Aux, DataSpec, Head, Model, Variables, check_heads
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.readers import Reader, packed, unpacked
from jaxrec_diff.models.registry import System
from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.transformer import Transformer, places
from jaxrec_diff.ops import rng

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
        self.items = self.param("items", normal, (self.num_items + 2, config.width))
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


def build(
    config: Bert4RecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """BERT4Rec as four pure functions, on `WholeSequences`.

    Sequences may come in several lengths where attention passes over padding, and only there: other
    places then see nothing of it.
    """
    del protocol
    net = Bert4RecNet(spec.num_items, spec.max_len, config)
    mask_id = spec.num_items + 1

    def call(params, method, *args, **kwargs):
        return net.apply({"params": params}, *args, method=method, **kwargs)

    def init(key, example):
        seq = example.seq[0] if isinstance(example.seq, tuple) else example.seq
        return Variables(net.init(key, seq, method="encode")["params"], state=())

    def encode_with_dropout(params, key, seq, row):
        def one(seq, key):
            return call(params, "encode", seq[None], deterministic=False, rngs={"dropout": key})[0]

        return jax.vmap(one)(seq, rng.row_keys(key, row))

    def loss(params, state, key, example):
        k_mask, k_encoder = jax.random.split(key)

        def encode(*walk):
            walk = WholeSequences(*walk)
            shown, labelled = masked(config, k_mask, walk, mask_id)
            features = encode_with_dropout(params, k_encoder, shown, walk.row_id)
            out = features, walk.seq, walk.negative, labelled * walk.weight[:, None]
            return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

        features, label, negative, weight = types.over_lengths(encode, *example)
        value = binary(features, params["items"], label, negative, weight, axis_name)
        return value, Aux(state, {"loss": value})

    def sample(params, state, key, query):
        del state, key
        seq = query.seq
        if seq.shape[1] < spec.max_len:  # histories of a shorter length keep their oldest item
            seq = jnp.pad(seq, ((0, 0), (0, 1)))
        asked, place = with_mask(seq, mask_id)
        return call(params, "encode", asked, place)

    def head(params, state):
        del state
        return Head(params["items"][1:mask_id])

    return Model(init, loss, sample, head, deterministic=True)


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
      items: f32[I + 2, D] rows.
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
            [points, jnp.broadcast_to(params["items"][-1], (*size, 1, config.width))], axis=1
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
    input=WHOLE_SEQUENCES,
    export=export,
    exports=("items",),
    accepts_buckets=lambda config: config.pad_key_mask,
    reader=reader,
)
