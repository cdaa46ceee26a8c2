"""BayesRec, of no paper: SASRec as the denoiser of a diffusion whose x_t it cannot ignore.

bin/train --model=bayesrec --data=PATH
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.bayesrec import BayesRecConfig
from jaxrec_diff.training.config import TrainConfig

_DEFAULT = Experiment(
    model=BayesRecConfig(),
    data=DataConfig(max_len=20),
    train=TrainConfig(batch_size=256, learning_rate=1e-3, num_epochs=60, patience=5),
    eval=EvalConfig(metric="hr@20"),
)

_BEAUTY = replace(
    _DEFAULT,
    model=replace(_DEFAULT.model, dropout_rate=0.3),
    data=DataConfig(max_len=50),
    train=replace(_DEFAULT.train, batch_size=128, num_epochs=200, patience=4),
    eval=EvalConfig(metric="ndcg@10", ks=(5, 10, 20)),
)

PRESET = Preset(
    default=_DEFAULT,  # SASRec's settings, not tuned
    ours={"amazon-beauty": _BEAUTY},
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.width": Choice((32, 64, 128)),
        "model.num-blocks": Range(1, 3),
        "model.dropout-rate": Range(0.0, 0.7),
        "model.noise-share": Range(0.0, 1.0),
    },
    facts=Facts(
        limits=(
            "Its chain draws from the softmax that one call says, so lists are made by one call.",
            "The loss is a softmax over the whole catalogue; it does not draw negatives.",
        ),
        choose="To see what x_t can add to a SASRec, and as a chain whose every step is known.",
    ),
)
