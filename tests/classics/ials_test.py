"""iALS against figures worked out by hand, one row at a time, and its own objective."""

import numpy as np
import pytest

from jaxrec_diff.classics import ials
from jaxrec_diff.ops import graph
from tests.classics import samples

ITEMS = np.array([[0.1 * np.cos(i + 2 * k) for k in range(2)] for i in range(4)])
WEIGHTS = (0.1, 0.05)


def test_figures_worked_out_by_hand():
    users = ials.solve(samples.SMALL, ITEMS, *WEIGHTS)
    want = [
        [1.06269635847, -0.972172838863], [0.0635420509217, -1.20924146847],
        [0.0225048317146, -0.744423978805],
    ]  # fmt: skip
    np.testing.assert_allclose(users, want, rtol=1e-10)
    items = ials.solve(graph.transpose(samples.SMALL, 4)[0], users, *WEIGHTS)
    want = [
        [0.0624045628148, -0.860559070892], [0.0926617007105, -0.821278131195],
        [-0.371152212543, -0.836311949616], [-0.515310475942, -0.886155512356],
    ]  # fmt: skip
    np.testing.assert_allclose(items, want, rtol=1e-10)
    steps = [
        ials.objective(samples.SMALL, 0 * users, ITEMS, *WEIGHTS),
        ials.objective(samples.SMALL, users, ITEMS, *WEIGHTS),
        ials.objective(samples.SMALL, users, items, *WEIGHTS),
    ]
    np.testing.assert_allclose(steps, [8.00482782376, 7.37237458689, 2.2425760325], rtol=1e-10)


@pytest.mark.parametrize("places", [2**22, 40, 1])
def test_rows_are_solved_as_if_alone(places, monkeypatch):
    monkeypatch.setattr(ials, "_PLACES", places)
    sets, x = samples.sets(), samples.matrix()
    others = np.random.default_rng(0).normal(size=(samples.ITEMS, 3))
    found = ials.solve(sets, others, 0.3, 0.02, 0.7)
    for user in range(samples.USERS):
        q = others[x[user] > 0]
        penalty = 0.02 * (len(q) + 0.3 * samples.ITEMS) ** 0.7
        system = 0.3 * others.T @ others + q.T @ q + penalty * np.eye(3)
        np.testing.assert_allclose(found[user], np.linalg.solve(system, q.sum(axis=0)), rtol=1e-9)


def test_no_turn_raises_the_objective():
    sets = samples.sets()
    settings = {"unobserved": 0.2, "regularisation": 0.05, "dtype": np.float64}
    values = []
    for epochs in range(1, 6):
        items = ials.items(sets, samples.ITEMS, width=4, epochs=epochs, **settings)
        users = ials.solve(sets, items, 0.2, 0.05)
        values.append(ials.objective(sets, users, items, 0.2, 0.05))
    assert all(after < before for before, after in zip(values, values[1:], strict=False))


def test_a_history_that_was_not_trained_on_is_folded_in():
    sets = samples.sets()
    items = ials.items(sets, samples.ITEMS, width=4, epochs=3)
    score = ials.score_by(items, 0.1, 0.003)
    both = samples.rows_of(np.array([[1, 1, 0] + [0] * 12, [0] * 15]))
    got = score(both)
    want = ials.solve(both, items, 0.1, 0.003)[0] @ items.T
    np.testing.assert_allclose(got[0], want, rtol=1e-5)
    assert not got[1].any()
