"""DreamRec (arXiv:2310.20453), settings of the released code where the data set is known.

    bin/train --model=dreamrec --data=PATH/zhihu

Published HR@20 / NDCG@20 in percent: YooChoose 4.78 / 2.23, KuaiRec 5.16 / 4.11, Zhihu 2.26 / 0.79.
Read about protocols in the README before comparing: those figures let items that were never
trained compete.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Preset
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.dreamrec import DreamRecConfig
from jaxrec_diff.training.config import TrainConfig

_RELEASED = Experiment(
    model=DreamRecConfig(sampler=SamplerConfig(kind="closed_form")),
    data=DataConfig(max_len=10),
    train=TrainConfig(
        optimizer="adamw", batch_size=256, epoch_sampler="iid", num_epochs=1000, patience=10
    ),
    eval=EvalConfig(metric="hr@20"),
    seed=100,
)


def _released(learning_rate: float, **model) -> Experiment:
    return replace(
        _RELEASED,
        model=replace(_RELEASED.model, **model),
        train=replace(_RELEASED.train, learning_rate=learning_rate),
    )


# Frozen targets cannot collapse, and the mean of the reverse chain ranks better than one draw.
_DEFAULT = replace(
    _RELEASED,
    model=DreamRecConfig(
        item_embedding="frozen",
        guidance_weight=0.0,
        sampler=SamplerConfig(kind="closed_form", temperature=0.0),
    ),
    data=DataConfig(max_len=20),
    train=TrainConfig(learning_rate=1e-3, num_epochs=20, patience=4),
    seed=0,
)

PRESET = Preset(
    default=_DEFAULT,  # what does well on `synthetic`
    published={
        "zhihu": _released(1e-2, num_steps=500, schedule="linear", guidance_weight=4.0),
        "yc": _released(1e-3, num_steps=500, schedule="exp", guidance_weight=2.0),
        "ks": _released(5e-5, num_steps=2000, schedule="cosine_clip", guidance_weight=2.0),
    },
    # The paper's ranges.
    search={
        "train.learning-rate": Range(5e-5, 1e-2, log=True),
        "model.num-steps": Choice((50, 100, 200, 500, 1000, 2000)),
        "model.guidance-weight": Range(0.0, 10.0),
    },
)
