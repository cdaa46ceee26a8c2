"""Matrix factorisation by BPR (arXiv:1205.2618).

`bin/train --model=mf --data=PATH/ml-1m-noisy`
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.mf import MFConfig
from jaxrec_diff.training.config import TrainConfig

_DEFAULT = Experiment(
    model=MFConfig(),
    train=TrainConfig(batch_size=2048, learning_rate=5e-3, num_epochs=40, patience=5),
    eval=EvalConfig(metric="recall@20", ks=(10, 20, 50, 100)),
)
_ML_1M = replace(
    _DEFAULT,
    train=TrainConfig(
        batch_size=2048, learning_rate=1e-3, num_epochs=200, eval_every=2, patience=10
    ),
)

PRESET = Preset(
    default=_DEFAULT,  # what does well on `synthetic`
    ours={"ml-1m-clean": _ML_1M, "ml-1m-noisy": _ML_1M},
    # Ours.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.width": Choice((32, 64, 128)),
        "model.l2": Range(1e-6, 1e-2, log=True),
    },
    facts=Facts(
        figures(
            ("recall@20", "ndcg@20"),
            {"ml-1m-noisy": (0.0918, 0.0607)},
            by="the released embeddings behind DDRM",
        ),
        choose="As the plainest backbone and the plainest opponent of a graph.",
    ),
)
