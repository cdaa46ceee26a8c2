"""SASRec, the yardstick: a causal Transformer that predicts the next item at every place.

Kang and McAuley 2018 (arXiv:1808.09781), in the form that DiffuASR's code trains; the diffusion
models of sequences are judged beside it. A training example is a window of a user's items, and
every place of it has a target, so an epoch costs a user's length and not its square.

The released loss compares each target with one drawn item (`loss="bce"`). Against the whole
catalogue (`loss="full"`, the default) the same network ranks far better, and that is the honest
opponent of models that are trained with a full softmax. A catalogue that is too large for that is
drawn from (`loss="sampled"`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import losses, validation
from jaxrec_diff.batches import negatives, types
from jaxrec_diff.batches.sequences import LAST_WINDOW, WINDOWS
from jaxrec_diff.batches.types import SequenceQuery, Sequences
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
from jaxrec_diff.models.network import HasNetwork, by_row, call
from jaxrec_diff.models.protocols import HISTORIES_COMPETE, Protocol
from jaxrec_diff.models.readers import Reader, packed, unpacked
from jaxrec_diff.models.registry import ItemTable, System
from jaxrec_diff.nets.dropout import Dropout
from jaxrec_diff.nets.transformer import Places, Transformer, places
from jaxrec_diff.ops import filled, rng
from jaxrec_diff.ops import negatives as ops_negatives

_DRAWN = ("sampled", "gbce")  # losses against several drawn items


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Settings of SASRec."""

    width: int = 64
    """Size d of embeddings and of the network."""
    num_blocks: int = 2
    """Blocks."""
    num_heads: int = 1
    """Attention heads."""
    dropout_rate: float = 0.5
    """Dropout of the embeddings and of the blocks."""
    loss: Literal["full", "bce", "sampled", "gbce"] = "full"
    """full: softmax over the catalogue; bce: the target against one item drawn uniformly from
    those outside the window (released); sampled: softmax over the target and drawn negatives;
    gbce: gSASRec's binary loss of the target and drawn negatives (arXiv:2308.07192)."""
    share: Literal["batch", "sequence", "position"] = "batch"
    """Who shares drawn negatives: the batch; the places of a sequence (published on MovieLens with
    3000); none, every place has its own (eSASRec, gSASRec), which gathers B L n rows an update."""
    gbce_t: float = 0.75
    """Calibration t of gbce, from 0, the plain binary loss, to 1."""
    negatives: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """What the sampled softmax draws, shared by the batch and corrected by its log Q: items
    uniformly, by popularity, or the last targets of the batch's rows."""
    num_negatives: int = 2560
    """Negatives of those who share them (of sampled and gbce; ignored by in_batch)."""
    negatives_power: float = 1.0
    """Exponent of the counts where negatives are drawn by popularity."""
    mask: Literal["key", "none"] = "key"
    """none: places also look at the L - n places of padding on their left, whose values are
    biases, as one of the released codes has it."""
    init_scale: float = 0.02
    """Deviation of initial item and position embeddings."""
    block: Literal["sasrec", "ligr"] = "sasrec"
    """ligr: eSASRec's, whose residuals are gated (arXiv:2508.06450)."""
    ff_multiplier: int = 1
    """Hidden units of a feed-forward part, as a multiple of width; eSASRec has 4 on MovieLens."""
    scale_items: bool = True
    """Multiply item rows by sqrt(d) where a history is read; eSASRec does not."""
    positions: Literal["absolute", "inverse"] = "absolute"
    """inverse: places count from the last item of the window (eSASRec)."""
    windows: Literal["all", "last"] = "all"
    """Training examples. all: windows in which every training item is a target once; last: of each
    user the newest L + 1 items alone, as the published figures on MovieLens have it."""

    def __post_init__(self) -> None:
        validation.at_least("model.num-blocks", self.num_blocks, 1)
        check_heads(self.width, self.num_heads)
        validation.within("model.dropout-rate", self.dropout_rate, 0, 0.999)
        validation.above("model.init-scale", self.init_scale, 0, 0.02)
        validation.at_least("model.ff-multiplier", self.ff_multiplier, 1)
        validation.at_least("model.num-negatives", self.num_negatives, 1)
        validation.at_least("model.negatives-power", self.negatives_power, 0)
        validation.within("model.gbce-t", self.gbce_t, 0, 1)
        if self.share != "batch" and (self.loss not in _DRAWN or self.negatives != "uniform"):
            raise ValueError(
                f"model.share={self.share} is of uniform negatives of model.loss=sampled or gbce, "
                f"got model.loss={self.loss} and model.negatives={self.negatives}; the nearest is "
                "model.share=batch"
            )
        if self.negatives != "uniform" and self.loss != "sampled":
            raise ValueError(
                f"model.negatives={self.negatives} needs --model.loss=sampled, got {self.loss}"
            )


_OF_BLOCK: dict[str, dict[str, Any]] = {
    "sasrec": {"epsilon": 1e-8},
    "ligr": {"epsilon": 1e-5, "kernels": "xavier", "last_norm": False},
}


class SASRecNet(nn.Module):
    """All parameters of SASRec; row j of `items` is item j; row 0 is padding and is never read."""

    num_items: int
    max_len: int
    config: SASRecConfig

    def setup(self) -> None:
        c = self.config
        normal = nn.initializers.normal(c.init_scale)
        self.items = self.param("items", filled.drawn(normal), (self.num_items + 1, c.width))
        self.positions = self.param("positions", normal, (self.max_len, c.width))
        self.dropout = Dropout(c.dropout_rate)
        self.transformer = Transformer(
            width=c.width,
            num_blocks=c.num_blocks,
            num_heads=c.num_heads,
            hidden=c.ff_multiplier * c.width,
            block=c.block,
            activation="relu",
            causal=True,
            dropout_rate=c.dropout_rate,
            **_OF_BLOCK[c.block],
        )

    def __call__(
        self, seq: jax.Array, *, read: jax.Array | None = None, deterministic: bool = True
    ) -> jax.Array:
        """i32[B, L_k] right-padded -> f32[B, L_k, D], or f32[B, D] of the places `read` i32[B]."""
        x = self.embed(self.items[seq], seq > 0)
        x = self.dropout(x, deterministic=deterministic)
        if self.config.mask == "key":
            return self.transformer(x, places(seq > 0), read=read, deterministic=deterministic)
        # All padding is zero at every block, so one place in front stands for all of it.
        real = jnp.pad(seq > 0, ((0, 0), (1, 0)))
        missing = self.max_len - real.sum(axis=-1, keepdims=True)
        count = jnp.where(jnp.arange(real.shape[1]) == 0, missing, real).astype(x.dtype)
        out = self.transformer(
            jnp.pad(x, ((0, 0), (1, 0), (0, 0))),
            Places(real, count),
            read=None if read is None else read + 1,
            deterministic=deterministic,
        )
        return out[:, 1:] if read is None else out

    def embed(self, rows: jax.Array, real: jax.Array) -> jax.Array:
        """f32[B, L_k, D] rows of items at the places bool[B, L_k] -> f32[B, L_k, D]."""
        c, place = self.config, jnp.arange(rows.shape[1])
        if c.positions == "inverse":
            place = jnp.maximum(real.sum(axis=-1, keepdims=True) - 1 - place, 0)
        return rows * (c.width**0.5 if c.scale_items else 1.0) + self.positions[place]

    def read_rows(self, rows: jax.Array) -> jax.Array:
        """f32[B, M, D] rows of items, without padding -> f32[B, D] at the last place."""
        size, length, _ = rows.shape
        real = jnp.ones((size, length), bool)
        last = jnp.full(size, length - 1, jnp.int32)
        return self.transformer(self.embed(rows, real), places(real), read=last, deterministic=True)


class Parts(NamedTuple):
    """What is fixed once the settings and the sizes of the data are known."""

    config: SASRecConfig
    net: SASRecNet
    draw_negatives: negatives.Draw | None  # shared by a batch
    num_items: int  # of the whole catalogue
    axis_name: str | None


class Asked(NamedTuple):
    """Every place of a batch as a question with an answer, N = B L of them."""

    point: jax.Array  # f32[N, D] what the network says
    target: jax.Array  # i32[N] the item that came next, 0 on padding
    weight: jax.Array  # f32[N], 0 where nothing is asked
    drawn: Any
    """bce: i32[N] an item outside the history; negatives shared by the batch: f32[N] log Q of the
    target; by fewer: f32[N, n] their logits."""


def parts(config: SASRecConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """The network of SASRec; arguments as of `build`."""
    net = SASRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config)
    drawn = None
    if config.loss in _DRAWN and config.share == "batch":
        drawn = negatives.sampler(
            config.negatives, config.num_negatives, spec.num_items, spec.item_counts,
            power=config.negatives_power, axis_name=axis_name,
        )  # fmt: skip
    return Parts(config, net, drawn, spec.num_items, axis_name)


def init(parts: Parts, key: jax.Array, example: Sequences) -> Variables:
    """Parameters, and no state."""
    return Variables(parts.net.init(key, types.first_length(example.seq))["params"], state=())


def draw(parts: Parts, key: jax.Array, example: Sequences) -> Sequences:
    """The example with its negatives, if it has none yet; `key` is that of `loss`."""
    if example.negatives is not None or parts.config.loss == "full":
        return example
    key = jax.random.split(key)[1]
    if parts.draw_negatives is not None:
        targets = types.at_lengths(next_items, example.seq, example.target)
        return example._replace(negatives=parts.draw_negatives(key, example, targets))
    if parts.config.share != "batch":
        count, share = parts.config.num_negatives, parts.config.share
        ids = negatives.own(share, key, example, count, parts.num_items)
        return example._replace(negatives=ids)

    def outside(seq, target, keys):
        absent = jax.vmap(ops_negatives.absent, in_axes=(0, 0, 0, None))
        return absent(keys, seq, target, parts.net.num_items)

    rows = (example.target, rng.row_keys(key, example.row_id))
    return example._replace(negatives=types.at_lengths(outside, example.seq, *rows))


def loss(
    parts: Parts, params: Any, state: Any, key: jax.Array, example: Sequences
) -> tuple[jax.Array, Aux]:
    """The next item at every place against the catalogue, or against drawn items.

        full: L = -log softmax(E f)_j,  bce: L = -log sigmoid(f . e_j) - log(1 - sigmoid(f . e_n))

    sampled: the softmax of j and the drawn items, each logit less its log Q; gbce: `losses.gbce`.
    A drawn item that is the target itself does not compete.

    Args:
      parts: from `parts`.
      params: of `init`.
      state: (), and stays so.
      key: of dropout and of the negatives, each row's own or shared by the batch.
      example: B histories with their targets, of one or of several lengths, and with their
        negatives if they are drawn.

    Returns:
      f32[] the mean over places that are asked, and `Aux` with the metric "loss".

    >>> made = parts(SASRecConfig(width=4), DataSpec(0, num_items=5, max_len=2))
    >>> seq, target = jnp.array([[1, 2], [3, 0]]), jnp.array([4, 5])
    >>> example = Sequences(seq, target, weight=jnp.ones(2), row_id=jnp.arange(2))
    >>> params, state = init(made, jax.random.key(0), example)
    >>> value, aux = loss(made, params, state, jax.random.key(1), example)
    >>> value.shape, bool(value > 0), sorted(aux.metrics)
    ((), True, ['loss'])
    """
    example = draw(parts, key, example)
    at, items = ask_everywhere(parts, params, key, example), params["items"]
    if parts.config.loss == "full":
        each = losses.full_softmax(at.point, items, at.target, classes=(1, parts.net.num_items + 1))
    elif parts.config.loss == "bce":
        scores = (jnp.sum(at.point * items[i], -1) for i in (at.target, at.drawn))
        each = losses.bce(*scores)
    else:
        each = _against_drawn(parts, items, at, example.negatives)
    value = losses.weighted_mean(each, at.weight, parts.axis_name)
    return value, Aux(state, {"loss": value})


def _against_drawn(parts: Parts, items: jax.Array, at: Asked, drawn: Any) -> jax.Array:
    """f32[N] losses of places against several drawn items."""
    positive = jnp.sum(at.point * items[at.target], -1)
    others = at.drawn
    if isinstance(drawn, types.Negatives):
        positive = positive - at.drawn
        others = at.point @ items[drawn.ids].T + negatives.corrections(drawn, at.target)
    if parts.config.loss == "sampled":
        return losses.sampled_softmax(positive, others)
    calibration = parts.config.gbce_t
    return losses.gbce(positive, others, num_items=parts.num_items, calibration=calibration)


def ask_everywhere(parts: Parts, params: Any, key: jax.Array, example: Sequences) -> Asked:
    """The places of a training batch under dropout, those of all its lengths in one row."""
    drawn = example.negatives
    keys = rng.row_keys(jax.random.split(key)[0], example.row_id)
    first = jnp.zeros_like(example.row_id) if example.first is None else example.first
    rows: list[Any] = [example.target, example.weight, first, keys]
    if drawn is not None:
        rows.append(drawn.target_log_q if isinstance(drawn, types.Negatives) else drawn)
    return types.over_lengths(partial(_ask_everywhere, parts, params), example.seq, *rows)


def _ask_everywhere(parts: Parts, params: Any, seq, target, weight, first, keys, drawn=None):
    point = by_row(partial(call, parts, params, "__call__"), keys, seq)
    asked = asks(seq, first) * weight[:, None]
    if parts.config.share != "batch":
        drawn = negatives.own_logits(params["items"], point, next_items(seq, target), drawn)
    at = Asked(point, next_items(seq, target), asked, drawn)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), at)


def sample(
    parts: Parts, params: Any, state: Any, key: jax.Array, query: SequenceQuery
) -> jax.Array:
    """What follows the last item, f32[B, D]; nothing is drawn."""
    del state, key
    return encoded(parts, params, query)


def encoded(parts: HasNetwork, params: Any, query: SequenceQuery) -> jax.Array:
    """The code of whole histories, f32[B, D], read at the last item without dropout."""
    last = jnp.maximum(jnp.sum(query.seq > 0, axis=-1) - 1, 0)
    return call(parts, params, "__call__", query.seq, read=last)


def head(parts: Parts, params: Any, state: Any) -> Head:
    """The items' rows."""
    del state
    return Head(params["items"], first=1, items=parts.net.num_items)


def build(
    config: SASRecConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """SASRec as pure functions; `sample` draws nothing.

    Histories may come in several lengths, which changes no number: a place sees only those before
    it.

    Args:
      config: settings.
      spec: sizes of the data.
      axis_name: name of the device axis inside `pmap`; None under `jit`.
      protocol: both rank alike.
    """
    del protocol
    made = parts(config, spec, axis_name=axis_name)

    def compact(rows):
        return partial(loss, made._replace(net=made.net.clone(num_items=rows - 1)))

    return Model(
        init=partial(init, made),
        loss=partial(loss, made),
        draw=partial(draw, made),
        compact=None if config.loss == "full" else Compact((Table("items"),), compact),
        sample=partial(sample, made),
        head=partial(head, made),
        deterministic=True,
    )


def asks(seq: jax.Array, first: jax.Array) -> jax.Array:
    """Places whose target counts: real items, behind those that were generated, bool[B, L].

    A user's first item is no target, with generated items ahead of it as without.

    >>> import jax.numpy as jnp
    >>> asks(jnp.array([[8, 9, 1, 2, 0]]), jnp.array([2])).astype(int).tolist()
    [[0, 0, 1, 1, 0]]
    """
    return (seq > 0) & (jnp.arange(seq.shape[1]) >= first[:, None])


def next_items(seq: jax.Array, target: jax.Array) -> jax.Array:
    """The target of every place, 0 on padding: i32[B, L], i32[B] -> i32[B, L].

    >>> import jax.numpy as jnp
    >>> next_items(jnp.array([[4, 7, 0]]), jnp.array([9])).tolist()
    [[7, 9, 0]]
    """
    after = jnp.pad(seq[:, 1:], ((0, 0), (0, 1)))
    last = (seq > 0) & (after == 0)
    return jnp.where(last, target[:, None], after)


def export(config: SASRecConfig, spec: DataSpec, params, state) -> dict[str, np.ndarray]:
    """ "items" f32[I, D] the item embeddings, and the whole network for `reader`."""
    del config, state
    return {"items": np.asarray(params["items"][1 : spec.num_items + 1])} | packed(params)


def reader(config: SASRecConfig, spec: DataSpec, exports) -> Reader:
    """The network that `export` stored, asked about M embedded items."""
    net = SASRecNet(num_items=spec.num_items, max_len=spec.max_len, config=config)

    def read(params, points):
        out: Any = net.apply({"params": params}, points, method="read_rows")
        return out

    return Reader(unpacked(exports), read)


SYSTEM = System(
    config=SASRecConfig,
    build=build,
    official=HISTORIES_COMPETE,
    official_differs=False,
    input=lambda config: LAST_WINDOW if config.windows == "last" else WINDOWS,
    export=export,
    exports=("items",),
    accepts_buckets=lambda config: True,
    drawn_by=lambda config: "--model.loss=sampled" if config.loss == "full" else "",
    reader=reader,
    item_table=ItemTable(lambda config: config.init_scale),
)
