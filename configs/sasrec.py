"""SASRec (arXiv:1808.09781) against the whole catalogue: the yardstick of the sequence models.

    bin/train --model=sasrec --data=amazon-beauty/interactions.parquet --eval.protocol=official

`--model.loss=bce` is the released loss, of which figures for SASRec beside diffusion models are.

The best implementations' settings (arXiv:2507.16289, the best of a grid of 108) are near
`amazon-beauty-strong` and `ml-1m-full`; `amazon-beauty` and `ml-1m` are 64 wide. Below 95 % of
their figures a yardstick has not converged.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.training.config import TrainConfig

_BEAUTY = Experiment(
    model=SASRecConfig(dropout_rate=0.3),
    data=DataConfig(max_len=50),
    train=TrainConfig(batch_size=128, learning_rate=1e-3, num_epochs=200, patience=4),
    eval=EvalConfig(metric="ndcg@10", ks=(5, 10, 20)),
)


def _wider(width: int, blocks: int, dropout: float) -> Experiment:
    model = SASRecConfig(width=width, num_blocks=blocks, dropout_rate=dropout)
    return replace(_BEAUTY, model=model)


# Long histories, the newest window of a user alone and patience: 95 % of what a wider network of
# three blocks reaches (an accelerator's work, `ml-1m-full`).
_ML_1M = replace(
    _BEAUTY,
    model=SASRecConfig(dropout_rate=0.1, windows="last"),
    data=DataConfig(max_len=200),
    train=replace(_BEAUTY.train, patience=10),
)

_DEFAULT = replace(
    _BEAUTY,
    model=SASRecConfig(dropout_rate=0.2),
    data=DataConfig(max_len=20),
    train=replace(_BEAUTY.train, batch_size=256, num_epochs=60, patience=5),
    eval=EvalConfig(metric="hr@20"),
)

PRESET = Preset(
    default=_DEFAULT,  # smaller, not tuned
    ours={
        "amazon-beauty": _BEAUTY,
        "amazon-beauty-strong": _wider(128, 3, 0.5),
        "toys": _BEAUTY,
        "sports": replace(_BEAUTY, model=SASRecConfig(dropout_rate=0.5)),
        "ml-1m": _ML_1M,
        "ml-1m-full": replace(
            _ML_1M, model=replace(_ML_1M.model, width=256, num_blocks=3, dropout_rate=0.3)
        ),
    },
    # Ours.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.width": Choice((32, 64, 128)),
        "model.num-blocks": Range(1, 3),
        "model.dropout-rate": Range(0.0, 0.7),
    },
    facts=Facts(
        (
            *figures(
                ("hr@10", "ndcg@10"),
                {
                    "amazon-beauty": (0.0974, 0.0588),
                    "ml-1m": (0.3207, 0.1858),
                    "sports": (0.0563, 0.0329),
                },
                by="the best of a grid elsewhere, on its own 5-core, arXiv:2507.16289",
                protocol="honest",
            ),
            *figures(
                ("hr@10", "ndcg@10"),
                {"amazon-beauty": (0.062648, 0.032305), "ml-1m": (0.168941, 0.077277)},
                by="the DiffuRec paper",
                otherwise="of the binary loss",
            ),
        ),
        differs=(
            "The loss is a softmax over the catalogue; `--model.loss=bce` is the released one.",
        ),
        choose="First of all for sequences: what does not beat it, on the same data and history "
        "length, need not be trained.",
    ),
)
