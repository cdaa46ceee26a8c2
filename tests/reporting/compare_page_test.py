"""The page of a comparison: what differs, and what it costs."""

import json
import re

import numpy as np
import pytest

from jaxrec_diff.reporting import compare_page, figures, leaderboard


def run(name, settings, seconds, **results):
    told = {"train_seconds": seconds, "control_seconds": {"ease": 4.0}, "seed": 0, "command": ""}
    told |= {"data_hash": "f" * 64, "protocol": "honest", "dataset": "toy"} | results
    values = {"ndcg@10": np.full(8, 0.5), "ease:ndcg@10": np.full(8, 0.25)}
    values |= {"popularity:ndcg@10": np.full(8, 0.125)}
    return leaderboard.Run(
        name, f"nowhere/{name}", json.dumps(settings), told, np.arange(8), values
    )


def test_settings_that_differ_are_shown_and_no_others():
    runs = [
        run("a", {"model": {"width": 8, "deep": 2}, "seed": [1]}, 2.0),
        run("b", {"model": {"width": 16}, "seed": [1]}, 3.0),
    ]
    text = compare_page._settings(leaderboard.by_settings(runs))
    first, _, rest = text.partition("<details>")
    assert "<td>model.width</td><td>8</td><td>16</td>" in first and "seed" not in text
    assert "<td>model.deep</td><td>2</td><td>-</td>" in rest
    assert compare_page._settings(leaderboard.by_settings(runs[:1])) == ""


def test_cost_is_the_mean_of_seeds_and_that_of_controls(monkeypatch):
    runs = [run("a", {}, 2.0), run("a", {}, 4.0, seed=1), run("b", {"model": 1}, 3.0)]
    board = leaderboard.board(runs, resamples=100)
    seen = {}
    monkeypatch.setattr(figures, "scatter", lambda points, **more: seen.update(points) or "<svg/>")
    compare_page._cost(board, leaderboard.by_settings(runs))
    assert seen == {"a": (3.0, 0.5, 0.0), "b": (3.0, 0.5, 0.0), "ease": (4.0, 0.25, 0.0)}


def test_runs_of_one_name_are_told_apart_by_their_folders():
    runs = [run("a", {"x": n}, 1.0)._replace(folder=f"{n}/same") for n in (1, 2)]
    assert list(leaderboard.by_settings(runs)) == ["a (1/same)", "a (2/same)"]
    with pytest.raises(ValueError, match="seed 0 twice"):
        leaderboard.by_settings([runs[0], runs[0]])


@pytest.mark.parametrize("spread", [1.05, 2.0, 8.0, 30.0, 150.0, 1e5])
def test_marks_of_cost_do_not_run_into_each_other(spread):
    points = {"a": (0.04, 0.2, 0.05), "b": (0.04 * spread, 0.1, 0.05)}
    drawn = figures.scatter(points, across="seconds", what="hr@10")
    marks = re.findall(r'id="[^"]*xtick_\d+"', drawn)
    assert 2 <= len(marks) <= 8
