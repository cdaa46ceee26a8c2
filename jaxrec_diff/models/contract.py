"""The contract between a recommender and everything around it: four pure functions.

`loss` reads examples, which hold the answer; `sample` reads queries, which do not, so an answer
cannot leak into a recommendation by accident. A model never scores the catalogue: it returns
points and the rows they are compared with (`Head`); `evaluation.topk` owns the product.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff import validation
from jaxrec_diff.diffusion.process import Chain
from jaxrec_diff.models.protocols import Protocol
from jaxrec_diff.models.readers import Reader
from jaxrec_diff.ops.ragged import Ragged


class GivenRows(NamedTuple):
    """Vectors of items that a table of items starts from."""

    rows: np.ndarray | None  # f32[I, D], row j of item j + 1; None where a checkpoint has them
    frozen: bool  # whether training leaves them as they are


class DataSpec(NamedTuple):
    """What a model may know of the data before it sees an example."""

    num_users: int
    num_items: int
    max_len: int  # L, places in a history
    item_counts: np.ndarray | None = None  # i64[I], how often item j + 1 occurs in training
    user_items: Ragged | None = None  # row u is user u's training items, on the host
    exports: Mapping[str, np.ndarray] = MappingProxyType({})  # what the backbone learned
    prefix_len: int = 0  # M, items generated ahead of a history
    reader: "Reader | None" = None  # how the backbone reads items it is given as points
    given: GivenRows | None = None  # vectors of items; `given_rows` puts them into a model


class Variables(NamedTuple):
    """All arrays of a model."""

    params: Any  # trained by gradients
    state: Any  # everything else: loss history, codebook, counters, graph edges, ()


class Aux(NamedTuple):
    """What `loss` returns beside its value."""

    state: Any  # same structure, shapes and dtypes as the state that went in
    metrics: dict[str, jax.Array]  # scalars


class Head(NamedTuple):
    """The catalogue as rows: item j scores `point . table[r] + bias[r]`, r = first + j - 1.

    Other rows are no items: a table may start with padding, and end in rows that fill it up. Where
    there is no table the point is the row of scores itself, f32[R], as of a network that ends in a
    curve of every item; it exists for one batch only, and says how many `items` it scores.
    """

    table: jax.Array | None  # f32[R, D]
    bias: jax.Array | None = None  # f32[R]
    first: int = 0  # row of item 1
    items: int | None = None  # how many there are; by default all rows from the first


class Table(NamedTuple):
    """A parameter of which a loss reads the rows that its example names, and no others."""

    name: str  # at the top of the parameters
    of: Literal["items", "users"] = "items"
    padded: bool = True
    """Whether row j is item j and row 0 padding; else row j is item j + 1, or user j."""


class Compact(NamedTuple):
    """How a loss is taken on the rows that its example names, as if there were no others."""

    tables: tuple[Table, ...]
    loss: Callable[[int], Callable[[Any, Any, jax.Array, Any], tuple[jax.Array, Aux]]]
    """n -> `Model.loss` on tables of n rows, a multiple of 256; its example has what `Model.draw`
    draws."""


class Thaw(NamedTuple):
    """Until when training leaves a parameter as it is."""

    epoch: int  # the first in which it is trained, from 0 on
    decays: bool = False
    """Whether weight decay moves it all the same. A released code (ADRec's) makes its gradient zero
    and no more: decay that is added to gradients is then all that Adam sees, which makes steps of
    its whole length of it, towards zero."""


class Model(NamedTuple):
    """A recommender as four pure functions; no mode flag: `loss` is training, the rest is not.

    Every draw that belongs to a row is keyed by `example.row_id` or `query.row_id`, so that the
    numbers do not depend on how a batch is split or on the number of devices.
    """

    init: Callable[[jax.Array, Any], Variables]  # key, example
    loss: Callable[[Any, Any, jax.Array, Any], tuple[jax.Array, Aux]]  # params, state, key, example
    sample: Callable[[Any, Any, jax.Array, Any], jax.Array]  # params, state, key, query -> [B, D]
    head: Callable[[Any, Any], Head]  # params, state
    draw: Callable[[jax.Array, Any], Any] = lambda key, example: example
    """key of an update, example -> the example with what is drawn of the catalogue for it: its
    negatives. `loss` draws the same for itself where this was not called."""
    compact: Compact | None = None
    """The loss on the rows that a batch names; None where it reads whole tables."""
    chain: Callable[[Any, Any, jax.Array, Any], Chain] | None = None
    """params, state, key, query -> the reverse process whose end `sample` makes its points of, or
    whose law of the end it draws from; None where points are no such end."""
    finish: Callable[[Any, Any, jax.Array], jax.Array] = lambda params, state, end: end
    """params, state, end of the chain [B, ...] -> the points that `sample` makes of it."""
    finish_step: Any = None
    """The step i32[] at which `finish` calls the network, the end being its x_t; None if it does
    not."""
    noised: Callable[[Any, Any, jax.Array, Any, jax.Array, jax.Array], jax.Array] | None = None
    """params, state, key, query, items i32[B, R], t i32[] -> x_t: what the forward process makes,
    at one step, of the true x_0 of rows that ask `query` and are answered by `items`, 0 for none.
    Where x_0 is one item it is the first. None where there is no chain."""
    deterministic: bool = False
    """Whether `sample` and the variants ignore their key and the numbers of rows, so that a query
    has one answer."""
    variants: dict[str, Callable[[Any, Any, Any], jax.Array]] = {}
    """Further points of the same model, (params, state, query) -> [B, ..., D], ranked beside
    it: what it would recommend without its diffusion, say. Several points of a row each nominate:
    an item scores the best of them."""
    precompute: Callable[[Any, Any], Any] = lambda params, state: state
    """params, state -> the state with what all rows of an evaluation share worked out (embeddings
    moved along a graph, say). It saves time only: `sample`, `head` and the variants say the same
    from a state without it."""
    given: dict[str, np.ndarray] = {}
    """Rows f32[N, D] that tables at the top of `params` begin with from row 1 on, whatever `init`
    draws. They are no part of `init`: a compiler takes what a function holds for a constant, at ten
    times its size."""
    frozen: tuple[str, ...] = ()
    """Parameters at the top of `params` that no update moves, and no optimizer keeps moments of."""
    thawed: dict[str, Thaw] = {}
    """Parameters at the top of `params` that are trained from a later epoch on: what comes before
    is a stage of its own, of the other parameters, and begins with what an earlier phase made."""
    score_pooling: Literal["best", "mixture"] = "best"
    """What an item scores where a row has several points: the best of its scores, or the log of
    their summed exponentials, which ranks by a mean of probabilities where points are normalised
    log probabilities."""


def padding_last(rows: jax.Array) -> jax.Array:
    """The rows of all items with that of padding behind them, f32[I + 1, D] -> f32[I + 1, D].

    Released codes let padding compete: it is then an item I + 1 that nobody wants.

    >>> import jax.numpy as jnp
    >>> padding_last(jnp.array([[0.0], [1.0], [2.0]])).tolist()
    [[1.0], [2.0], [0.0]]
    """
    return jnp.roll(rows, -1, axis=0)


def head_of(rows: jax.Array, num_items: int, protocol: Protocol) -> Head:
    """The rows of items as a head, from a filled table whose row j is item j and row 0 padding.

    Under the official protocol padding competes (`padding_last`).
    """
    if protocol == "official":
        return Head(padding_last(rows[: num_items + 1]))
    return Head(rows, first=1, items=num_items)


def check_heads(width: int, num_heads: int, *, halves: bool = False) -> None:
    """Raises ValueError, naming the nearest width, unless `num_heads` divide `width`.

    `halves` also asks for two halves, of sines and of cosines.
    """
    validation.at_least("model.num-heads", num_heads, 1)
    unit = 2 * num_heads if halves and num_heads % 2 else num_heads
    if width < unit or width % unit:
        near = max(round(width / unit), 1) * unit
        what = f"{unit} (two halves, {num_heads} heads)" if halves else f"model.num-heads={unit}"
        raise ValueError(
            f"model.width must be a multiple of {what}, got {width}; the nearest is {near}"
        )


def begun(params: Any, given: Mapping[str, Any]) -> Any:
    """Parameters that `Model.init` drew, with the rows they are given instead (`Model.given`)."""
    for name, rows in given.items():
        chex.assert_shape(rows, (None, params[name].shape[1]))
        params = params | {name: params[name].at[1 : len(rows) + 1].set(rows)}
    return params
