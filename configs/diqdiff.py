"""DiQDiff (arXiv:2501.17670), settings of the released README where the data set is known.

    bin/train --model=diqdiff --data=PATH/amazon-beauty/interactions.parquet

Re-runs of the released code, full ranking, test split in percent, HR@10 / NDCG@10: Amazon Beauty
7.41 / 4.50, Toys 6.96 / 4.57, ML-1M 24.84 / 13.78, Steam 11.48 / 6.02. Epochs are 211, 247, 183
and 107.

Evaluation follows the released script: the codes of a batch of 1024 users in order, 32 reverse
steps with its noise. `--eval.protocol=honest` ranks with the codebook of training, user by user.
The released script keeps the model of the last evaluation at which any of six metrics improved;
here NDCG@10 decides.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.diqdiff import DiQDiffConfig
from jaxrec_diff.training.config import TrainConfig

_BEAUTY = Experiment(
    model=DiQDiffConfig(sampler=SamplerConfig(spacing="leading", noise="exp_var")),
    data=DataConfig(max_len=50),
    train=TrainConfig(
        batch_size=1024, learning_rate=1e-3, schedule="step", decay_epochs=100, num_epochs=300,
        eval_every=2, patience=10, epoch_sampler="whole",
    ),
    eval=EvalConfig(protocol="official", metric="ndcg@10", ks=(5, 10, 20), batch_size=1024),
    seed=1997,
)  # fmt: skip


def _like_beauty(**model) -> Experiment:
    return replace(_BEAUTY, model=replace(_BEAUTY.model, **model))


_DEFAULT = Experiment(
    model=DiQDiffConfig(
        width=64, num_blocks=2, mask="key", num_codes=8, history_weight=1.0, contrast_weight=0.05
    ),
    data=DataConfig(max_len=20),
    train=TrainConfig(batch_size=256, learning_rate=1e-3, num_epochs=12, patience=3),
    eval=EvalConfig(metric="hr@20"),
)

PRESET = Preset(
    default=_DEFAULT,  # smaller, not tuned
    published={
        "amazon-beauty": _BEAUTY,
        "toys": _like_beauty(history_weight=1.0),
        "ml-1m": _like_beauty(
            num_codes=8, code_weight=0.6, history_weight=1.0, contrast_weight=0.05
        ),
        "steam": _like_beauty(code_weight=1.2, history_weight=1.0, contrast_weight=0.2),
    },
    # Around the released settings of the four data sets.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.num-codes": Choice((8, 16, 32, 64)),
        "model.code-weight": Range(0.2, 1.2),
        "model.history-weight": Range(0.2, 1.0),
        "model.contrast-weight": Range(0.05, 1.0, log=True),
    },
)
