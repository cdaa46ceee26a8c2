"""SLIM against figures worked out by hand and the conditions of its optimum."""

import numpy as np
import pytest

from jaxrec_diff.classics import ease, slim
from tests.classics import samples


@pytest.mark.parametrize(
    ("l1", "l2", "row", "want"),
    [
        (0.5, 1.0, 0, [0, 0.375, 0, 0.125]),
        (0.5, 1.0, 1, [0.357142857143, 0, 0.357142857143, 0]),
        (0.5, 1.0, 2, [0, 0.375, 0, 0.125]),
        (0.5, 1.0, 3, [0.0714285714286, 0, 0.0714285714286, 0]),
        (0.0, 1.0, 0, [0, 0.5, 0, 0.25]),
        (0.0, 1.0, 1, [3 / 7, 0, 3 / 7, 0]),
        (0.0, 1.0, 3, [2 / 7, 0, 2 / 7, 0]),
        (1.0, 0.5, 0, [0, 0.285714285714, 0, 0]),
        (1.0, 0.5, 3, [0, 0, 0, 0]),
    ],
)
def test_figures_worked_out_by_hand(l1, l2, row, want):
    found = slim.weights(slim.shared(samples.SMALL, 4), l1, l2, tolerance=1e-7).toarray()
    np.testing.assert_allclose(found[row], want, atol=2e-7)


@pytest.mark.parametrize("kept", [True, False], ids=["X^T X kept", "made as needed"])
@pytest.mark.parametrize(("l1", "l2"), [(0.5, 3.0), (2.0, 1.0), (100.0, 1.0)])
def test_weights_are_optimal_among_all_items(l1, l2, kept, monkeypatch):
    """g = G w - G_j + l2 w + l1 is 0 where w > 0 and at least 0 where it is 0."""
    if not kept:
        monkeypatch.setattr(slim, "_DENSE_ITEMS", 0)
    sets, size = samples.sets(), samples.ITEMS
    gram = ease.gram(sets, size)
    w = slim.weights(slim.shared(sets, size), l1, l2, tolerance=1e-6).toarray()
    assert (np.diag(w) == 0).all() and (w >= 0).all() and (w.any() or l1 == 100.0)
    gradient = gram @ w - gram + l2 * w + l1
    np.fill_diagonal(gradient, 0.0)
    np.testing.assert_allclose(gradient[w > 0], 0.0, atol=2e-4)
    assert gradient.min() > -2e-4


def test_few_candidates_are_those_most_alike():
    sets, size = samples.sets(), samples.ITEMS
    few = slim.shared(sets, size, candidates=3)
    w = slim.weights(few, 0.0, 1.0).toarray()
    for j in range(size):
        near = few.alike.items[few.alike.start[j] : few.alike.start[j + 1]]
        assert set(np.nonzero(w[:, j])[0]) <= set(near) and len(near) <= 3


@pytest.mark.parametrize(("l1", "l2"), [(-1.0, 1.0), (0.0, 0.0), (np.nan, 1.0)])
def test_penalties_below_zero_are_refused(l1, l2):
    with pytest.raises(ValueError, match="l1 and l2"):
        slim.weights(slim.shared(samples.SMALL, 4), l1, l2)
