"""SASRec (arXiv:1808.09781) against the whole catalogue: the yardstick of the sequence models.

    bin/train --model=sasrec --data=amazon-beauty/interactions.parquet --eval.protocol=official

`--model.loss=bce` is the released loss, of which figures for SASRec beside diffusion models are.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.training.config import TrainConfig

_BEAUTY = Experiment(
    model=SASRecConfig(dropout_rate=0.3),
    data=DataConfig(max_len=50),
    train=TrainConfig(batch_size=128, learning_rate=1e-3, num_epochs=200, patience=4),
    eval=EvalConfig(metric="ndcg@10", ks=(5, 10, 20)),
)

_DEFAULT = replace(
    _BEAUTY,
    model=SASRecConfig(dropout_rate=0.2),
    data=DataConfig(max_len=20),
    train=replace(_BEAUTY.train, batch_size=256, num_epochs=60, patience=5),
    eval=EvalConfig(metric="hr@20"),
)

PRESET = Preset(
    default=_DEFAULT,  # smaller, not tuned
    ours={
        "amazon-beauty": _BEAUTY,
        "ml-1m": replace(
            _BEAUTY,
            model=SASRecConfig(dropout_rate=0.2),
            data=DataConfig(max_len=200),
        ),
    },
    # Ours.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.width": Choice((32, 64, 128)),
        "model.num-blocks": Range(1, 3),
        "model.dropout-rate": Range(0.0, 0.7),
    },
    facts=Facts(
        figures(
            ("hr@10", "ndcg@10"),
            {"amazon-beauty": (0.062648, 0.032305), "ml-1m": (0.168941, 0.077277)},
            by="the DiffuRec paper",
            otherwise="of the binary loss",
        ),
        differs=(
            "The loss is a softmax over the catalogue; `--model.loss=bce` is the released one.",
        ),
        choose="First of all for sequences: what does not beat it, on the same data and history "
        "length, need not be trained.",
    ),
)
