"""The graph of users and items against dense float64 matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import graph
from jaxrec_diff.ops.graph import Nodes
from jaxrec_diff.ops.ragged import Ragged

USERS, ITEMS = 7, 9


def user_items(seed=0):
    """Rows out of order, with repeats, an empty user and an item nobody has."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, ITEMS, rng.integers(1, 8)) for _ in range(USERS)]
    rows[3] = np.zeros(0, int)
    stop = np.cumsum([len(row) for row in rows])
    start = stop - [len(row) for row in rows]
    return Ragged(np.concatenate(rows).astype(np.int32), start, stop, stop)


def dense(rows):
    matrix = np.zeros((USERS, ITEMS))
    for user, (start, end) in enumerate(zip(rows.start, rows.end, strict=True)):
        for item in rows.items[start:end]:
            matrix[user, item - 1] = 1.0
    return matrix


def normalized(matrix):
    """D^-1/2 [[0, R], [R', 0]] D^-1/2 entry by entry."""
    users, items = matrix.shape
    whole = np.zeros((users + items,) * 2)
    for u in range(users):
        for i in range(items):
            if matrix[u, i]:
                value = 1.0 / np.sqrt(matrix[u].sum() * matrix[:, i].sum())
                whole[u, users + i] = whole[users + i, u] = value
    return whole


def make(rows, **kwargs):
    made = graph.make(graph.item_sets(rows, ITEMS), ITEMS, **kwargs)
    return jax.tree.map(jnp.asarray, made)


def nodes(seed=1, width=5):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(USERS + ITEMS, width)).astype(np.float32)
    return Nodes(jnp.asarray(table[:USERS]), jnp.asarray(table[USERS:])), table.astype(np.float64)


def joined(found):
    return np.concatenate([found.users, found.items])


def as_matrix(made, keep=None):
    """Columns of the adjacency, one unit vector at a time."""
    unit = jnp.eye(USERS + ITEMS)
    return joined(graph.adjacency(made, Nodes(unit[:USERS], unit[USERS:]), keep))


def test_sets_are_sorted_and_hold_each_item_once():
    rows = user_items()
    sets = graph.item_sets(rows, ITEMS)
    for user in range(USERS):
        got = sets.members[sets.start[user] : sets.start[user + 1]]
        want = sorted({item - 1 for item in rows.items[rows.start[user] : rows.end[user]]})
        assert got.tolist() == want
    back, order = graph.transpose(sets, ITEMS)
    owner = np.repeat(np.arange(USERS), np.diff(sets.start))
    np.testing.assert_array_equal(back.members, owner[order])
    np.testing.assert_array_equal(np.diff(back.start), dense(rows).sum(axis=0))


def test_adjacency_is_the_normalized_matrix():
    rows = user_items()
    matrix, got = dense(rows), as_matrix(make(rows))
    np.testing.assert_allclose(got, normalized(matrix), atol=1e-6)
    np.testing.assert_array_equal(got, got.T)
    assert np.count_nonzero(got) == 2 * matrix.sum()
    values = np.linalg.eigvalsh(got.astype(np.float64))
    assert values.min() >= -1 - 1e-6 and values.max() <= 1 + 1e-6
    root = np.sqrt(np.concatenate([matrix.sum(axis=1), matrix.sum(axis=0)]))
    np.testing.assert_allclose(got @ root, root, atol=1e-5)


def test_dropped_edges_leave_the_graph_and_its_degrees():
    rows = user_items()
    made, matrix = make(rows, droppable=True), dense(rows)
    kept = np.random.default_rng(4).integers(0, 2, made.by_user.members.shape).astype(np.float32)
    smaller = matrix.copy()
    smaller[matrix > 0] = kept  # both run through users, then items in rising order
    assert 0 < smaller.sum() < matrix.sum()
    got = as_matrix(made, jnp.asarray(kept))
    np.testing.assert_allclose(got, normalized(smaller), atol=1e-6)


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("normalize", [False, True])
def test_propagation_is_that_of_dense_matrices(layers, normalize):
    rows = user_items()
    whole, (start, table) = normalized(dense(rows)), nodes()
    total, last = table.copy(), table
    for _ in range(layers):
        last = whole @ last
        if normalize:
            last = last / np.maximum(np.sqrt((last**2).sum(axis=1)), 1e-12)[:, None]
        total = total + last
    want = total if normalize else total / (layers + 1)
    got = joined(graph.propagate(make(rows), start, layers, normalize=normalize))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    if layers == 0:
        np.testing.assert_array_equal(got, joined(start))
    if normalize and layers == 1:
        length = np.linalg.norm(got - table, axis=1)
        np.testing.assert_allclose(length[whole.any(axis=1)], 1.0, rtol=1e-5)
        np.testing.assert_allclose(length[~whole.any(axis=1)], 0.0, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_gradients_are_those_of_dense_matrices(normalize):
    rows = user_items()
    made, (start, _) = make(rows), nodes()
    whole = jnp.asarray(normalized(dense(rows)), jnp.float32)
    pull = jnp.asarray(np.random.default_rng(2).normal(size=(USERS + ITEMS, 5)), jnp.float32)

    def sparse(nodes):
        found = graph.propagate(made, nodes, 3, normalize=normalize)
        return jnp.sum(pull * jnp.concatenate(found))

    def plain(nodes):
        total = last = jnp.concatenate(nodes)
        for _ in range(3):
            last = whole @ last
            if normalize:
                last = last / jnp.sqrt(jnp.maximum(jnp.sum(last**2, axis=1), 1e-24))[:, None]
            total = total + last
        return jnp.sum(pull * (total if normalize else total / 4))

    for got, want in zip(jax.grad(sparse)(start), jax.grad(plain)(start), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_means_of_items():
    rows, rng = user_items(), np.random.default_rng(5)
    table = rng.normal(size=(ITEMS, 3)).astype(np.float32)
    got = graph.means(graph.item_sets(rows, ITEMS), table)
    for user in range(USERS):
        items = {item - 1 for item in rows.items[rows.start[user] : rows.end[user]]}
        want = np.mean([table[i] for i in items], axis=0) if items else np.zeros(3)
        np.testing.assert_allclose(got[user], want, rtol=1e-6, atol=1e-7)


def test_without_layers_no_graph_is_needed():
    tables = Nodes(jnp.ones((2, 3)), 2 * jnp.ones((4, 3)))
    got = graph.propagate(None, tables, 0)
    assert (got.users == 1).all() and (got.items == 2).all()


@pytest.mark.parametrize("kept", [False, True])
def test_sums_of_any_number_of_columns_can_be_exported(kept, monkeypatch):
    monkeypatch.setattr(graph, "_ENTRIES", 7)
    x = np.random.default_rng(3).random((9, 6)) < 0.4
    x[[0, 4, 8]] = False  # rows without entries, the last one too
    rows = graph.Rows(
        jnp.asarray(np.append(0, np.cumsum(x.sum(axis=1))), jnp.int32),
        jnp.asarray(np.nonzero(x)[1], jnp.int32),
    )
    keep = jnp.asarray(np.random.default_rng(4).random(x.sum()) < 0.5, jnp.float32)
    weights = np.zeros(x.shape)
    weights[np.nonzero(x)] = keep if kept else 1.0
    summed = jax.jit(lambda y: graph.row_sums(rows, y, keep if kept else None))
    (columns,) = jax.export.symbolic_shape("n")
    shape = jax.ShapeDtypeStruct((6, columns), jnp.float32)
    program = jax.export.export(summed, platforms=("cpu", "cuda", "tpu"))(shape)
    again = jax.export.deserialize(bytearray(program.serialize()))
    for width in (1, 5):
        y = np.random.default_rng(width).integers(-3, 4, (6, width)).astype(np.float32)
        np.testing.assert_array_equal(again.call(y), weights @ y)
        np.testing.assert_array_equal(summed(y), weights @ y)
