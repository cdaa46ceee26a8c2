"""Dotted flags and typed settings: what reaches which field, and what is refused in a sentence."""

import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.training.config import Rule


def preset(name="dimerec", dataset="synthetic"):
    return config.preset(name, dataset).experiment


def test_flags_reach_their_fields():
    flags = ["--train.batch-size=64", "--train.learning_rate", "3e-4", "--eval.ks=1,7,20"]
    got = config.parse(preset(), [*flags, "--model.hoist=false", "--model.sampler.kind=ddim"])
    assert (got.train.batch_size, got.train.learning_rate, got.eval.ks) == (64, 3e-4, (1, 7, 20))
    unguided = config.parse(preset("diffuasr"), ["--model.guidance=none"])
    assert unguided.model.guidance == "none"
    assert not got.model.hoist and got.model.sampler.kind == "ddim"
    assert got.model.width == preset().model.width


@pytest.mark.parametrize(
    ("flag", "field", "value"),
    [
        ("--data.ratio=0.5, 0.25,0.25", "ratio", (0.5, 0.25, 0.25)),
        ("--data.buckets=", "buckets", ()),
        ("--data.buckets=10 20", "buckets", (10, 20)),
        ("--data.min-rating=null", "min_rating", None),
        ("--data.min-rating=3", "min_rating", 3.0),
        ("--data.user=None", "user", None),
        ("--data.user=who", "user", "who"),
        ("--data.dedup=none", "dedup", "none"),
        ("--data.dedup-adjacent=TRUE", "dedup_adjacent", True),
    ],
)
def test_values_are_of_their_fields_types(flag, field, value):
    got = getattr(config.parse(preset(), [flag]).data, field)
    assert got == value and type(got) is type(value)


def test_an_earlier_phase_has_flags_of_its_own():
    got = config.parse(
        preset("ddrm"), ["--backbone.train.num-epochs=3", "--backbone.model.layers=1"]
    )
    assert (got.backbone.train.num_epochs, got.backbone.model.layers) == (3, 1)
    assert got.train.num_epochs != 3
    with pytest.raises(ValueError, match="unknown flag --backbone.preset"):
        config.parse(preset("ddrm"), ["--backbone.preset=mf"])
    assert config.parse(preset("ddrm"), ["--embeddings=x.npz"]).backbone is None


def test_fields_that_only_go_together_are_changed_together():
    apart = ["--train.weight-decay=0.1"]
    with pytest.raises(ValueError, match="needs --train.optimizer=adamw"):
        config.parse(preset(), apart)
    for flags in (["--train.optimizer=adamw", *apart], [*apart, "--train.optimizer=adamw"]):
        assert config.parse(preset(), flags).train.weight_decay == 0.1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--train.batchsize=3"], "did you mean --train.batch-size"),
        (["--qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq.patience=3"], "did you mean --train.patience"),
        (["--train=3"], "unknown flag --train;"),
        (
            ["--train.batch-size=zero"],
            "^--train.batch-size cannot be 'zero'; it is a whole number$",
        ),
        (["--train.batch-size=1.5"], "cannot be '1.5'; it is a whole number$"),
        (["--train.batch-size="], "cannot be ''; it is a whole number$"),
        (["--train.learning-rate=abc"], "cannot be 'abc'; it is a number$"),
        (
            ["--train.optimizer=adm"],
            "cannot be 'adm'; it is one of adam, adamw, sgd, lazy_adam, row_adagrad, adam_l2$",
        ),
        (["--data.ratio=0.5,0.5"], "cannot be '0.5,0.5'; it is 3 numbers$"),
        (["--data.buckets=4,8,x"], "cannot be '4,8,x'; it is whole numbers$"),
        (
            ["--eval.controls=ease,eas"],
            "it is values, each one of item_knn, .*, ease, edlae, ials$",
        ),
        (["--eval.mask-seen=maybe"], "cannot be 'maybe'; it is true, false or none$"),
        (["--data.min-rating=high"], "cannot be 'high'; it is a number or none$"),
        (["--model.hoist=1"], "cannot be '1'; it is true or false$"),
        (["--train.batch-size=0"], "at least 1, got 0"),
        (["--train.learning-rate=-1"], "learning-rate"),
        (["--train.learning-rate", "-1"], "learning-rate must be above 0"),
        (["--seed=1", "--seed=2"], "twice"),
        (["--model.num-steps=0"], "num-steps must be at least 1, got 0"),
        (["--model.beta-stop=1.5"], "nearest valid value is 1"),
        (["--model.sampler.steps=51"], "10"),
        (["--eval.metric=hr@21"], "hr@20"),
        (["--lr=1"], "unknown flag --lr; did you mean --train.learning-rate[?]$"),
        (["--epochs=1"], "unknown flag --epochs; did you mean --train.num-epochs[?]$"),
        (["--qqqqqq=1"], "; bin/train --model=NAME --help lists all [0-9]+$"),
        (["--model.num-codes=1"], "--model.num-codes; it is of diqdiff, not of this model$"),
        (["train"], "expected a flag"),
        (["--train.rules=items:0"], "--train.rules takes no 'items:0'"),
        (["--seed"], "needs a value"),
    ],
)
def test_bad_flags_are_one_sentence(flags, said):
    with pytest.raises(ValueError, match=said) as caught:
        config.parse(preset(), flags)
    assert "\n" not in str(caught.value)


def test_guidance_must_be_finite():
    with pytest.raises(ValueError, match="finite"):
        config.parse(preset("dreamrec"), ["--model.guidance-weight=nan"])


def test_typed_settings_reach_their_fields():
    rule = Rule(pattern="items", learning_rate=0.0)
    settings = {
        "train.num_epochs": np.int64(5),
        "train.learning-rate": 1,
        "eval.ks": [5, 10],
        "eval.metric": "hr@10",
        "data.min_rating": None,
        "model.hoist": False,
        "train.rules": [rule],
    }
    got = config.configure(preset(), settings)
    assert (got.train.num_epochs, got.train.learning_rate) == (5, 1.0)
    assert type(got.train.num_epochs) is int and type(got.train.learning_rate) is float
    assert got.eval.ks == (5, 10) and not got.model.hoist and got.train.rules == (rule,)
    assert config.from_json(preset(), config.to_json(got)) == got


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"train.num_epoch": 5}, "^unknown setting train.num_epoch; did you mean train.num_epochs"),
        ({"eval.metric": np.float64(5.0)}, "^eval.metric cannot be 5.0; it is a text$"),
        ({"train.num_epochs": np.str_("hello")}, "^train.num_epochs cannot be 'hello'; it is"),
        ({"train.num_epochs": "5"}, "^train.num_epochs cannot be '5'; it is a whole number$"),
        ({"train.num_epochs": 5.0}, "cannot be 5.0; it is a whole number$"),
        ({"train.num_epochs": True}, "cannot be True; it is a whole number$"),
        ({"train.learning_rate": "1e-3"}, "cannot be '1e-3'; it is a number$"),
        ({"model.hoist": 1}, "cannot be 1; it is true or false$"),
        (
            {"train.optimizer": "adm"},
            "it is one of adam, adamw, sgd, lazy_adam, row_adagrad, adam_l2$",
        ),
        ({"eval.ks": 5}, "cannot be 5; it is whole numbers$"),
        ({"eval.ks": (5, "10")}, "it is whole numbers$"),
        ({"data.ratio": (0.5, 0.5)}, "it is 3 numbers$"),
        ({"data.item": 3}, "it is a text or none$"),
        ({"train.rules": ("items",)}, "it is values, each a Rule$"),
        ({"train.batch_size": 0}, "must be at least 1, got 0"),
        ({"train.batch_size": 8, "train.batch-size": 9}, "is given twice"),
    ],
)
def test_settings_of_another_type_are_one_sentence(settings, said):
    with pytest.raises(ValueError, match=said) as caught:
        config.configure(preset(), settings)
    assert "\n" not in str(caught.value)
