"""What is stored of settings, and which versions of it are read."""

import dataclasses
import json

import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.config import stored
from jaxrec_diff.experiments import pipeline, restore, runs, workdirs
from jaxrec_diff.training.config import Rule


def preset(name="dimerec", dataset="synthetic"):
    return config.preset(name, dataset).experiment


@pytest.mark.parametrize("name", config.preset_names())
def test_every_preset_survives_json(name):
    for dataset in ("synthetic", "zhihu", "yc", "ks"):
        whole = preset(name, dataset)
        assert config.from_json(whole, config.to_json(whole)) == whole


def test_rules_survive_json():
    whole = preset()
    train = dataclasses.replace(whole.train, rules=(Rule(pattern="items", learning_rate=0.0),))
    whole = dataclasses.replace(whole, train=train)
    assert config.from_json(whole, config.to_json(whole)) == whole


def test_a_field_that_is_not_there_has_its_types_default():
    """Not that of a preset, which may have changed since."""
    whole = preset()
    kept = config.to_json(whole)
    assert kept["model"].pop("positions") == "end"
    assert kept["model"]["sampler"].pop("eta") is not None
    again = config.from_json(whole, kept)
    assert again.model.positions == type(whole.model)().positions != "end"
    assert stored.completed(kept | {"preset": "x"}, whole)["model"]["positions"] == "start"


def test_settings_of_another_model_are_left_to_the_comparison():
    kept = config.to_json(preset("mf"))
    assert stored.completed(kept, preset()) == kept
    assert stored.completed([], preset()) == []


def test_differences_are_named_and_run_control_is_free():
    one = config.to_json(preset())
    other = config.to_json(config.parse(preset(), ["--train.num-epochs=3", "--parallel=pmap"]))
    assert config.difference(one, other) is None
    other = config.to_json(config.parse(preset(), ["--train.batch-size=3"]))
    assert config.difference(one, other) == "train.batch_size: 256 there, 3 here"


@pytest.mark.parametrize("kept", [{}, {"schema": 1}, {"schema": np.array(1)}])
def test_files_of_this_version_and_before_there_was_a_number_are_read(kept, tmp_path):
    stored.check_schema(kept, tmp_path)


@pytest.mark.parametrize("found", [0, 2, "x", None, 1.5])
def test_files_of_other_versions_are_refused(found, tmp_path):
    with pytest.raises(ValueError, match=f"has schema {found}, and this version reads up to 1"):
        stored.check_schema({"schema": found}, tmp_path)


@pytest.fixture
def workdir(tmp_path):
    """A workdir before its first update."""
    small = {"num_users": 60, "num_items": 40, "num_interests": 4, "max_length": 8}
    settings = {f"data.synthetic.{name}": value for name, value in small.items()}
    made = config.configure(preset("mf"), settings | {"train.batch_size": 32, "devices": 1})
    run = runs.prepare("mf", made, "synthetic")
    workdirs.create(run, tmp_path / "run")
    return run, tmp_path / "run"


def test_a_workdir_says_its_version(workdir):
    run, folder = workdir
    assert json.loads((folder / "config.json").read_text())["schema"] == stored.SCHEMA
    with np.load(folder / "vocab.npz") as vocabulary:
        assert vocabulary["schema"] == stored.SCHEMA
    assert restore.reopen(folder).experiment == run.experiment


def test_a_workdir_from_before_the_number_is_read(workdir):
    run, folder = workdir
    kept = json.loads((folder / "config.json").read_text())
    del kept["schema"]
    (folder / "config.json").write_text(json.dumps(kept))
    with np.load(folder / "vocab.npz") as vocabulary:
        ids = {name: vocabulary[name] for name in ("item_ids", "user_ids")}
    np.savez(folder / "vocab.npz", **ids)
    workdirs.check(run, folder)
    assert restore.reopen(folder).experiment == run.experiment


def test_a_workdir_of_a_later_version_is_refused(workdir):
    run, folder = workdir
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
    for opens in (
        restore.reopen,
        lambda folder: workdirs.check(run, folder),
    ):
        with pytest.raises(ValueError, match="config.json has schema 2, and this version reads"):
            opens(folder)


def test_a_vocabulary_of_a_later_version_is_refused(workdir):
    run, folder = workdir
    with np.load(folder / "vocab.npz") as vocabulary:
        ids = {name: vocabulary[name] for name in ("item_ids", "user_ids")}
    np.savez(folder / "vocab.npz", schema=2, **ids)
    with pytest.raises(ValueError, match="vocab.npz has schema 2"):
        restore.reopen(folder)


def test_results_of_a_later_version_are_refused(workdir):
    run, folder = workdir
    (folder / "results.json").write_text('{"schema": 2}')
    with pytest.raises(ValueError, match="results.json has schema 2"):
        pipeline.train(run, folder)
