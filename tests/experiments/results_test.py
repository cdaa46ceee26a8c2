"""Figures of a model are on disk before the slow baselines begin."""

import json

import pytest

from jaxrec_diff import config
from jaxrec_diff.experiments import judging, pipeline, runs

FLAGS = [
    "--devices=1", "--data.synthetic.num-users=60", "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4", "--data.synthetic.max-length=8", "--data.max-len=6",
    "--train.batch-size=32", "--eval.batch-size=64", "--train.num-epochs=1", "--model.width=8",
    "--eval.controls=item_knn",
]  # fmt: skip


class Killed(Exception):
    """Stands in for a kill for memory."""


def test_a_run_killed_in_its_slow_baselines_has_figures_and_can_be_completed(tmp_path, monkeypatch):
    chosen = config.parse(config.preset("mf", "synthetic").experiment, FLAGS)
    run = runs.prepare("mf", chosen, "synthetic")

    def kill(phase):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(judging, "tuned_baselines", kill)
        with pytest.raises(Killed):
            pipeline.train(run, tmp_path / "killed", log=lambda text: None)
    begun = json.loads((tmp_path / "killed" / "results.json").read_text())
    assert begun["controls_left"] == ["item_knn"] and "item_knn" not in begun["controls"]
    assert (tmp_path / "killed" / "per_user.parquet").exists()

    said = []
    completed = pipeline.train(run, tmp_path / "killed", log=said.append)
    whole = pipeline.train(run, tmp_path / "whole", log=lambda text: None)
    assert "resumed" in said[0] and "controls_left" not in completed
    assert json.loads((tmp_path / "killed" / "results.json").read_text()) == completed
    for key in ("metrics", "controls", "protocols", "best_step"):
        assert completed[key] == whole[key], key
    assert begun["metrics"] == whole["metrics"] and "item_knn" in whole["controls"]
    pipeline.train(run, tmp_path / "killed", log=said.append)
    assert "is finished" in said[-1]
