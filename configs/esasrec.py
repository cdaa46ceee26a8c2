"""eSASRec (arXiv:2508.06450): SASRec's task with gated blocks and a sampled softmax.

    bin/train --model=esasrec --data=PATH/ml-1m

Published figures rank all items but those of the history. SASRec with the same loss has HR@10 /
NDCG@10 .2929 / .1684 there on ML-1M, .0921 / .0531 on Beauty.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.training.config import TrainConfig


def _released(width: int, blocks: int, multiplier: int, dropout: float, length: int, epochs: int):
    return Experiment(
        model=SASRecConfig(
            width=width, num_blocks=blocks, dropout_rate=dropout, block="ligr",
            ff_multiplier=multiplier, scale_items=False, positions="inverse", windows="last",
            loss="sampled", share="sequence", num_negatives=256,
        ),
        data=DataConfig(max_len=length),
        train=TrainConfig(batch_size=128, learning_rate=1e-3, num_epochs=epochs, patience=50),
        eval=EvalConfig(metric="recall@10", ks=(5, 10, 20)),
    )  # fmt: skip


_SMALL = _released(64, 1, 4, 0.2, 20, 60)

# Every window of a history: at length 20 the last alone leaves out most of what a long one holds,
# and few users then make too few updates an epoch. Not tuned.
_DEFAULT = replace(
    _SMALL,
    model=replace(_SMALL.model, windows="all"),
    train=replace(_SMALL.train, batch_size=256, patience=5),
)

PRESET = Preset(
    default=_DEFAULT,
    # But for negatives, which a sequence shares, and Adam's usual betas.
    published={
        "ml-1m": _released(64, 2, 4, 0.1, 200, 100),
        "amazon-beauty": _released(256, 1, 4, 0.2, 50, 200),
        "sports": _released(256, 1, 2, 0.2, 50, 200),
        "toys": _released(256, 1, 1, 0.2, 50, 200),
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
            {
                "ml-1m": (0.3133, 0.1772),
                "amazon-beauty": (0.0928, 0.0523),
                "toys": (0.0939, 0.0538),
                "sports": (0.0560, 0.0323),
            },
            protocol="honest",
        ),
        differs=(
            "The 256 negatives are shared by a sequence; `--model.share=position` draws them for "
            "every place, as released. A negative that is the target does not compete.",
            "Adam's betas are the usual ones, not .9 and .98.",
        ),
        limits=("On small data gated blocks gain nothing over SASRec's.",),
        choose="On MovieLens and larger data, where a full softmax costs too much.",
    ),
)
