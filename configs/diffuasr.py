"""DiffuASR (arXiv:2309.12858): a recommender, items ahead of its sequences, and it again on them.

    bin/train --model=diffuasr --data=PATH/amazon-beauty
    bin/train --model=diffuasr --preset=official --data=PATH/amazon-beauty

The first is what the paper describes where its code differs: frozen, standardised rows of the
recommender, conditions dropped in training, no item that validation or test asks for. Beyond the
paper x_t is added to SU-Net's output, which learns many times faster so (benchmarks/README.md).
"official" takes the released choices instead.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset, phase
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.diffuasr import DiffuASRConfig
from jaxrec_diff.training.config import TrainConfig

# Long users are few: 10 items ahead of a history are learnt from them alone, and of the 5 % of them
# that are held out so few items come back that no list's metric tells two checkpoints apart.
_EVAL = EvalConfig(metric="loss", mask_seen=False)
_RELEASED = DiffuASRConfig(
    channels=8,
    items="trained",
    pool="sum",
    compat="official",
    guidance="classifier",
    sampler=SamplerConfig(kind="ddim", steps=5, spacing="leading"),
)


_TRAIN = TrainConfig(
    batch_size=512, learning_rate=1e-3, clip_norm=1.0, ema_decay=0.999, num_epochs=1000,
    eval_every=20, patience=10,
)  # fmt: skip
_PAPER = Experiment(
    model=DiffuASRConfig(input_skip=True), data=DataConfig(max_len=200), train=_TRAIN, eval=_EVAL
)

PRESET = Preset(
    backbone="sasrec",
    # Smaller, not tuned.
    default=replace(
        _PAPER,
        model=DiffuASRConfig(channels=16, num_steps=200, input_skip=True),
        data=DataConfig(max_len=30, prefix_len=5),
        train=replace(
            _TRAIN,
            batch_size=128,
            learning_rate=3e-3,
            schedule="cosine",
            ema_decay=0.99,
            num_epochs=60,
            eval_every=5,
            patience=4,
        ),
    ),
    published={
        "amazon-beauty": _PAPER,
        "ml-1m": _PAPER,
        "official": Experiment(
            model=_RELEASED,
            backbone=phase("sasrec", "amazon-beauty"),
            data=DataConfig(max_len=200, prefix_rest=3),
            train=replace(_TRAIN, clip_norm=0.0, ema_decay=0.0),
            eval=_EVAL,
        ),
    },
    # The paper's range of the guidance's weight; the rest is ours.
    search={
        "model.guidance-weight": Range(0.1, 10.0, log=True),
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.num-steps": Choice((100, 200, 500, 1000)),
        "model.channels": Choice((8, 16, 32)),
    },
    facts=Facts(
        figures(
            ("hr@10", "ndcg@10"),
            {"amazon-beauty": (0.4462, 0.2818)},
            otherwise="BERT4Rec on another cut of Beauty, ranks among 101",
        ),
        differs=(
            "Rows are frozen and standardised, conditions are dropped in training, x_t is added "
            "to SU-Net's output; `--preset=official` takes the released choices.",
            "No item that validation or test asks for is generated from.",
        ),
        limits=("On Beauty and ML-1M no generated items beat none, for short users neither.",),
        choose="To make items ahead of short histories; measure against none and random ones.",
    ),
)
