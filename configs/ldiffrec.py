"""L-DiffRec (arXiv:2304.04971) on clusters of LightGCN's items, which is trained first.

    bin/train --model=ldiffrec --data=PATH/ml-1m-clean
    bin/train --model=ldiffrec --data=PATH/ml-1m-clean --backbone=items.npz

The released loop stops 20 epochs after the best one, which is too early for this model; here it is
100.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
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
    facts=Facts(
        figures(
            ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
            {
                "ml-1m-clean": (0.1060, 0.1809, 0.0868, 0.1122),
                "yelp-clean": (0.0585, 0.0970, 0.0353, 0.0469),
                "amazon-book-clean": (0.0694, 0.1028, 0.0440, 0.0540),
                "ml-1m-noisy": (0.0665, 0.1272, 0.0493, 0.0710),
                "yelp-noisy": (0.0521, 0.0876, 0.0311, 0.0419),
                "amazon-book-noisy": (0.0586, 0.0876, 0.0347, 0.0434),
            },
        ),
        differs=(
            "It waits 100 epochs for a better one; the released loop waits 20, which is too few.",
            "Items are clustered by our own LightGCN.",
        ),
        choose="Instead of `diffrec` where the catalogue is too large for rows of its width.",
    ),
)
