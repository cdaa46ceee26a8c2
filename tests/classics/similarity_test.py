"""The kernel of neighbourhoods against figures worked out by hand and a dense float64 loop."""

import numpy as np
import pytest

from jaxrec_diff.classics import scores, similarity
from jaxrec_diff.classics.similarity import ALL, Kernel
from jaxrec_diff.ops.graph import Rows
from tests.classics import samples

# X = [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]]; rows are items of the history
ORACLES = [
    (Kernel(), 0, [0, 0.816496580928, 0.5, 0.707106781187]),
    (Kernel(), 1, [0.816496580928, 0, 0.816496580928, 0.57735026919]),
    (Kernel(shrink=2.0), 0, [0, 0.449489742783, 0.25, 0.292893218813]),
    (Kernel(p=0.3, r=0.7), 0, [0, 0.752897956971, 0.5, 0.812252396356]),
    (Kernel(p=0.3, r=0.7), 1, [0.885467493296, 0, 0.885467493296, 0.719223093325]),
    (Kernel(p=0.3, r=0.7), 3, [0.615572206672, 0.463463056772, 0.615572206672, 0]),
    (Kernel(of_sets=True), 0, [0, 2 / 3, 1 / 3, 1 / 2]),
    (Kernel(of_sets=True, shrink=1.0), 0, [0, 0.5, 0.25, 1 / 3]),
    (Kernel(p=1.0, q=1.0, r=0.0), 0, [0, 0.375, 0.125, 0.125]),
    (Kernel(p=1.0, q=1.0, r=0.0), 1, [0.25, 0, 0.25, 0.0833333333333]),
    (Kernel(p=1.0, q=1.0, r=0.0), 3, [0.25, 0.25, 0.25, 0]),
    (Kernel(p=2.0, q=2.0, r=0.0), 0, [0, 0.078125, 0.015625, 0.015625]),
    (Kernel(p=2.0, q=2.0, r=0.0), 3, [0.0625, 0.0625, 0.0625, 0]),
    (Kernel(p=0.7, q=0.7, r=0.6), 0, [0, 0.316673430274, 0.153893051668, 0.233258247884]),
    (Kernel(p=0.7, q=0.7, r=0.6), 1, [0.304090253436, 0, 0.304090253436, 0.175619658279]),
    (Kernel(p=0.7, q=0.7, r=0.6), 3, [0.25, 0.196013170421, 0.25, 0]),
    (similarity.GRAPH_FILTER, 0, [0.375, 0.306186217848, 0.125, 0.176776695297]),
]


@pytest.mark.parametrize(("kernel", "row", "want"), ORACLES)
def test_presets_have_the_weights_of_their_papers(kernel, row, want):
    alike = similarity.most_alike(samples.SMALL, 4, kernel, ALL)
    np.testing.assert_allclose(similarity.weights(alike).toarray()[row], want, atol=1e-7)


def naive(x, count, kernel):
    """w[i, j] for a row's item i and a scored item j: j keeps the items most like it."""
    weight = np.maximum(x.sum(axis=1), 1) ** (-2 * kernel.user_power)
    users = (x * weight[:, None]).sum(axis=0)
    each = weight * np.maximum(x.sum(axis=1), 1) ** -kernel.q
    size = x.shape[1]
    weights = np.zeros((size, size))
    for j in range(size):
        likeness = []
        for i in range(size):
            both = float((x[:, i] * x[:, j] * each).sum())
            scale = users[i] ** kernel.p * users[j] ** kernel.r + kernel.shrink
            likeness.append(both / scale if both and i != j else 0.0)
        for i in range(size):
            rank = sum(np.float32(other) >= np.float32(likeness[i]) for other in likeness)
            weights[i, j] = likeness[i] if rank <= count else 0.0
    return weights


@pytest.mark.parametrize("chunk", [2**22, 40], ids=["whole", "small chunks"])
@pytest.mark.parametrize(
    "kernel",
    [Kernel(), Kernel(shrink=5.0), Kernel(p=0.4, q=0.25, r=0.6), Kernel(user_power=0.25)],
)
def test_neighbours_are_those_of_a_loop(kernel, chunk, monkeypatch):
    monkeypatch.setattr(scores, "CHUNK", chunk)
    sets, x = samples.sets(), samples.matrix()
    for count in (4, samples.ITEMS):
        alike = similarity.most_alike(sets, samples.ITEMS, kernel, count + 1)
        score = scores.of_weights(similarity.weights(similarity.cut(alike, count)))
        np.testing.assert_allclose(score(sets), x @ naive(x, count, kernel), rtol=1e-5, atol=1e-6)


def test_neighbours_alike_to_the_first_left_out_are_left_out():
    # item 1 has items 2, 3 and 4 with one user each, who has nothing else
    sets = Rows(np.array([0, 2, 4, 6]), np.array([0, 1, 0, 2, 0, 3]))
    alike = similarity.most_alike(sets, 4, Kernel(), ALL)
    counts = [np.diff(similarity.cut(alike, count).start).tolist() for count in (1, 2, 3, ALL)]
    assert counts == [[0, 1, 1, 1], [0, 1, 1, 1], [3, 1, 1, 1], [3, 1, 1, 1]]


def test_pairs_held_are_bounded(monkeypatch):
    whole = similarity.most_alike(samples.sets(), samples.ITEMS, Kernel(), ALL)
    monkeypatch.setattr(similarity, "MOST_PAIRS", 3 * samples.ITEMS)
    few = similarity.most_alike(samples.sets(), samples.ITEMS, Kernel(), ALL)
    want = np.minimum(np.diff(whole.start), 3)
    np.testing.assert_array_equal(np.diff(few.start), want)
    for j in range(samples.ITEMS):
        kept = whole.items[whole.start[j] : whole.start[j] + want[j]]
        np.testing.assert_array_equal(few.items[few.start[j] : few.start[j + 1]], kept)


def test_items_may_be_numbered_otherwise():
    x = samples.matrix()
    order = np.random.default_rng(3).permutation(samples.ITEMS)
    kernel = Kernel(p=0.7, q=0.5, r=0.3)

    def of(matrix):
        sets = samples.rows_of(matrix)
        alike = similarity.most_alike(sets, samples.ITEMS, kernel, 5)
        return similarity.weights(similarity.cut(alike, 4)).toarray()

    np.testing.assert_array_equal(of(x)[np.ix_(order, order)], of(x[:, order]))


def test_a_user_of_nothing_changes_nothing():
    sets = samples.sets()
    more = Rows(np.append(sets.start, sets.start[-1]), sets.members)
    for each, other in zip(
        similarity.most_alike(sets, samples.ITEMS, Kernel(q=0.5, user_power=0.25), ALL),
        similarity.most_alike(more, samples.ITEMS, Kernel(q=0.5, user_power=0.25), ALL),
        strict=True,
    ):
        np.testing.assert_array_equal(each, other)
