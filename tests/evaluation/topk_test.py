"""Top lists against a full sort of all scores."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.benchmarking import hlo
from jaxrec_diff.evaluation import topk
from tests import processes

ITEMS = 53


def problem(seed: int, rows: int = 6, spread: int | None = None):
    """Small whole numbers: every score is exact in float32, and ties are many."""
    rng = np.random.default_rng(seed)
    shape = (rows, 3) if spread is None else (rows, spread, 3)
    points = rng.integers(-2, 3, shape).astype(np.float32)
    table = rng.integers(-2, 3, (ITEMS, 3)).astype(np.float32)
    bias = rng.integers(-1, 2, ITEMS).astype(np.float32)
    return points, table, bias


def full_sort(scores: np.ndarray, k: int):
    """Best k of f32[B, I]: stable, so that ties go to the lowest id."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, axis=1)
    return values, np.where(values > -np.inf, order + 1, 0)


def check(found: topk.Top, scores: np.ndarray, k: int) -> None:
    values, items = full_sort(scores, min(k, scores.shape[1]))
    short = k - values.shape[1]
    values = np.pad(values, ((0, 0), (0, short)), constant_values=-np.inf)
    np.testing.assert_array_equal(found.scores, values)
    np.testing.assert_array_equal(found.items, np.pad(items, ((0, 0), (0, short))))


@pytest.mark.parametrize("chunk", [None, 1, 4, 10, 26, 27, 52, 53, 54, 200])
@pytest.mark.parametrize("k", [1, 10, 53])
def test_top_is_a_full_sort_for_every_chunk(chunk, k):
    points, table, bias = problem(0)
    found = topk.top(points, table, bias, k=k, chunk=chunk)
    check(found, points @ table.T + bias, k)


@pytest.mark.parametrize("chunk", [None, 7])
def test_equal_scores_list_the_lowest_ids(chunk):
    found = topk.top(jnp.ones((2, 1)), jnp.ones((ITEMS, 1)), k=9, chunk=chunk)
    assert found.items.tolist() == [list(range(1, 10))] * 2


@pytest.mark.parametrize("chunk", [None, 1, 9, 30])
def test_seen_and_forbidden_items_are_never_listed(chunk):
    points, table, bias = problem(1)
    rng = np.random.default_rng(2)
    seen = rng.integers(0, ITEMS + 1, (6, 20)).astype(np.int32)
    seen[0] = 0
    allowed = rng.random(ITEMS) < 0.6
    found = topk.top(
        points, table, bias, k=ITEMS, seen=jnp.asarray(seen), allowed=jnp.asarray(allowed),
        chunk=chunk,
    )  # fmt: skip
    scores = np.where(allowed, points @ table.T + bias, -np.inf)
    for row, items in enumerate(seen):
        scores[row, items[items > 0] - 1] = -np.inf
    check(found, scores, ITEMS)
    for row, items in enumerate(np.asarray(found.items)):
        listed = set(items[items > 0].tolist())
        assert not listed & set(seen[row].tolist())
        assert listed <= set((np.flatnonzero(allowed) + 1).tolist())


@pytest.mark.parametrize("chunk", [None, 1, 8])
def test_scores_that_are_no_numbers_are_never_listed(chunk):
    points, table, bias = problem(3)
    bias[[4, 11, 52]] = np.nan
    table[20] = np.nan
    points[2] = np.nan
    found = topk.top(points, table, bias, k=ITEMS, chunk=chunk)
    with np.errstate(invalid="ignore"):
        scores = points @ table.T + bias
    check(found, np.where(np.isnan(scores), -np.inf, scores), ITEMS)
    assert not np.isin(found.items, [5, 12, 53, 21]).any()
    assert not np.any(found.items[2]) and np.all(np.asarray(found.scores[2]) == -np.inf)


@pytest.mark.parametrize("chunk", [None, 1, 8, 40])
def test_an_item_scores_the_best_of_several_points(chunk):
    points, table, bias = problem(4, spread=4)
    found = topk.top(points, table, bias, k=12, chunk=chunk)
    check(found, np.einsum("bpd,id->bpi", points, table).max(axis=1) + bias, 12)


@pytest.mark.parametrize("each", [1, 3])  # rows that share a history
@pytest.mark.parametrize(
    ("rows", "spread"), [(129, None), (387, None), (300, 1), (45, 9), (3, 200)]
)
def test_batches_of_several_blocks_are_ranked_row_by_row(rows, spread, each):
    points, table, bias = problem(7, rows, spread)
    seen = np.random.default_rng(8).integers(0, ITEMS + 1, (rows // each, 4)).astype(np.int32)
    found = topk.top(points, table, bias, k=9, seen=seen, chunk=20)
    scores = (points @ table.T if spread is None else (points @ table.T).max(axis=1)) + bias
    for row in range(rows):
        items = seen[row // each]
        scores[row, items[items > 0] - 1] = -np.inf
    check(found, scores, 9)


@pytest.mark.parametrize("chunk", [None, 5])
def test_lists_longer_than_the_items_end_in_zeros(chunk):
    points, table, bias = problem(5)
    check(
        topk.top(points, table, bias, k=ITEMS + 7, chunk=chunk),
        points @ table.T + bias,
        ITEMS + 7,
    )


@pytest.mark.parametrize("chunk", [None, 11])
def test_nearest_is_the_best_item_of_each_place(chunk):
    points, table, _ = problem(6, spread=5)
    found = topk.nearest(jnp.asarray(points), jnp.asarray(table), chunk=chunk)
    np.testing.assert_array_equal(found, np.argmax(points @ table.T, axis=-1) + 1)


def greedy(points, table, seen, distinct):
    """Place by place the best item that may still be taken, by plain loops in float64."""
    out = []
    for row, barred in zip(points.astype(float), seen, strict=True):
        barred, chosen = set(barred), []
        for point in row:
            best, item = -np.inf, 0
            for j, other in enumerate(table.astype(float)):
                score = sum(a * b for a, b in zip(point, other, strict=True))
                if score > best and j + 1 not in barred:  # ties to the lowest id
                    best, item = score, j + 1
            chosen.append(item)
            if distinct:
                barred.add(item)
        out.append(chosen)
    return out


@pytest.mark.parametrize("chunk", [None, 1, 5, 11, 52])
@pytest.mark.parametrize(("distinct", "barred"), [(True, False), (False, True), (True, True)])
def test_nearest_items_of_a_row_once_and_none_that_is_seen(chunk, distinct, barred):
    points, table, _ = problem(7, rows=5, spread=6)
    points[1] = points[1, :1]  # all places of a row want the same
    seen = np.random.default_rng(8).integers(0, ITEMS + 1, (5, 30)).astype(np.int32)
    seen[0, 3:] = 0
    seen[2] = np.argsort(-(points[2, 0] @ table.T), kind="stable")[:30] + 1  # its very best
    given = jnp.asarray(seen) if barred else None
    found = topk.nearest(
        jnp.asarray(points), jnp.asarray(table), seen=given, distinct=distinct, chunk=chunk
    )
    wanted = greedy(points, table, seen if barred else np.zeros((5, 0), int), distinct)
    assert found.tolist() == wanted
    assert wanted != greedy(points, table, np.zeros((5, 0), int), False)


@pytest.mark.parametrize("chunk", [None, 2])
def test_places_for_which_nothing_is_left_get_nothing(chunk):
    points, table = jnp.ones((2, 5, 1)), jnp.array([[1.0], [3.0], [2.0], [0.0]])
    seen = jnp.array([[2, 0], [0, 0]])
    found = topk.nearest(points, table, seen=seen, distinct=True, chunk=chunk)
    assert found.tolist() == [[3, 1, 4, 0, 0], [2, 3, 1, 4, 0]]
    everything = jnp.array([[1, 2, 3, 4]])
    assert topk.nearest(points[:1], table, seen=everything, chunk=chunk).tolist() == [[0] * 5]


def test_rounding_holds_no_array_of_places_by_items():
    rows, places, items = 64, 8, 50_000
    shapes = (
        jax.ShapeDtypeStruct((rows, places, 16), jnp.float32),
        jax.ShapeDtypeStruct((items, 16), jnp.float32),
        jax.ShapeDtypeStruct((rows, 20), jnp.int32),
    )

    def chosen(points, table, seen):
        return topk.nearest(points, table, seen=seen, distinct=True, chunk=5000)

    analysis = jax.jit(chosen).lower(*shapes).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 4 * rows * places * items / 2


@pytest.mark.parametrize(("rows", "chunk"), [(256, 1000), (2048, None)])
def test_no_array_of_rows_by_items(rows, chunk):
    items = 50_000
    shapes = (
        jax.ShapeDtypeStruct((rows, 16), jnp.float32),
        jax.ShapeDtypeStruct((items, 16), jnp.float32),
        jax.ShapeDtypeStruct((rows, 20), jnp.int32),
    )

    def lists(points, table, seen):
        return topk.top(points, table, k=21, seen=seen, chunk=chunk)

    analysis = jax.jit(lists).lower(*shapes).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 4 * rows * items


MESHES = [(8, 1), (2, 4), (1, 8), (1, 2)]


def on_mesh(data, model, fn, points, table, seen, *rest):
    """A compiled `fn` of arrays that are split over a mesh, and those arrays."""
    mesh = jax.make_mesh(
        (data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[: data * model],
    )  # fmt: skip
    rows = P("model") if len(table) % model == 0 else P()
    specs = P("data"), rows, P("data"), *[rows for _ in rest]
    args = [
        jax.device_put(array, NamedSharding(mesh, spec))
        for array, spec in zip((points, table, seen, *rest), specs, strict=True)
    ]
    with jax.set_mesh(mesh):
        return jax.jit(fn).lower(*args).compile(), args


@pytest.mark.parametrize(("data", "model"), MESHES)
@pytest.mark.parametrize("k", [1, 21, 600])
@pytest.mark.parametrize("chunk", [None, 50])
def test_devices_list_what_one_lists(data, model, k, chunk):
    rng = np.random.default_rng(k)
    points = rng.integers(-2, 3, (16, 3)).astype(np.float32)
    table = rng.integers(-2, 3, (640, 3)).astype(np.float32)
    seen = rng.integers(0, 641, (16, 9)).astype(np.int32)
    bias = rng.integers(-1, 2, 640).astype(np.float32)
    allowed = rng.random(640) < 0.6

    def lists(points, table, seen, bias, allowed):
        return topk.top(points, table, bias, k=k, seen=seen, allowed=allowed, chunk=chunk)

    program, args = on_mesh(data, model, lists, points, table, seen, bias, allowed)
    scores = np.where(allowed, points @ table.T + bias, -np.inf)
    for row, items in enumerate(seen):
        scores[row, items[items > 0] - 1] = -np.inf
    check(program(*args), scores, k)


@pytest.mark.parametrize(("data", "model"), [(1, 1), *MESHES])
@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("chunk", [None, 50])
def test_items_may_start_at_any_row(data, model, first, chunk):
    points, table, _ = problem(9, rows=8)
    seen = np.random.default_rng(8).integers(0, ITEMS + 1 - first, (8, 9)).astype(np.int32)

    def lists(points, table, seen):
        return topk.top(points, table, k=9, first=first, seen=seen, chunk=chunk)

    program, args = on_mesh(data, model, lists, points, table, seen)
    scores = points @ table[first:].T
    for row, items in enumerate(seen):
        scores[row, items[items > 0] - 1] = -np.inf
    check(program(*args), scores, 9)


@pytest.mark.parametrize(("data", "model"), [(1, 1), *MESHES])
@pytest.mark.parametrize("spread", [None, 3])
@pytest.mark.parametrize("chunk", [None, 7])
def test_rows_of_scores_are_ranked_as_they_come(data, model, spread, chunk):
    rng = np.random.default_rng(4)
    shape = (8, ITEMS) if spread is None else (8, spread, ITEMS)
    points = rng.integers(-2, 3, shape).astype(np.float32)
    bias = rng.integers(-1, 2, ITEMS).astype(np.float32)
    seen = rng.integers(0, ITEMS - 1, (8, 9)).astype(np.int32)

    def lists(points, bias, seen):
        return topk.top(points, None, bias, k=9, first=2, seen=seen, chunk=chunk)

    program, args = on_mesh(data, model, lists, points, bias, seen)
    scores = ((points if spread is None else points.max(axis=1)) + bias)[:, 2:]
    for row, items in enumerate(seen):
        scores[row, items[items > 0] - 1] = -np.inf
    check(program(*args), scores, 9)


@pytest.mark.parametrize(("data", "model"), MESHES)
def test_several_places_of_a_row_on_a_table_that_no_axis_divides(data, model):
    points, table, _ = problem(7, rows=8, spread=6)
    seen = np.random.default_rng(8).integers(0, ITEMS + 1, (8, 30)).astype(np.int32)

    def items(points, table, seen):
        return topk.nearest(points, table, seen=seen, distinct=True)

    program, args = on_mesh(data, model, items, points, table, seen)
    assert program(*args).tolist() == greedy(points, table, seen, True)


@pytest.mark.parametrize(("data", "model"), MESHES)
def test_devices_exchange_lists_only_and_copy_no_table(data, model):
    rows, items, width, k = 64, 80_000, 32, 10
    rng = np.random.default_rng(0)
    points, table = (rng.normal(size=(n, width)).astype(np.float32) for n in (rows, items))
    seen = np.zeros((rows, 5), np.int32)

    def lists(points, table, seen):
        return topk.top(points, table, k=k, seen=seen, chunk=999)

    program, _ = on_mesh(data, model, lists, points, table, seen)
    # scores and ids of the lists of all shards, and of what they are merged to
    sent = sum(hlo.collectives(program.as_text()).values())
    assert sent == (4 * 4 * rows // data * k if model > 1 else 0)
    assert program.memory_analysis().temp_size_in_bytes < 4 * items * width // model


def test_rows_that_no_axis_divides_are_ranked_by_every_device():
    points, table, bias = problem(0, rows=5)
    mesh = jax.make_mesh((8, 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        found = topk.top(points, table, bias, k=7)
    check(found, points @ table.T + bias, 7)


_TOGETHER = """
import json
from jaxrec_diff import layout
from tests.evaluation import topk_test as test

points, table, bias = test.problem(9, rows=10)
found = layout.whole(test.split_over_all(points, table, bias))
print(json.dumps([found.scores.tolist(), found.items.tolist()]))
"""


def split_over_all(points, table, bias):
    mesh = layout.make_mesh(model=4)

    def lists(*args):
        return topk.top(*args, k=6)

    everywhere = NamedSharding(mesh, P())
    given = [layout.put(array, everywhere) for array in (points, table, bias)]
    with jax.set_mesh(mesh):
        return layout.compiled(jax.jit(lists, out_shardings=everywhere), *given)(*given)


def test_processes_that_hold_parts_of_a_table_list_what_one_lists():
    points, table, bias = problem(9, rows=10)
    for out in processes.outputs(_TOGETHER):
        scores, items = json.loads(out.splitlines()[-1])
        check(topk.Top(np.array(scores), np.array(items)), points @ table.T + bias, 6)
