"""GF-CF against figures worked out by hand and dense products."""

import numpy as np
import pytest

from jaxrec_diff.classics import graph_filter
from jaxrec_diff.ops.graph import Rows
from tests.classics import samples


def test_figures_worked_out_by_hand():
    found = graph_filter.spectrum(samples.SMALL, 4, 2)
    linear = found.linear.toarray()
    np.testing.assert_allclose(linear[0], [0.375, 0.306186217848, 0.125, 0.176776695297], atol=3e-8)
    np.testing.assert_allclose(linear[1, 1], 0.416666666667, atol=3e-8)
    one = Rows(np.arange(5), np.arange(4))  # a row for each item
    ideal = graph_filter.fit(found, 2, 1.0)(one) - graph_filter.fit(found, 2, 0.0)(one)
    want = [
        [0.75, 0.375, -0.25, 0.125], [0.25, 0.375, 0.25, 0.125],
        [-0.25, 0.375, 0.75, 0.125], [0.25, 0.375, 0.25, 0.125],
    ]  # fmt: skip
    np.testing.assert_allclose(ideal, want, atol=1e-10)
    want = [0.981186217848, 0.947852884515, 0.431186217848, 0.396114262594]
    np.testing.assert_allclose(graph_filter.fit(found, 2, 0.3)(samples.SMALL)[0], want, atol=2e-7)


@pytest.mark.parametrize("most", [5, samples.ITEMS])
def test_scores_are_those_of_dense_products(most):
    x, sets, vectors = samples.matrix(), samples.sets(), 4
    by_user, by_item = (np.maximum(x.sum(axis=axis), 1) ** -0.5 for axis in (1, 0))
    r = by_user[:, None] * x * by_item
    v = np.linalg.svd(r)[2][:vectors].T
    ideal = (x * by_item) @ v @ v.T * np.sqrt(x.sum(axis=0))
    found = graph_filter.spectrum(sets, samples.ITEMS, most)
    got = graph_filter.fit(found, vectors, 0.7)(sets)
    np.testing.assert_allclose(got, x @ (r.T @ r) + 0.7 * ideal, atol=2e-6)
    again = graph_filter.fit(graph_filter.spectrum(sets, samples.ITEMS, most), vectors, 0.7)(sets)
    np.testing.assert_array_equal(got, again)
