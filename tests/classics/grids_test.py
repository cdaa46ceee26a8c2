"""The classics by name: their grids, budgets and refusals, and what every one must find."""

from typing import get_args

import numpy as np
import pytest

from jaxrec_diff.classics import grids
from jaxrec_diff.evaluation.config import Control
from tests.classics import samples

SIDE = 6
MISSING = np.tile(np.arange(2 * SIDE), 10)
# Two groups of users and items; each user has its group's items but one.
BOARD = np.array(
    [
        [i // SIDE == missing // SIDE and i != missing for i in range(2 * SIDE)]
        for missing in MISSING
    ],
    float,
)


def test_settings_name_every_classic():
    assert get_args(Control) == grids.names()


@pytest.mark.parametrize("name", grids.names())
def test_a_users_missing_item_is_the_best_of_those_it_has_not(name):
    sets = samples.rows_of(BOARD)
    found = list(grids.candidates(name, sets, 2 * SIDE, trials=2))
    assert len(found) == 2
    for candidate in found:
        scores = np.where(BOARD > 0, -np.inf, candidate.fit()(sets))
        np.testing.assert_array_equal(scores.argmax(axis=1), MISSING)


@pytest.mark.parametrize("name", grids.names())
def test_the_budget_is_kept_and_the_draw_the_same(name):
    whole = grids.settings(name, 10**6)
    assert len({tuple(each.values()) for each in whole}) == len(whole) > 4
    few = grids.settings(name, 4)
    assert few == grids.settings(name, 4) and len(few) == 4
    places = [whole.index(each) for each in few]
    assert places == sorted(places)


def test_methods_of_small_grids_fit_the_default_budget():
    sizes = {name: len(grids.settings(name, 10**6)) for name in grids.names()}
    assert {name for name, size in sizes.items() if size > 24} == {"family"}


def test_settings_of_one_kernel_are_worked_out_once(monkeypatch):
    calls = []
    real = grids.similarity.most_alike
    monkeypatch.setattr(
        grids.similarity, "most_alike", lambda *args: calls.append(args[2]) or real(*args)
    )
    list(grids.candidates("item_knn", samples.sets(), samples.ITEMS, 24))
    assert len(calls) == len(set(calls)) == 4


@pytest.mark.parametrize(
    ("name", "setting", "want"),
    [
        ("ease", {"regularisation": 30.0}, ["regularisation"]),
        ("ease", {"regularisation": 300.0}, []),
        ("item_knn", {"shrink": 100.0, "neighbours": 20}, ["shrink"]),
        ("item_knn", {"shrink": 0.0, "neighbours": 0}, []),
        ("p3alpha", {"alpha": 0.4, "neighbours": 200}, ["alpha"]),
        ("ials", {"width": 128, "unobserved": 0.1, "regularisation": 0.03}, ["regularisation"]),
    ],
)
def test_the_border_of_a_grid_is_named(name, setting, want):
    assert grids.at_edge(name, setting) == want


@pytest.mark.parametrize("name", ["ease", "edlae"])
def test_a_catalogue_too_large_for_a_dense_matrix_is_refused(name):
    with pytest.raises(
        ValueError,
        match=rf"{name} .* 180000 items in 259\.6 GB and takes at most 20000 items in 3\.6 GB; "
        "take slim or item_knn",
    ):
        grids.check(name, 180_000)
    grids.check("slim", 180_000)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match="'eas'; did you mean 'ease'"):
        grids.check("eas", 5)
