"""Flow: the next item by flow matching, in few steps, behind SASRec's encoder.

    bin/train --model=flow --data=amazon-beauty/interactions.parquet
    bin/evaluate --workdir=DIR --sampler=heun --sampler-steps=4

A system of this library, of known parts: FMRec's path (arXiv:2505.16298) and a network that sees
x_t at full strength. Without noise it is SASRec, whose settings for Beauty it takes.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Fast, Preset
from jaxrec_diff.config.facts import Facts
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.flow import FlowConfig
from jaxrec_diff.training.config import TrainConfig

_BEAUTY = Experiment(
    model=FlowConfig(dropout_rate=0.3),
    data=DataConfig(max_len=50),
    train=TrainConfig(batch_size=128, learning_rate=1e-3, num_epochs=200, patience=4),
    eval=EvalConfig(metric="ndcg@10", ks=(5, 10, 20)),
)
_DEFAULT = replace(
    _BEAUTY,
    model=FlowConfig(),
    data=DataConfig(max_len=20),
    train=replace(_BEAUTY.train, batch_size=256, num_epochs=60, patience=5),
    eval=EvalConfig(metric="hr@20"),
)

PRESET = Preset(
    default=_DEFAULT,  # smaller, not tuned
    ours={"amazon-beauty": _BEAUTY},
    fast={
        "amazon-beauty": Fast(
            model={"sampler.kind": "one_step", "sampler.steps": 0},
            measured="fast-flow-amazon-beauty.json",
        )
    },
    # Ours.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.width": Choice((32, 64, 128)),
        "model.dropout-rate": Range(0.0, 0.7),
        "model.mse-weight": Choice((0.0, 0.1, 0.3, 1.0)),
        "model.path.time-mean": Range(2.0, 6.0),
        "model.consistency": Choice((0.0, 0.3, 1.0)),
    },
    facts=Facts(
        differs=(
            "A system of this library: the paper's path, laws of times and samplers around another "
            "network. There is no published figure to compare with.",
        ),
        limits=(
            "An inner product ranks by the mean of what a flow draws, and one call at t = 1 is "
            "that mean if the network is perfect: on Beauty and ML-100K one call ranks better "
            "than four steps or sixty.",
            "Beside SASRec of the same size (one seed) it gains nothing by its chain: lists of one "
            "call without x_t are as good, though the true x_0, shown, is told from noise.",
            "By the paper's law `mode` most noised rows tell their item by themselves, and the "
            "encoder learns next to nothing; times here are drawn near noise.",
        ),
        choose="To study few-step generation behind a strong encoder; SASRec itself costs less.",
    ),
)
