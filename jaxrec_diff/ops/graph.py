"""Users and items as a bipartite graph, kept as flat arrays in both directions.

    A = D^{-1/2} [[0, R], [R^T, 0]] D^{-1/2}

R is the binary matrix of training interactions and D holds its row and column sums; a node without
an edge keeps a row of zeros. No dense [users, items] array is ever made.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged

_ENTRIES = 2**14  # of a sparse matrix, visited at once where any program may run


class Rows(NamedTuple):
    """Sets over one flat array: row r holds `members[start[r]:start[r + 1]]`, rising, no repeats.

    numpy on the host, jax arrays on devices.
    """

    start: Any  # i32[N + 1]
    members: Any  # i32[E]


class Graph(NamedTuple):
    """Each edge twice: once in its user's row, once in its item's.

    `edge` says where an edge of `by_item` stands in `by_user`; it is None where no edge is ever
    dropped.
    """

    by_user: Rows  # members are item ids less one
    by_item: Rows  # members are users
    edge: Any  # i32[E] or None


class Nodes(NamedTuple):
    """A vector for every node."""

    users: Any  # f32[U, D]
    items: Any  # f32[I, D], row j is item j + 1


def item_sets(user_items: Ragged, num_items: int) -> Rows:
    """The distinct items of every user, ids less one, as numpy.

    Args:
      user_items: row u is user u's training items, `items[start:end]`, in any order.
      num_items: I.

    >>> import numpy as np
    >>> flat, start, end = np.array([3, 1, 3, 2]), np.array([0, 3]), np.array([3, 4])
    >>> sets = item_sets(Ragged(flat, start, end, end), 3)
    >>> sets.start.tolist(), sets.members.tolist()
    ([0, 2, 3], [0, 2, 1])
    """
    chex.assert_rank([user_items.items, user_items.start], 1)
    chex.assert_equal_shape([user_items.start, user_items.end])
    place, user = ragged.expand(user_items.start, user_items.end - user_items.start)
    pairs = np.unique(user * num_items + (user_items.items[place].astype(np.int64) - 1))
    start = np.searchsorted(pairs, np.arange(len(user_items.start) + 1) * num_items)
    return Rows(start.astype(np.int32), (pairs % num_items).astype(np.int32))


def transpose(rows: Rows, num_columns: int) -> tuple[Rows, np.ndarray]:
    """The rows that each member is in, and where each of these entries stood: numpy."""
    chex.assert_rank([rows.start, rows.members], 1)
    chex.assert_type([rows.start, rows.members], int)
    order = np.argsort(rows.members, kind="stable").astype(np.int32)
    row = np.repeat(np.arange(len(rows.start) - 1, dtype=np.int32), np.diff(rows.start))
    counts = np.bincount(rows.members, minlength=num_columns)
    start = np.append(0, np.cumsum(counts)).astype(np.int32)
    return Rows(start, row[order]), order


def make(sets: Rows, num_items: int, *, droppable: bool = False) -> Graph:
    """The graph of a training set, as numpy.

    Args:
      sets: from `item_sets`.
      num_items: I.
      droppable: whether `adjacency` will be called with `keep`.
    """
    by_item, order = transpose(sets, num_items)
    return Graph(sets, by_item, order if droppable else None)


@jax.custom_vjp
def adjacency(graph: Graph, nodes: Nodes, keep: jax.Array | None = None) -> Nodes:
    """A x: every node's sum over its neighbours n of x_n / sqrt(degree degree_n).

    A is symmetric, so its transpose in a backward pass is this same function.

    Args:
      graph: device arrays.
      nodes: vectors of the nodes.
      keep: f32[E] 1 or 0, edges that stay, in the order of `by_user`; all by default. Degrees count
        the edges that stay (SGL's edge drop, arXiv:2010.10783).
    """
    _check(graph, nodes, keep)
    back = None if keep is None else keep[graph.edge]
    from_user = _scale(graph.by_user, keep, nodes.items)
    from_item = _scale(graph.by_item, back, nodes.users)
    return Nodes(
        from_user * row_sums(graph.by_user, from_item * nodes.items, keep),
        from_item * row_sums(graph.by_item, from_user * nodes.users, back),
    )


def _forward(graph, nodes, keep):
    return adjacency(graph, nodes, keep), (graph, keep)


def _backward(kept, cotangent):
    graph, keep = kept
    nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, jax.dtypes.float0), graph)
    return nothing, adjacency(graph, cotangent, keep), jax.tree.map(jnp.zeros_like, keep)


adjacency.defvjp(_forward, _backward)


def propagate(
    graph: Graph | None,
    nodes: Nodes,
    layers: int,
    *,
    normalize: bool = False,
    keep: jax.Array | None = None,
) -> Nodes:
    """The read-out of `layers` steps over the graph; none leave the tables as they are.

        LightGCN (arXiv:2002.02126, Eq. 7-8):  E^{l+1} = A E^l,  mean of E^0 .. E^L
        with `normalize`, DDRM's SGL:          E^{l+1} = rows of A E^l over their length,  sum

    Args:
      graph: device arrays; None where there are no layers.
      nodes: E^0.
      layers: L.
      normalize: the second form.
      keep: see `adjacency`.
    """
    _check_nodes(nodes)
    total = nodes
    for _ in range(layers):
        assert graph is not None, "layers are steps over a graph"
        nodes = adjacency(graph, nodes, keep)
        if normalize:
            nodes = Nodes(*(unit_rows(part) for part in nodes))
        total = jax.tree.map(jnp.add, total, nodes)
    return total if normalize else jax.tree.map(lambda part: part / (layers + 1), total)


def unit_rows(x: jax.Array) -> jax.Array:
    """Rows over their lengths; a row of zeros stays, with a gradient of zero."""
    chex.assert_type(x, float)
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jnp.where(squared > 0, jax.lax.rsqrt(jnp.maximum(squared, 1e-24)), 0.0)


def means(sets: Rows, items: np.ndarray) -> np.ndarray:
    """float[U, D]: the mean vector of every user's items, zeros for none; added up in float64."""
    chex.assert_rank([sets.start, sets.members, items], [1, 1, 2])
    chex.assert_type(items, float)
    counts = np.diff(sets.start)
    user = np.repeat(np.arange(len(counts)), counts)
    # a column at a time: all of them at once would hold E x D numbers
    sums = [np.bincount(user, column[sets.members], len(counts)) for column in items.T]
    return (np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]).astype(items.dtype)


def _check_nodes(nodes: Nodes) -> None:
    chex.assert_rank(list(nodes), 2)
    chex.assert_equal_shape_suffix(list(nodes), 1)
    chex.assert_type(list(nodes), float)


def _check(graph: Graph, nodes: Nodes, keep: jax.Array | None) -> None:
    _check_nodes(nodes)
    chex.assert_shape(graph.by_user.start, (nodes.users.shape[0] + 1,))
    chex.assert_shape(graph.by_item.start, (nodes.items.shape[0] + 1,))
    if keep is not None and graph.edge is None:
        raise ValueError("edges can be dropped from a graph that was made with droppable=True")


def _scale(rows: Rows, keep: jax.Array | None, others: jax.Array) -> jax.Array:
    """float[N, 1]: degree^-1/2, 0 for a node without edges."""
    degree = row_sums(rows, jnp.ones_like(others[:, :1]), keep)
    return jnp.where(degree > 0, jax.lax.rsqrt(jnp.maximum(degree, 1.0)), 0.0)


def row_sums(rows: Rows, x: jax.Array, keep: jax.Array | None = None) -> jax.Array:
    """f32[N, D]: every row's sum of `x` over its members.

    As a sparse product: on one CPU thread 17 times as fast as a gather and `segment_sum`.
    """
    from jax.experimental import sparse  # half of what this module would take to import

    chex.assert_rank([rows.start, rows.members, x], [1, 1, 2])
    chex.assert_type(x, float)
    if keep is not None:
        chex.assert_equal_shape([keep, rows.members])
    columns: Any = x.shape[1]
    if not isinstance(columns, int):
        return _row_sums_anywhere(rows, x, keep)
    matrix = sparse.BCSR(
        (jnp.ones(rows.members.shape, x.dtype) if keep is None else keep, rows.members, rows.start),
        shape=(rows.start.shape[0] - 1, x.shape[0]),
        indices_sorted=True,
        unique_indices=True,
    )
    return matrix @ x


def _row_sums_anywhere(rows: Rows, x: jax.Array, keep: jax.Array | None) -> jax.Array:
    """`row_sums` of any number of columns, some entries at a time.

    An exported program holds no operation that a later JAX may not know, as the sparse product is.
    """
    count, num_rows = rows.members.shape[0], rows.start.shape[0] - 1
    size = min(count, _ENTRIES)

    def add(turn, total):
        at = turn * size + jnp.arange(size, dtype=rows.start.dtype)
        row = jnp.searchsorted(rows.start, at, side="right") - 1  # behind the last entry: no row
        at = jnp.minimum(at, count - 1)
        entry = x[rows.members[at]]
        return total.at[row].add(entry if keep is None else keep[at, None] * entry, mode="drop")

    turns = -(-count // max(size, 1))
    return jax.lax.fori_loop(0, turns, add, jnp.zeros((num_rows, x.shape[1]), x.dtype))
