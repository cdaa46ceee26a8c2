"""Mult-VAE (arXiv:1802.05814), a network without a diffusion to stand beside DiffRec.

`bin/train --model=multvae --data=PATH/ml-1m-clean`
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.multvae import MultVAEConfig
from jaxrec_diff.training.config import TrainConfig

_DEFAULT = Experiment(
    model=MultVAEConfig(hidden=200, width=64, anneal_steps=1000),
    train=TrainConfig(
        epoch_sampler="whole", batch_size=500, learning_rate=1e-3, num_epochs=60, patience=10
    ),
    eval=EvalConfig(metric="recall@20", ks=(10, 20, 50, 100)),
)
# The paper's network; the weight of the divergence grows over 60 epochs of 12 updates.
_ML_1M = replace(
    _DEFAULT,
    model=MultVAEConfig(anneal_steps=720),
    train=replace(_DEFAULT.train, num_epochs=200, eval_every=2),
)

PRESET = Preset(
    default=_DEFAULT,  # smaller, not tuned
    ours={"ml-1m-clean": _ML_1M, "ml-1m-noisy": _ML_1M},
    # Ours, around the paper's.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.kl-weight": Range(0.1, 1.0),
        "model.width": Choice((64, 100, 200)),
        "model.dropout-rate": Choice((0.3, 0.5, 0.7)),
    },
    facts=Facts(
        figures(
            ("recall@20", "ndcg@20"),
            {"ml-1m-clean": (0.1658, 0.1057)},
            by="another implementation",
            otherwise="stopped after 40 epochs and still rising",
        ),
        differs=("Rows are scaled to length 1 before dropout.",),
        choose="Beside DiffRec and L-DiffRec: the same input and output without a diffusion.",
    ),
)
