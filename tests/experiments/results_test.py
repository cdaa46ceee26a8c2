"""Figures of a model are on disk before the slow baselines begin."""

import json

import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.experiments import exports, judging, pipeline, restore, runs

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


def prepared(name, *flags):
    chosen = config.parse(config.preset(name, "synthetic").experiment, [*FLAGS[:-1], *flags])
    return runs.prepare(name, chosen, "synthetic")


def quietly(run, folder):
    return pipeline.train(run, folder, log=lambda text: None)


def test_a_backbone_is_judged_beside_what_starts_from_it(tmp_path):
    backbone = (
        "--backbone.model.width=8", "--backbone.train.batch-size=32",
        "--backbone.train.num-epochs=1", "--model.freeze-epochs=1", "--model.num-heads=2",
    )  # fmt: skip
    run = prepared("adrec", *backbone)
    found = quietly(run, tmp_path / "both")
    alone = quietly(prepared("sasrec"), tmp_path / "alone")  # the same settings and seed
    for protocol, told in found["protocols"].items():
        expected = alone["protocols"][protocol]["metrics"]
        assert told["diagnostics"]["backbone"] == pytest.approx(expected, abs=1e-6)
    # one epoch, in which the rows stand still
    rows = exports.read(exports.path(tmp_path / "both", "backbone"))["items"]
    trained = restore.restore(run, tmp_path / "both").params["items"]
    np.testing.assert_array_equal(trained[1 : len(rows) + 1], rows)
    assert np.abs(np.asarray(trained[0])).max() > 0  # padding, as it was drawn


def test_the_released_freeze_moves_rows_and_arrays_may_be_left_out(tmp_path):
    rng = np.random.default_rng(0)
    rows = (rng.uniform(0.2, 0.9, (40, 8)) * rng.choice([-1, 1], (40, 8))).astype(np.float32)
    np.savez(tmp_path / "rows.npz", items=rows)
    drifting = (
        "--model.num-heads=2", "--model.freeze-epochs=1", "--model.freeze=released",
        "--train.optimizer=adam_l2", "--train.weight-decay=1e-5",
        f"--embeddings={tmp_path / 'rows.npz'}",
    )  # fmt: skip
    run = prepared("adrec", *drifting)
    found = quietly(run, tmp_path / "drifting")
    assert "backbone" not in found["diagnostics"]
    steps = found["steps"]
    moved = rows - restore.restore(run, tmp_path / "drifting").params["items"][1:41]
    np.testing.assert_allclose(moved, 1e-3 * steps * np.sign(rows), rtol=1e-2)
