"""Which settings a run starts from."""

import dataclasses
import json

import pytest

from jaxrec_diff import config
from jaxrec_diff.config import choice, presets


def preset(name="dimerec", dataset="synthetic"):
    return config.preset(name, dataset).experiment


@pytest.mark.parametrize(
    "name, dataset", [("ddrm", "ml-1m-noisy"), ("diqdiff", "amazon-beauty"), ("diffrec", "yelp")]
)
def test_released_loaders_keep_the_last_batch(name, dataset):
    assert preset(name, dataset).train.epoch_sampler == "whole"


def test_published_settings_are_found_by_the_data_sets_name():
    assert preset("dreamrec", "zhihu").model.guidance_weight == 4.0
    assert preset("dreamrec", "ks").model.num_steps == 2000
    assert "published" in config.preset("dreamrec", "zhihu").origin
    assert "default" in config.preset("dreamrec", "other").origin


def test_an_earlier_phase_has_the_settings_of_the_same_data_set():
    """Unless the preset says otherwise for one of its names."""
    for name in ("ldiffrec", "ltdiffrec", "ddrm"):
        for dataset in ("ml-1m-noisy", "synthetic"):
            assert preset(name, dataset).backbone == config.phase("lightgcn", dataset)
    assert preset("diffuasr", "ml-1m").backbone == config.phase("sasrec", "ml-1m")
    assert preset("diffuasr", "official").backbone == config.phase("sasrec", "amazon-beauty")
    assert preset("ddrm", "ml-1m-noisy-mf").backbone == config.phase("mf", "ml-1m-noisy")
    assert preset("ddrm", "ml-1m-noisy-sgl").backbone.model.contrast_weight == 0.1


def test_a_phase_has_no_phase():
    with pytest.raises(ValueError, match="ddrm needs a backbone itself"):
        config.phase("ddrm", "synthetic")


def test_a_file_of_settings_names_its_data(tmp_path):
    path = tmp_path / "best.json"
    kept = {"schema": 1, "preset": "mf", "source": "a/clicks.csv"}
    made = dataclasses.replace(preset("mf", "clicks"), seed=7)
    path.write_text(json.dumps(kept | config.to_json(made)))
    asked = {"model": "mf", "preset": str(path)}
    chosen = config.choose(asked)
    assert chosen == ("mf", "a/clicks.csv", (made, f"settings of {path}"), True)
    assert chosen.typed(()) is None and config.choose({"model": "mf"}).typed(["a_b.c"]) == (
        "a-b.c",
    )
    assert config.choose(asked | {"data": "b/clicks.csv"}).source == "b/clicks.csv"
    with pytest.raises(ValueError, match="nosuch.json does not exist; name a json file"):
        config.choose({"model": "mf", "preset": str(tmp_path / "nosuch.json")})
    with pytest.raises(ValueError, match="holds settings of mf, not of sasrec"):
        config.choose(asked | {"model": "sasrec"})


@pytest.mark.parametrize(
    ("model", "dataset", "said"),
    [
        ("dreamrec", "zhiuh", "did you mean zhihu[?] dreamrec has settings for ks, yc, zhihu$"),
        ("mf", "qqq", "^--preset=qqq: mf has settings for ml-1m-clean, ml-1m-noisy$"),
    ],
)
def test_a_data_set_without_settings_is_refused(model, dataset, said):
    with pytest.raises(ValueError, match=said):
        config.choose({"model": model, "preset": dataset})
    assert config.choose({"model": model, "data": dataset}).source == dataset


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("{", "cannot be read as json"),
        ("[]", "holds no settings or results by name"),
        ('{"preset": "mf"}', "holds no settings that can be used: it has no 'source'"),
        ('{"preset": "mf", "source": "x", "model": 3}', "are not laid out as those of a run"),
        ('{"preset": "mf", "source": "x", "model": {"width": "a"}}',
         "holds no settings that can be used: 'a' should be a whole number"),
        ('{"preset": "mf", "source": "x", "model": {"wdth": 3}}',
         "holds 'wdth', which no setting is called: it was written by another version"),
        ('{"schema": 99, "preset": "mf"}', "has schema 99, and this version reads up to 1"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_one_sentence(tmp_path, kept, said):
    path = tmp_path / "config.json"
    path.write_text(kept)
    with pytest.raises(ValueError, match=said) as caught:
        choice.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.fixture
def measured(monkeypatch):
    """Presets of DreamRec whose settings for Zhihu alone have a fast sampler."""
    made = presets.load("dreamrec")
    known = config.Fast(model={"sampler.kind": "ddim", "sampler.steps": 4}, measured="zhihu.json")
    made = dataclasses.replace(made, fast={"zhihu": known})
    monkeypatch.setattr(presets, "load", lambda name: made)
    return known


def test_fast_is_what_the_preset_has_measured(measured):
    assert config.fast("dreamrec", "zhihu") == measured
    asked = {"model.sampler.kind": "fast", "eval.seeds": 2}
    got = config.with_fast(asked, "dreamrec", "zhihu")
    assert got == {"model.sampler.kind": "ddim", "model.sampler.steps": 4, "eval.seeds": 2}
    sampler = config.configure(preset("dreamrec", "zhihu"), got).model.sampler
    assert (sampler.kind, sampler.steps) == ("ddim", 4)


def test_other_samplers_stay_as_they_are(measured):
    for asked in {}, {"model.sampler.kind": "ddpm", "model.sampler.steps": 3}:
        assert config.with_fast(asked, "dreamrec", "zhihu") == asked


def test_fast_is_refused_where_nobody_has_measured_it(measured):
    fast = {"model.sampler.kind": "fast"}
    said = "not been measured for dreamrec with its default settings, but with those of zhihu;"
    with pytest.raises(ValueError, match=said):
        config.with_fast(fast, "dreamrec", "clicks")
    with pytest.raises(ValueError, match="brings its own number of steps"):
        config.with_fast(fast | {"model.sampler.steps": 3}, "dreamrec", "zhihu")


def test_settings_that_a_fast_sampler_was_not_measured_with_are_named(measured):
    experiment = preset("dreamrec", "zhihu")
    same = config.configure(experiment, {"model.sampler.eta": 0.5, "train.batch_size": 7})
    assert config.unlike_measured(same, "dreamrec", "zhihu") == []
    wide = config.configure(experiment, {"model.width": 34})
    said = [f"model.width=34 (there {experiment.model.width})"]
    assert config.unlike_measured(wide, "dreamrec", "zhihu") == said


def test_fast_is_refused_where_there_is_no_reverse_process():
    with pytest.raises(ValueError, match="sasrec walks no reverse process"):
        config.fast("sasrec", "clicks")
