"""Flags, presets and what is stored of them."""

import pytest

from jaxrec_diff import config
from jaxrec_diff.experiments import provenance
from jaxrec_diff.training.config import Rule


def preset(name="dimerec", dataset="synthetic"):
    return config.preset(name, dataset).experiment


@pytest.mark.parametrize("name", config.preset_names())
def test_every_preset_survives_json(name):
    for dataset in ("synthetic", "zhihu", "yc", "ks"):
        whole = preset(name, dataset)
        assert config.from_json(whole, config.to_json(whole)) == whole


def test_flags_reach_their_fields():
    flags = ["--train.batch-size=64", "--train.learning_rate", "3e-4", "--eval.ks=1,7,20"]
    got = config.parse(preset(), [*flags, "--model.hoist=false", "--model.sampler.kind=ddim"])
    assert (got.train.batch_size, got.train.learning_rate, got.eval.ks) == (64, 3e-4, (1, 7, 20))
    unguided = config.parse(preset("diffuasr"), ["--model.guidance=none"])
    assert unguided.model.guidance == "none"
    assert not got.model.hoist and got.model.sampler.kind == "ddim"
    assert got.model.width == preset().model.width


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--train.batchsize=3"], "did you mean --train.batch-size"),
        (["--qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq.patience=3"], "did you mean --train.patience"),
        (["--train.batch-size=zero"], "zero"),
        (["--train.batch-size=0"], "at least 1, got 0"),
        (["--train.learning-rate=-1"], "learning-rate"),
        (["--train.learning-rate", "-1"], "learning-rate must be above 0"),
        (["--seed=1", "--seed=2"], "twice"),
        (["--model.num-steps=0"], "num-steps must be at least 1, got 0"),
        (["--model.beta-stop=1.5"], "nearest valid value is 1"),
        (["--model.sampler.steps=51"], "10"),
        (["--eval.metric=hr@21"], "hr@20"),
        (["train"], "expected a flag"),
        (["--train.rules=items:0"], "--train.rules takes no 'items:0'"),
        (["--seed"], "needs a value"),
    ],
)
def test_bad_flags_are_one_sentence(flags, said):
    with pytest.raises(ValueError, match=said) as caught:
        config.parse(preset(), flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, dataset", [("ddrm", "ml-1m-noisy"), ("diqdiff", "amazon-beauty"), ("diffrec", "yelp")]
)
def test_released_loaders_keep_the_last_batch(name, dataset):
    assert preset(name, dataset).train.epoch_sampler == "whole"


def test_guidance_must_be_finite():
    with pytest.raises(ValueError, match="finite"):
        config.parse(preset("dreamrec"), ["--model.guidance-weight=nan"])


def test_unknown_models_are_corrected():
    with pytest.raises(ValueError, match="did you mean dimerec"):
        config.preset("dimrec", "synthetic")


def test_differences_are_named_and_run_control_is_free():
    one = config.to_json(preset())
    other = config.to_json(config.parse(preset(), ["--train.num-epochs=3", "--parallel=pmap"]))
    assert config.difference(one, other) is None
    other = config.to_json(config.parse(preset(), ["--train.batch-size=3"]))
    assert config.difference(one, other) == "train.batch_size: 256 there, 3 here"


def test_published_settings_are_found_by_the_data_sets_name():
    assert config.preset("dreamrec", "zhihu").experiment.model.guidance_weight == 4.0
    assert config.preset("dreamrec", "ks").experiment.model.num_steps == 2000
    assert "published" in config.preset("dreamrec", "zhihu").origin
    assert "default" in config.preset("dreamrec", "other").origin


def test_rules_survive_json():
    import dataclasses

    whole = preset()
    train = dataclasses.replace(whole.train, rules=(Rule(pattern="items", learning_rate=0.0),))
    whole = dataclasses.replace(whole, train=train)
    assert config.from_json(whole, config.to_json(whole)) == whole


def test_the_commit_is_looked_up():
    assert provenance._commit()
