"""L-DiffRec (arXiv:2304.04971) on clusters of LightGCN's items, which is trained first.

    bin/train --model=ldiffrec --data=PATH/ml-1m-clean
    bin/train --model=ldiffrec --data=PATH/ml-1m-clean --backbone=items.npz

Published test Recall@20 / NDCG@20: ml-1m-clean .1809 / .1122, yelp-clean .0970 / .0469,
amazon-book-clean .1028 / .0540, ml-1m-noisy .1272 / .0710, yelp-noisy .0876 / .0419,
amazon-book-noisy .0876 / .0434. Here: ml-1m-clean .1738 / .1094 (mean of 3 seeds), ml-1m-noisy
.1250 / .0691. The released loop stops 20 epochs after the best one, which is too early for this
model; here it is 100.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.ldiffrec import LDiffRecConfig
from jaxrec_diff.training.config import Rule, TrainConfig

_RELEASED = Experiment(
    model=LDiffRecConfig(),
    train=TrainConfig(
        optimizer="adamw",
        epoch_sampler="whole",
        batch_size=400,
        learning_rate=5e-4,
        eval_every=5,
        patience=20,
    ),
    eval=EvalConfig(metric="recall@20", ks=(10, 20, 50, 100)),
    seed=1,
)


def _released(
    rate: float,
    denoiser_rate: float,
    diffusion_weight: float,
    steps: int,
    scale: float,
    low: float,
    high: float,
) -> Experiment:
    process = ProcessConfig(
        num_steps=steps, noise_scale=scale, noise_min=low, noise_max=high, fix_first=False
    )
    rules = (Rule(pattern="denoiser", learning_rate=denoiser_rate / rate),)
    return replace(
        _RELEASED,
        model=LDiffRecConfig(process=process, diffusion_weight=diffusion_weight),
        train=replace(_RELEASED.train, learning_rate=rate, rules=rules),
    )


_DEFAULT = replace(_released(1e-3, 5e-4, 0.03, 5, 0.01, 5e-3, 1e-2), seed=0)

PRESET = Preset(
    backbone="lightgcn",
    default=_DEFAULT,  # smaller, not tuned
    published={
        "amazon-book-clean": _released(5e-4, 1e-4, 0.05, 5, 0.5, 1e-3, 5e-3),
        "yelp-clean": _released(5e-4, 1e-4, 0.03, 5, 0.01, 5e-3, 1e-2),
        "ml-1m-clean": _released(1e-3, 5e-4, 0.03, 40, 5e-3, 5e-3, 2e-2),
        "amazon-book-noisy": _released(5e-4, 1e-4, 0.07, 5, 0.5, 1e-3, 5e-3),
        "yelp-noisy": _released(5e-4, 1e-4, 0.03, 5, 0.01, 5e-3, 1e-2),
        "ml-1m-noisy": _released(1e-3, 5e-4, 0.03, 100, 5e-3, 5e-3, 2e-2),
    },
    # The paper's ranges; that of the diffusion's weight is ours.
    search={
        "train.learning-rate": Range(1e-5, 1e-2, log=True),
        "model.clusters": Range(1, 5),
        "model.process.num-steps": Choice((2, 5, 10, 40, 50, 100)),
        "model.process.noise-scale": Range(1e-5, 1e-1, log=True),
        "model.diffusion-weight": Range(0.01, 0.1, log=True),
    },
)
