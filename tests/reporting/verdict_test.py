"""The sentences that a page begins with."""

import numpy as np
import pytest

from jaxrec_diff.reporting import leaderboard, verdict
from jaxrec_diff.reporting.leaderboard import Run

LINES = [{"step": 10 * n, "epoch": float(n), "valid/ndcg@10": 0.1} for n in (1, 2, 3)]


def run_of(own, **controls):
    """A run whose users and those of its controls score as given."""
    values = {"ndcg@10": np.asarray(own)}
    values |= {f"{name}:ndcg@10": np.asarray(each) for name, each in controls.items()}
    results = {"protocol": "honest", "dataset": "toy", "data_hash": "0" * 12, "seed": 0}
    return Run("model", "runs/model", "{}", results, np.arange(len(own)), values)


def beside(own, **controls):
    board = leaderboard.board([run_of(own, **controls)], metric="ndcg@10", resamples=500)
    return board, verdict.beside(board)


def test_a_run_above_its_best_control():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, 400)
    board, said = beside(base + 0.1 + rng.normal(0, 0.01, 400), popularity=base, random=base - 0.3)
    assert f"ndcg@10 {board.entries[0].means['ndcg@10']:.4f}, above popularity (" in said
    low, high = (float(word.strip(".")) for word in said.split("95 % ")[1].split(" to "))
    assert 0.09 < low < 0.1 < high < 0.11 and "difference +0.1" in said


def test_a_run_below_its_best_control():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, 400)
    _, said = beside(base - 0.1 + rng.normal(0, 0.01, 400), ease=base, popularity=base - 0.3)
    assert ", below ease (" in said and "difference -0.1" in said


def test_a_run_that_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, 400)
    assert ", not told apart from ease (" in beside(base + rng.normal(0, 0.5, 400), ease=base)[1]
    assert "no control" in beside(base)[1]


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (30, "still rising at the last of 5 epochs"),
        (20, "best at epoch 2 of 5; the 1 evaluation after it"),
        (10, "best at epoch 1 of 5; the 2 evaluations after it"),
    ],
)
def test_whether_training_was_done(best, said):
    results = {"best_step": best, "num_epochs": 5}
    assert said in verdict.training(LINES, results, "ndcg@10")
    assert verdict.training(LINES[:1], results, "ndcg@10") == ""
    assert verdict.training(LINES[1:], results, "ndcg@10") == "" or best > 10
