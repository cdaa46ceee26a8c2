"""The one Transformer of all sequence models; what they disagree about are its options.

It reads embedded places, so item tables, positions, step embeddings and noise belong to the model.
How places may look at one another is data (`Places`), not a flag:

    weight of key j for query i  =  n_j exp(q_i . k_j / sqrt(d_head)) / sum over keys

with n_j the number of equal places that place j stands for. A hidden place has n_j = 0, and one
padding place with n_j = P takes the part of P equal ones. Queries of `uniform` rows look at all
places in proportion to n_j whatever their scores; the released code of DiffuRec does that to the
rows of padding, where it means to hide their columns.
"""

from typing import Any, Literal, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec_diff.nets.dense import uniform_fan_in
from jaxrec_diff.nets.dropout import Dropout

MaskMode = Literal["query", "key", "none"]

# The score of a hidden place: finite, so that a row that may look at nothing becomes uniform
# instead of NaN.
_HIDDEN = -1e9


class Places(NamedTuple):
    """How the places of a sequence look at one another."""

    real: jax.Array  # bool[B, L], places that hold an item
    count: jax.Array  # type: ignore[assignment]  # f32[B, L], equal places one stands for; 0 hides
    uniform: jax.Array | None = None  # bool[B, L], rows whose scores are all zero


def places(mask: jax.Array, mode: MaskMode = "key", count: jax.Array | None = None) -> Places:
    """What a padding mask means.

    Args:
      mask: bool[B, L], real places.
      mode: "key": padding is not looked at (the textbook); "query": padding is looked at, and its
        own rows look at everything alike (released by DiffuRec and DiQDiff); "none": padding is a
        place like any other.
      count: f32[B, L], how many places each stands for; 1 by default.

    >>> import jax.numpy as jnp
    >>> places(jnp.array([[True, True, False]])).count.tolist()
    [[1.0, 1.0, 0.0]]
    """
    chex.assert_rank(mask, 2)
    chex.assert_type(mask, bool)
    count = jnp.ones(mask.shape, jnp.float32) if count is None else count
    chex.assert_equal_shape([mask, count])
    if mode not in ("query", "key", "none"):
        raise ValueError(f"mode must be query, key or none, got {mode!r}")
    if mode == "key":
        return Places(mask, jnp.where(mask, count, 0.0))
    return Places(mask, count, ~mask if mode == "query" else None)


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
    chex.assert_rank(seq, 2)
    chex.assert_type(seq, int)
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


class Norm(nn.Module):
    """LayerNorm with the biased variance in two passes and epsilon inside the root."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name="norm")(x)


class Transformer(nn.Module):
    """Blocks of attention and a feed-forward part, and a last LayerNorm.

    With `read`, one place a row is returned and the last block computes its query and feed-forward
    part alone: exact, and for N blocks it saves most of one of them.

    `block="pre"` (DiffuRec, DiQDiff, DiffRec2), with S the dropout of the stream:

        z <- z + drop(MHA(LN z)),  z <- z + drop(W2 drop(act(W1 LN z))),  z <- S(z)

    `block="sasrec"` (SASRec, BERT4Rec): queries are normalised and carry the residual, keys and
    values are not; padding is set to zero at the start and after every block:

        q = LN(x),  x <- LN'(q + MHA(q, x, x)),  x <- x + drop(W2 drop(act(W1 x)))

    Both end in LN_out(S(z)). Parameters a block: 4 D^2 + 2 D F + 9 D + F.

    `block="ligr"` (eSASRec, arXiv:2508.06450): gates that read the stream itself, and SwiGLU
    without biases, whatever `activation` is; 6 D^2 + 3 D F + 10 D parameters:

        x <- x + sigmoid(Wa x + ba) drop(MHA(LN x)),
        x <- x + sigmoid(Wb x + bb) drop(W2 drop(silu(W1 LN' x) W3 LN' x))

    `block="post"` (ADRec), the first Transformer's, which ends in a norm and needs no LN_out:

        x <- LN(x + drop(MHA(x))),  x <- LN'(x + drop(W2 drop(act(W1 x))))
    """

    width: int
    num_blocks: int
    num_heads: int
    hidden: int
    """Units F of the feed-forward part."""
    block: Literal["pre", "sasrec", "ligr", "post"] = "pre"
    activation: Literal["gelu_tanh", "gelu", "relu"] = "gelu_tanh"
    causal: bool = False
    dropout_rate: float = 0.1
    """Of attention weights, of the hidden units and of what is added to the stream."""
    stream_dropout_rate: float = 0.0
    """Of the stream itself, after every block and before the last norm (DiffuRec, DiQDiff)."""
    kernels: Literal["fan_in", "xavier", "mixed", "xavier_fan_in"] = "fan_in"
    """fan_in: U(+-1/sqrt(in)) for kernels and biases; xavier: normal kernels, zero biases
    (DiffRec2); mixed: fan_in but normal Xavier kernels for the attention's output and the
    feed-forward part (DiffuRec, DiQDiff); xavier_fan_in: fan_in but for all kernels (ADRec)."""
    epsilon: float = 1e-12
    last_norm: bool = True
    """Whether LN_out is there."""

    def setup(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads={self.num_heads}, got {self.width}"
            )
        settings = {
            name: getattr(self, name)
            for name in ("width", "num_heads", "hidden", "block", "activation", "kernels")
        }
        self.blocks = [
            Block(
                **settings,
                causal=self.causal,
                dropout_rate=self.dropout_rate,
                epsilon=self.epsilon,
            )
            for _ in range(self.num_blocks)
        ]
        self.stream_dropout = Dropout(self.stream_dropout_rate)
        self.norm_out = Norm(self.epsilon) if self.last_norm else lambda x: x

    def __call__(
        self,
        x: jax.Array,
        where: Places,
        *,
        read: jax.Array | None = None,
        also: int = 0,
        deterministic: bool,
    ) -> Any:
        """f32[B, L, D] -> f32[B, L, D], or f32[B, D] at the places `read` i32[B].

        With `also`, a number of blocks, a pair: that, and what comes out of the first so many
        blocks at the same places. Without `deterministic` an rng stream "dropout" is needed.
        """
        between = None
        if self.block == "sasrec":
            x = x * where.real[..., None]
        for index, block in enumerate(self.blocks):
            last = read if index == self.num_blocks - 1 else None
            x = block(x, where, read=last, deterministic=deterministic)
            if self.block == "sasrec":
                x = x * (where.real if last is None else take(where.real, last))[..., None]
            x = self.stream_dropout(x, deterministic=deterministic)
            if index + 1 == also:
                between = x if read is None else (x if last is not None else take(x, read))[:, 0]
        x = self.norm_out(self.stream_dropout(x, deterministic=deterministic))
        out = x if read is None else x[:, 0]
        return (out, between) if also else out

    def remember(self, x: jax.Array, where: Places, *, deterministic: bool) -> tuple["Memory", ...]:
        """What `follow` looks at: keys and values of f32[B, L, D] in every block.

        The places look at one another, at earlier ones only where `causal`, and never at rows that
        follow. Blocks "pre" and "post" only.
        """
        memory = []
        for index, block in enumerate(self.blocks):
            memory.append(block.remember(x))
            if index < self.num_blocks - 1:
                x = block(x, where, read=None, deterministic=deterministic)
                x = self.stream_dropout(x, deterministic=deterministic)
        return tuple(memory)

    def follow(
        self,
        x: jax.Array,
        where: Places,
        memory: tuple["Memory", ...],
        *,
        deterministic: bool,
    ) -> jax.Array:
        """S rows a sequence that each look at the remembered places and at themselves.

        f32[B, S, D] -> f32[B, S, D]. A row costs 24 D^2 + 4 L D multiply-adds a block (for F = 4 D)
        where the whole sequence would cost L times that, so a reverse chain of many steps pays for
        its history once.
        """
        for block, remembered in zip(self.blocks, memory, strict=True):
            x = block.follow(x, where, remembered, deterministic=deterministic)
            x = self.stream_dropout(x, deterministic=deterministic)
        return self.norm_out(self.stream_dropout(x, deterministic=deterministic))


class Memory(NamedTuple):
    """Keys and values of one block, f32[B, L, H, D / H]."""

    key: jax.Array
    value: jax.Array


class Block(nn.Module):
    """One block of `Transformer`, which documents its fields."""

    width: int
    num_heads: int
    hidden: int
    block: Literal["pre", "sasrec", "ligr", "post"]
    activation: Literal["gelu_tanh", "gelu", "relu"]
    kernels: Literal["fan_in", "xavier", "mixed", "xavier_fan_in"]
    causal: bool
    dropout_rate: float
    epsilon: float

    def setup(self) -> None:
        first = "xavier" if self.kernels.startswith("xavier") else "fan_in"
        rest = "fan_in" if self.kernels == "fan_in" else "xavier"
        biases = "zero" if self.kernels == "xavier" else "fan_in"
        self.query, self.key, self.value = (Projection(self.width, first, biases) for _ in range(3))
        self.out = Projection(self.width, rest, biases)
        gated = self.block == "ligr"
        feed = "none" if gated else biases
        self.feed_in = Projection(self.hidden, rest, feed)
        self.feed_out = Projection(self.width, rest, feed)
        if gated:
            self.feed_by = Projection(self.hidden, rest, feed)
            self.gate_attention = Projection(self.width, rest, biases)
            self.gate_feed = Projection(self.width, rest, biases)
        self.norm_attention, self.norm_feed = Norm(self.epsilon), Norm(self.epsilon)
        self.dropout = Dropout(self.dropout_rate)

    def __call__(
        self, x: jax.Array, where: Places, *, read: jax.Array | None, deterministic: bool
    ) -> jax.Array:
        """f32[B, L, D] -> f32[B, L, D], or f32[B, 1, D] of the places `read` i32[B] alone."""

        def drop(y):
            return self.dropout(y, deterministic=deterministic)

        rows = x if read is None else take(x, read)
        if self.block in ("pre", "post"):
            # The norm of one row again is cheaper than the copy that would avoid it.
            query = self.looking(rows)
            keyed = query if read is None else self.looking(x)
            return self.joined(rows, self.attend(query, keyed, where, read, deterministic), drop)
        query = self.norm_attention(rows)
        if self.block == "ligr":
            keyed = query if read is None else self.norm_attention(x)
            found = drop(self.attend(query, keyed, where, read, deterministic))
            z = rows + nn.sigmoid(self.gate_attention(rows)) * found
            rest = self.norm_feed(z)
            hidden = drop(nn.silu(self.feed_in(rest)) * self.feed_by(rest))
            return z + nn.sigmoid(self.gate_feed(z)) * drop(self.feed_out(hidden))
        z = self.norm_feed(query + self.attend(query, x, where, read, deterministic))
        return z + drop(self.feed(z, drop))

    def looking(self, x: jax.Array) -> jax.Array:
        """What queries, keys and values are made of; blocks "pre" and "post"."""
        return self.norm_attention(x) if self.block == "pre" else x

    def joined(self, rows: jax.Array, found: jax.Array, drop) -> jax.Array:
        """Rows with what they found by looking, through the feed-forward part; the same blocks."""
        z = rows + drop(found)
        if self.block == "pre":
            return z + drop(self.feed(self.norm_feed(z), drop))
        z = self.norm_attention(z)
        return self.norm_feed(z + drop(self.feed(z, drop)))

    def remember(self, x: jax.Array) -> Memory:
        keyed = self.looking(x)
        return Memory(self.heads(self.key(keyed)), self.heads(self.value(keyed)))

    def follow(
        self, x: jax.Array, where: Places, memory: Memory, *, deterministic: bool
    ) -> jax.Array:
        def drop(y):
            return self.dropout(y, deterministic=deterministic)

        rows = self.looking(x)
        query, key, value = (self.heads(f(rows)) for f in (self.query, self.key, self.value))
        there = jnp.einsum("bqhe,blhe->bhql", query, memory.key)
        here = jnp.einsum("bqhe,bqhe->bhq", query, key)[..., None]
        scores = jnp.concatenate([there, here], axis=-1) / query.shape[-1] ** 0.5
        bias = jnp.pad(_bias(where.count, None, False), [(0, 0)] * 3 + [(0, 1)])
        weights = drop(jax.nn.softmax(scores + bias))
        mixed = jnp.einsum("bhql,blhe->bqhe", weights[..., :-1], memory.value)
        mixed = mixed + jnp.moveaxis(weights[..., -1:], 1, 2) * value
        return self.joined(x, self.out(mixed.reshape(x.shape)), drop)

    def heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)

    def feed(self, x: jax.Array, drop) -> jax.Array:
        act = {
            "gelu_tanh": nn.gelu,
            "gelu": lambda y: nn.gelu(y, approximate=False),
            "relu": nn.relu,
        }[self.activation]
        return self.feed_out(drop(act(self.feed_in(x))))

    def attend(
        self,
        rows: jax.Array,
        x: jax.Array,
        where: Places,
        read: jax.Array | None,
        deterministic: bool,
    ) -> jax.Array:
        """Rows f32[B, Q, D] look at places x f32[B, L, D]."""
        query, key, value = map(self.heads, (self.query(rows), self.key(x), self.value(x)))
        if where.uniform is not None:
            uniform = where.uniform if read is None else take(where.uniform, read)
            query = jnp.where(uniform[..., None, None], 0.0, query)
        bias = _bias(where.count, read, self.causal)
        dropped = not deterministic and self.dropout_rate > 0.0
        if not dropped and query.dtype != jnp.float64:
            mixed = jax.nn.dot_product_attention(query, key, value, bias=bias)
        else:
            # jax.nn.dot_product_attention has no dropout of the weights, and float32 inside.
            scores = jnp.einsum("bqhe,blhe->bhql", query, key) / query.shape[-1] ** 0.5
            weights = self.dropout(jax.nn.softmax(scores + bias), deterministic=not dropped)
            mixed = jnp.einsum("bhql,blhe->bqhe", weights, value)
        return self.out(mixed.reshape(rows.shape))


class Projection(nn.Module):
    """`x @ kernel + bias` under one of the initialisations in use."""

    features: int
    kernels: str  # "fan_in" | "xavier"
    biases: str  # "fan_in" | "zero" | "none"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fan_in = uniform_fan_in(x.shape[-1])
        # The normal itself, not the truncated one of `glorot_normal`.
        xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
        kernel = self.param(
            "kernel",
            {"fan_in": fan_in, "xavier": xavier}[self.kernels],
            (x.shape[-1], self.features),
        )
        if self.biases == "none":
            return x @ kernel
        zero = nn.initializers.zeros
        bias = self.param("bias", {"fan_in": fan_in, "zero": zero}[self.biases], (self.features,))
        return x @ kernel + bias


def take(x: jax.Array, place: jax.Array) -> jax.Array:
    """One place a row: [B, L, ...], i32[B] -> [B, 1, ...]."""
    chex.assert_shape(place, x.shape[:1])
    chex.assert_type(place, int)
    return jnp.take_along_axis(x, place.reshape(-1, *(1,) * (x.ndim - 1)), axis=1)


def _bias(count: jax.Array, read: jax.Array | None, causal: bool) -> jax.Array:
    """f32[B, 1, Q or 1, L] added to scores."""
    bias = jnp.where(count > 0, jnp.log(jnp.maximum(count, 1e-30)), _HIDDEN)[:, None, None, :]
    if not causal:
        return bias
    place = jnp.arange(count.shape[1])
    asking = place[None, :] if read is None else read[:, None]
    later = place > asking[..., None]
    return jnp.where(later[:, None], _HIDDEN, bias)
