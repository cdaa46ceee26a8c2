"""DiffRec (arXiv:2304.04971), settings of the released runs where the data set is known.

    bin/train --model=diffrec --data=PATH/ml-1m-clean

As in the released loop the last, smaller batch of an epoch counts.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Fast, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.diffrec import DiffRecConfig
from jaxrec_diff.training.config import TrainConfig

# Evaluated every 5 epochs; 20 epochs without a better one are, in the released loop, 3 evaluations.
_RELEASED = Experiment(
    model=DiffRecConfig(),
    train=TrainConfig(
        optimizer="adamw",
        epoch_sampler="whole",
        batch_size=400,
        learning_rate=1e-5,
        eval_every=5,
        patience=3,
    ),
    eval=EvalConfig(metric="recall@20", ks=(10, 20, 50, 100)),
    seed=1,
)


def _released(
    learning_rate: float,
    steps: int,
    scale: float,
    low: float,
    high: float,
    dims: tuple[int, ...] = (1000,),
) -> Experiment:
    process = ProcessConfig(num_steps=steps, noise_scale=scale, noise_min=low, noise_max=high)
    return replace(
        _RELEASED,
        model=DiffRecConfig(dims=dims, process=process),
        train=replace(_RELEASED.train, learning_rate=learning_rate),
    )


_DEFAULT = replace(
    _released(1e-3, 5, 1e-2, 1e-3, 1e-2, (200, 600)),
    train=replace(_RELEASED.train, learning_rate=1e-3, num_epochs=60),
    seed=0,
)

PRESET = Preset(
    default=_DEFAULT,  # smaller, not tuned
    published={
        "amazon-book-clean": _released(5e-5, 5, 1e-4, 5e-4, 5e-3),
        "yelp-clean": _released(1e-5, 5, 1e-2, 1e-3, 1e-2),
        "ml-1m-clean": _released(1e-3, 40, 5e-3, 5e-3, 1e-2, (200, 600)),
        "amazon-book-noisy": _released(5e-5, 10, 5e-3, 1e-4, 5e-4),
        "yelp-noisy": _released(1e-5, 5, 1e-3, 5e-4, 1e-2),
        "ml-1m-noisy": _released(1e-3, 5, 0.5, 1e-3, 1e-2, (200, 600)),
    },
    fast={
        "ml-1m-clean": Fast(
            model={"sampler.kind": "ddpm", "sampler.steps": 5},
            measured="fast-diffrec-ml-1m-clean.json",
        )
    },
    # The paper's ranges; noise-steps, at most the steps there are, stays.
    search={
        "train.learning-rate": Range(1e-5, 1e-2, log=True),
        "model.dims": Choice(((300,), (200, 600), (1000,))),
        "model.process.num-steps": Choice((2, 5, 10, 40, 50, 100)),
        "model.process.noise-scale": Range(1e-5, 1e-1, log=True),
        "model.process.noise-min": Choice((5e-4, 1e-3, 5e-3)),
        "model.process.noise-max": Choice((5e-3, 1e-2)),
    },
    facts=Facts(
        figures(
            ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
            {
                "ml-1m-clean": (0.1058, 0.1787, 0.0901, 0.1148),
                "yelp-clean": (0.0581, 0.0960, 0.0363, 0.0478),
                "amazon-book-clean": (0.0695, 0.1010, 0.0451, 0.0547),
                "ml-1m-noisy": (0.0658, 0.1236, 0.0488, 0.0703),
                "yelp-noisy": (0.0507, 0.0853, 0.0309, 0.0414),
                "amazon-book-noisy": (0.0546, 0.0822, 0.0335, 0.0419),
            },
        ),
        differs=("The reverse path runs through the first hidden layer: the same function.",),
        limits=(
            "Published noise is so small (a variance of 1e-5 to 1e-2) that the network is a "
            "denoising autoencoder; more noise ranks worse.",
            "EASE, in a second and without training, is as good on ML-1M.",
        ),
        choose="Implicit feedback without an order, where an autoencoder fits; beside `ease` and "
        "`multvae`.",
    ),
)
