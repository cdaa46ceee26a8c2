"""Preset files: one object each, found by the names of data sets."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxrec_diff import config
from jaxrec_diff.config import presets

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "preset_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", config.preset_names())
def test_every_preset_is_searched_over_fields_that_it_has(name):
    made = presets.load(name)
    assert made.search and set(made.search) <= set(config.flag_names(made.default))
    kinds = {type(each.model) for each in (*made.published.values(), *made.ours.values())}
    assert kinds <= {type(made.default.model)}


@pytest.mark.parametrize("name", config.preset_names())
def test_a_file_shows_what_every_fast_sampler_keeps(name):
    """It was chosen on validation rows, by a file that holds what the preset says."""
    for of, fast in presets.load(name).fast.items():
        shown = json.loads((RESULTS / fast.measured).read_text())
        assert shown["model"] == name and of in (shown["data"], "default")
        assert shown["fast"]["model"] == fast.model
        ratio, error = shown["fast"]["valid_ratio"], shown["fast"]["valid_ratio_error"]
        assert ratio >= 0.99 and (error <= 0.02 or ratio - 2 * error >= 0.99)
        settings = config.preset(name, of).experiment
        config.configure(settings, config.with_fast({"model.sampler.kind": "fast"}, name, of))


def test_a_fast_sampler_is_of_settings_that_there_are():
    made = config.preset("dreamrec", "synthetic").experiment
    fast = config.Fast(model={}, measured="x.json")
    config.Preset(default=made, fast={"default": fast})
    with pytest.raises(ValueError, match="of settings that there are, got 'toys'"):
        config.Preset(default=made, fast={"toys": fast})


def test_unknown_models_are_corrected():
    with pytest.raises(ValueError, match="did you mean dimerec"):
        config.preset("dimrec", "synthetic")


def test_a_data_set_has_one_origin():
    made = config.preset("mf", "synthetic").experiment
    with pytest.raises(ValueError, match="settings for toys are published or ours, not both"):
        config.Preset(default=made, published={"toys": made}, ours={"toys": made})


def test_settings_say_where_they_come_from():
    one = config.preset("mf", "synthetic").experiment
    two, three = (dataclasses.replace(one, seed=seed) for seed in (2, 3))
    made = config.Preset(default=one, published={"toys": two}, ours={"steam": three})
    assert made.settings("toys") == (two, "published settings for toys")
    assert made.settings("steam") == (three, "settings chosen here for steam")
    assert made.settings("x") == (one, "default settings (x has no published ones)")


def test_a_file_without_a_preset_is_refused(folder):
    (folder / "mine.py").write_text("PUBLISHED = {}\n")
    assert presets.preset_names() == ["mine"]
    with pytest.raises(ValueError, match="mine.py makes no PRESET"):
        presets.load("mine")


def test_a_preset_of_ones_own_is_a_file(folder):
    (folder / "mine.py").write_text(
        "from jaxrec_diff.config import Experiment, Preset\n"
        "from jaxrec_diff.models.mf import MFConfig\n"
        "PRESET = Preset(default=Experiment(model=MFConfig(width=3)))\n"
    )
    assert config.preset("mine", "clicks").experiment.model.width == 3
