"""The folder of a run takes its own run alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.data import views
from jaxrec_diff.experiments import runs, workdirs

SMALL = [
    "--devices=1",
    "--data.synthetic.num-users=80",
    "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4",
    "--data.synthetic.max-length=8",
    "--train.batch-size=32",
]


def test_other_generated_items_are_other_data(tmp_path):
    chosen = config.parse(config.preset("sasrec", "synthetic").experiment, SMALL)
    raw = runs.prepare("sasrec", chosen, "synthetic")
    prefix = np.random.default_rng(0).integers(1, 41, (raw.dataset.num_users, 3))
    other = np.where(np.arange(3) == 1, prefix % 40 + 1, prefix)
    kept, changed = (
        raw._replace(dataset=views.longer(raw.dataset, items.astype(np.int32)))
        for items in (prefix, other)
    )
    assert kept.dataset.card["hash"] == raw.dataset.card["hash"]  # the same split
    workdirs.create(kept, tmp_path / "run")
    workdirs.check(kept, tmp_path / "run")
    for another in (changed, raw):
        with pytest.raises(ValueError, match="was trained on generated items with hash"):
            workdirs.check(another, tmp_path / "run")
    workdirs.create(raw, tmp_path / "raw")
    with pytest.raises(ValueError, match="generated items with hash none, this data has"):
        workdirs.check(kept, tmp_path / "raw")


def test_a_folder_without_a_newer_field_has_its_default(tmp_path):
    chosen = config.parse(config.preset("sasrec", "synthetic").experiment, SMALL)
    run = runs.prepare("sasrec", chosen, "synthetic")
    run = run._replace(name="sasrec+diffuasr")  # as the last phase of a generator's run is
    workdirs.create(run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    stored = json.loads(path.read_text())
    assert stored["data"].pop("recent") == 0
    path.write_text(json.dumps(stored))
    workdirs.check(run, tmp_path / "run")
    cut = replace(chosen, data=replace(chosen.data, recent=5))
    with pytest.raises(ValueError, match="holds a run with data.recent: 0 there, 5 here"):
        workdirs.check(run._replace(experiment=cut), tmp_path / "run")


def test_a_set_up_that_was_cut_short_is_made_again(tmp_path):
    chosen = config.parse(config.preset("sasrec", "synthetic").experiment, SMALL)
    run = runs.prepare("sasrec", chosen, "synthetic")
    for name, left in {
        "card": ["data_card.json"],
        "ids": ["data_card.json", "vocab.npz.partial"],
        "all": ["run.lock", "data_card.json", "vocab.npz", "config.json.partial"],
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in left:
            (folder / file).write_text("half")
        with workdirs.opened(run, folder):
            workdirs.check(run, folder)
        whole = {"data_card.json", "vocab.npz", "config.json", "run.lock"}
        assert {path.name for path in folder.iterdir()} - {"config.json.partial"} == whole
        assert json.loads((folder / "data_card.json").read_text()) == run.dataset.card
    (tmp_path / "card" / "config.json").unlink()
    (tmp_path / "card" / "notes.txt").touch()  # of somebody else
    with pytest.raises(ValueError, match="is not empty and holds no run"):
        workdirs.check(run, tmp_path / "card")
