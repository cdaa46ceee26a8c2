"""ADRec (arXiv:2505.19544), each place restored at a step of its own, on rows of a trained SASRec.

    bin/train --model=adrec --data=PATH/ml-100k.inter
    bin/train --model=adrec --preset=adrec-baby --data=PATH --model.freeze=released
    bin/train --model=adrec --backbone=none --model.table=random --data=PATH

The second line takes the released settings, and the released drift of the frozen rows with them. Of
the paper's data only its own filtering is comparable, so the released settings go by names of their
own. No published figure could be read.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Fast, Phase, Preset, phase
from jaxrec_diff.config.facts import Facts
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.adrec import ADRecConfig
from jaxrec_diff.training.config import TrainConfig


def _rows_of(dataset: str, **model) -> Phase:
    """SASRec's settings for a data set with some of its model's changed, for its rows."""
    first = phase("sasrec", dataset)
    return replace(first, model=replace(first.model, **model))


# Of the last, smaller batch as of the others.
_RELEASED = Experiment(
    model=ADRecConfig(sampler=SamplerConfig(noise="std_large", spacing="leading")),
    backbone=_rows_of("amazon-beauty", width=128, num_heads=4, init_scale=0.1, windows="last"),
    data=DataConfig(max_len=50),
    train=TrainConfig(
        batch_size=512, epoch_sampler="whole", learning_rate=1e-3, optimizer="adam_l2",
        weight_decay=1e-5, schedule="cosine", num_epochs=500, eval_every=5, patience=4,
    ),
    eval=EvalConfig(metric="ndcg@10", ks=(5, 10, 20)),
    seed=2025,
)  # fmt: skip
_DEFAULT = Experiment(
    model=ADRecConfig(
        width=64, encoder_blocks=1, denoiser_blocks=1, mask="key", pad_class=False, windows="all"
    ),
    data=DataConfig(max_len=20),
    train=TrainConfig(batch_size=256, learning_rate=1e-3, num_epochs=60, patience=5),
    eval=EvalConfig(metric="hr@20"),
)

PRESET = Preset(
    backbone="sasrec",
    default=_DEFAULT,  # smaller, not tuned
    published={
        f"adrec-{name}": _RELEASED for name in ("baby", "beauty", "toys", "sports", "ml-100k")
    },
    fast={
        "default": Fast(
            model={"sampler.kind": "one_step", "sampler.steps": 0},
            measured="fast-adrec-ml-100k.json",
        )
    },
    # Ours; lambda reaches to where x_t is as large as what it is added to.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.lambda-scale": Range(1e-3, 1.0, log=True),
        "model.mse-weight": Choice((0.0, 0.1, 1.0)),
        "model.freeze-epochs": Choice((0, 5, 20)),
        "model.x0-scale": Choice(("raw", "unit")),
        "model.dropout-rate": Range(0.0, 0.5),
        "model.history-dropout-rate": Range(0.0, 0.5),
    },
    facts=Facts(
        differs=(
            "The frozen rows stay as they are. In the released code their gradient is zero, but "
            "weight decay takes the learning rate off every coordinate at every update "
            "(`--model.freeze=released`).",
            "One step at t = 0 recommends, where 32 are released: they rank the same.",
            "The rows come from this library's SASRec, with positions and another block.",
            "The default settings hide padding; the released network looks at it (model.mask).",
            "The checkpoint is the best by one metric, not the last at which any of six rose.",
        ),
        limits=(
            "x_t and the step are a thousandth of what the denoiser reads: without either the "
            "lists are the same. What is trained is a SASRec of four blocks on rows of another, "
            "with a squared error beside its softmax. On ML-100K it does not rank above the SASRec "
            "that its rows come from.",
            "An epoch is cheap because every place of a sequence is a target, as in SASRec; that, "
            "and not the diffusion, is what its speed comes from.",
            "The paper filters its data further than others do, so that its figures compare with "
            "nothing else.",
        ),
        choose="To study steps of their own for every place of a sequence; read its figure beside "
        "that of the `sasrec` that its rows come from.",
    ),
)
