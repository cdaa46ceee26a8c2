"""EASE and EDLAE against ridge regressions and figures worked out by hand."""

import numpy as np
import pytest

from jaxrec_diff.classics import ease, scores
from tests.classics import samples


@pytest.mark.parametrize("chunk", [2**22, 40], ids=["whole", "small chunks"])
def test_ease_is_the_constrained_least_squares_solution(chunk, monkeypatch):
    monkeypatch.setattr(scores, "CHUNK", chunk)
    x, sets = samples.matrix(), samples.sets()
    for regularisation in (30.0, 1000.0):
        want = np.zeros((samples.ITEMS, samples.ITEMS))
        for j in range(samples.ITEMS):  # ridge regression of column j on the others
            others = [i for i in range(samples.ITEMS) if i != j]
            rest = x[:, others]
            system = rest.T @ rest + regularisation * np.eye(samples.ITEMS - 1)
            want[others, j] = np.linalg.solve(system, rest.T @ x[:, j])
        got = ease.fit(sets, samples.ITEMS, regularisation)(sets)
        np.testing.assert_allclose(got, x @ want, rtol=1e-9, atol=1e-12)


def test_figures_worked_out_by_hand():
    gram = ease.gram(samples.SMALL, 4)
    np.testing.assert_array_equal(gram, [[2, 2, 1, 1], [2, 3, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1]])
    found = ease.ease(gram, 1.0)
    np.testing.assert_allclose(found[0], [0, 0.5, -0.0769230769231, 0.25], atol=1e-12)
    np.testing.assert_allclose(found[1], [0.461538461538, 0, 0.461538461538, 0], atol=1e-12)
    np.testing.assert_allclose(found[3], [0.307692307692, 0, 0.307692307692, 0], atol=1e-12)
    want = [0, 0.148936170213, 0.0539067231981, 0.0683229813665]
    np.testing.assert_allclose(ease.ease(gram, 10.0)[0], want, atol=1e-12)


def test_dropout_of_a_half_doubles_the_diagonal():
    gram = ease.gram(samples.sets(), samples.ITEMS)
    want = ease.ease(gram + np.diag(np.diag(gram)), 3.0)
    np.testing.assert_allclose(ease.ease(gram, 3.0, 0.5), want, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(ease.ease(gram, 3.0, 0.0), ease.ease(gram, 3.0))


def test_dropout_is_the_expected_loss_over_dropped_inputs():
    """E |X - drop(X) w|^2 with inverted dropout of p, its gradient zero off the diagonal."""
    gram, dropout, regularisation = ease.gram(samples.sets(), samples.ITEMS), 0.25, 2.0
    w = ease.ease(gram, regularisation, dropout)
    noisy = gram + dropout / (1 - dropout) * np.diag(np.diag(gram))
    gradient = noisy @ w + regularisation * w - gram
    np.fill_diagonal(gradient, 0.0)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-10)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(dropout):
    with pytest.raises(ValueError, match=f"dropout .* {dropout}"):
        ease.ease(np.eye(2), 1.0, dropout)
