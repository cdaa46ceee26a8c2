"""BERT4Rec (arXiv:1904.06690) in the form in which the DiffuASR code trains it.

`bin/train --model=bert4rec --data=PATH/amazon-beauty`
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.bert4rec import Bert4RecConfig
from jaxrec_diff.training.config import TrainConfig

_DEFAULT = Experiment(
    model=Bert4RecConfig(dropout_rate=0.2),
    data=DataConfig(max_len=30),
    # Small batches: a user is one example, so that a thousand of them make few updates an epoch.
    train=TrainConfig(batch_size=64, learning_rate=1e-3, num_epochs=200, eval_every=5, patience=5),
    eval=EvalConfig(metric="ndcg@10"),
)
_RELEASED = replace(
    _DEFAULT,
    model=Bert4RecConfig(),
    data=DataConfig(max_len=200),
    train=TrainConfig(batch_size=512, learning_rate=1e-3, num_epochs=200, patience=20),
)

PRESET = Preset(
    default=_DEFAULT,  # smaller, not tuned
    published={"amazon-beauty": _RELEASED, "ml-1m": _RELEASED},
    # A softmax over all items, as the paper has it and as it is tuned beside SASRec elsewhere.
    ours={
        name: replace(
            _DEFAULT,
            model=Bert4RecConfig(dropout_rate=0.3, loss="full"),
            data=DataConfig(max_len=length),
            train=replace(_DEFAULT.train, batch_size=128, eval_every=2, patience=10),
        )
        for name, length in (("amazon-beauty-full", 50), ("ml-1m-full", 200))
    },
    # Ours.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.width": Choice((32, 64, 128)),
        "model.num-blocks": Range(1, 3),
        "model.dropout-rate": Range(0.0, 0.7),
        "model.mask-prob": Range(0.1, 0.6),
    },
    facts=Facts(
        figures(
            ("hr@10", "ndcg@10"),
            {"amazon-beauty": (0.4302, 0.2581)},
            by="the DiffuASR paper",
            otherwise="another cut of Beauty, ranks among 101",
        ),
        differs=(
            "In the form of DiffuASR's code: a binary loss with one negative a place. "
            "`--model.loss=full` is the paper's softmax, of the presets that end in -full.",
        ),
        choose="As the recommender behind `diffuasr`; alone `sasrec` ranks better.",
    ),
)
