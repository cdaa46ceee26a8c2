"""DiQDiff (arXiv:2501.17670), settings of the released README where the data set is known.

    bin/train --model=diqdiff --data=PATH/amazon-beauty/interactions.parquet

Re-runs of the released code took 211 epochs on Amazon Beauty, 247 on Toys, 183 on ML-1M and 107 on
Steam.

Evaluation follows the released script: the codes of a batch of 1024 users in order, 32 reverse
steps with its noise. `--eval.protocol=honest` ranks with the codebook of training, user by user.
The released script keeps the model of the last evaluation at which any of six metrics improved;
here NDCG@10 decides.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.facts import Facts, figures
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
    train=TrainConfig(batch_size=256, learning_rate=1e-3, num_epochs=12, patience=8),
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
    facts=Facts(
        figures(
            ("hr@10", "ndcg@10"),
            {
                "amazon-beauty": (0.074143, 0.045042),
                "toys": (0.069647, 0.045687),
                "ml-1m": (0.248419, 0.137835),
                "steam": (0.114835, 0.060210),
            },
            by="a re-run of the released code",
        ),
        differs=(
            "Codes of an evaluation are those of training, so that a list depends on its user "
            "alone; the official protocol takes those of the batch, as released.",
            "The released selector of codes gets no gradient and is a fixed random projection; "
            "`--model.svq=paper` trains it.",
        ),
        limits=("Every history has all L places: nothing is gained by short ones.",),
        choose="To reproduce it. With the released settings it beats DiffuRec on Steam alone.",
    ),
)
