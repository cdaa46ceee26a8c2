"""GiffCF (arXiv:2311.08744), a blur of rows along the item graph; released settings where known.

    bin/train --model=giffcf --data=PATH/ml-1m-clean

Published test Recall@20 divides by min(20, answers): ml-1m-clean .1947, and .2024 of a later
training; as shares of all answers, as everywhere here, these are .1901 and .1977. Results show
beside the model what one call, no state and the graph alone rank.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.space import Choice
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.giffcf import GiffCFConfig
from jaxrec_diff.training.config import TrainConfig

# Evaluated every 10 epochs; ML-1M stops after 200 epochs without a better one.
_RELEASED = Experiment(
    model=GiffCFConfig(),
    train=TrainConfig(
        epoch_sampler="whole", batch_size=100, learning_rate=1e-3, eval_every=10, patience=20
    ),
    eval=EvalConfig(metric="recall@20", ks=(10, 20, 50, 100)),
)

PRESET = Preset(
    # smaller, not tuned
    default=replace(
        _RELEASED,
        model=GiffCFConfig(width=64),
        train=replace(_RELEASED.train, num_epochs=60, eval_every=2),
    ),
    published={
        "ml-1m-clean": _RELEASED,
        "yelp-clean": replace(
            _RELEASED,
            model=GiffCFConfig(ideal_weight=0.2),
            train=replace(_RELEASED.train, eval_every=5, patience=10),
            seed=98765,
        ),
        "amazon-book-clean": replace(
            _RELEASED,
            model=GiffCFConfig(noise_decay=1.0),
            train=replace(_RELEASED.train, patience=5),
            seed=98765,
        ),
    },
    # Ours; a single step stands among the numbers of steps because the diffusion may do nothing.
    search={
        "train.learning-rate": Choice((3e-4, 1e-3, 3e-3)),
        "model.width": Choice((100, 200, 400)),
        "model.dropout-rate": Choice((0.3, 0.5, 0.7)),
        "model.num-steps": Choice((1, 2, 3, 5)),
        "model.alpha": Choice((0.5, 1.0, 1.5, 2.0)),
        "model.noise-decay": Choice((0.0, 0.5, 1.0)),
        "model.ideal-weight": Choice((0.0, 0.1, 0.2, 0.5)),
    },
)
