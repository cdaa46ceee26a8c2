"""LightGCN (arXiv:2002.02126), and what L-DiffRec, LT-DiffRec and DDRM start from.

bin/train --model=lightgcn --data=PATH/ml-1m-noisy
bin/train --model=lightgcn --model.contrast-weight=0.1      with SGL's term (arXiv:2010.10783)
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Range
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.lightgcn import LightGCNConfig
from jaxrec_diff.training.config import TrainConfig

# On the embedded data two steps do.
_DEFAULT = Experiment(
    model=LightGCNConfig(layers=2),
    train=TrainConfig(batch_size=2048, learning_rate=5e-3, num_epochs=40, patience=5),
    eval=EvalConfig(metric="recall@20", ks=(10, 20, 50, 100)),
)
_PAPER = replace(
    _DEFAULT,
    model=LightGCNConfig(),
    train=TrainConfig(batch_size=2048, learning_rate=1e-3, eval_every=5, patience=10),
)
# Larger batches at a larger rate: the graph is walked once a batch, whatever its size. Ranking goes
# a step deeper than training: on validation it is better, and training the deeper one is slower.
_ML_1M = replace(
    _DEFAULT,
    model=LightGCNConfig(rank_layers=4),
    train=TrainConfig(
        batch_size=8192, learning_rate=1e-2, num_epochs=200, eval_every=4, patience=6
    ),
)

PRESET = Preset(
    default=_DEFAULT,  # what does well on `synthetic`
    published={
        "gowalla": _PAPER,
        "yelp2018": _PAPER,
        "amazon-book": _PAPER,
    },
    ours={"ml-1m-clean": _ML_1M, "ml-1m-noisy": _ML_1M},
    # Ours.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.layers": Range(1, 4),
        "model.l2": Range(1e-6, 1e-2, log=True),
    },
    facts=Facts(
        (
            *figures(
                ("recall@20", "ndcg@20"),
                {
                    "gowalla": (0.1830, 0.1554),
                    "yelp2018": (0.0649, 0.0530),
                    "amazon-book": (0.0411, 0.0315),
                },
            ),
            *figures(
                ("recall@20", "ndcg@20"),
                {"ml-1m-noisy": (0.1267, 0.0707)},
                by="the released embeddings behind DDRM, at their best depth",
            ),
        ),
        choose="As a backbone, and as the graph model beside DiffRec and DDRM.",
    ),
)
