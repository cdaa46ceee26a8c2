"""DimeRec (arXiv:2408.12153), the paper read literally on the data sets it names.

    bin/train --model=dimerec

No code was released; independent re-runs take DreamRec's protocol.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment, Fast, Preset
from jaxrec_diff.config.facts import Facts, figures
from jaxrec_diff.config.space import Choice, Range
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.models.dimerec import DimeRecConfig
from jaxrec_diff.training.config import TrainConfig

# The literal forward process leaves the target readable in x_t, and the denoiser then copies it
# instead of looking at the interests. Where most of few steps are close to pure noise it has to
# look, and it does better the more it has to: with 50 steps up to beta 0.5 the share of the optimum
# falls while the loss still does. Scores by direction leave out lengths, which the two softmax
# losses pull in different ways.
_DEFAULT = Experiment(
    model=DimeRecConfig(
        forward="vp_norm",
        num_steps=10,
        beta_start=0.6,
        beta_stop=0.99,
        temperature=0.1,
        negatives="full",
        positions="end",
        score="cos",
    ),
    data=DataConfig(max_len=20),
    train=TrainConfig(batch_size=256, learning_rate=2e-3, num_epochs=30, patience=4),
    eval=EvalConfig(metric="hr@20"),
)
_DREAMREC_FILES = replace(
    _DEFAULT,
    model=DimeRecConfig(),
    data=DataConfig(max_len=10),
    train=replace(_DEFAULT.train, learning_rate=1e-3, num_epochs=1000, patience=10),
)

PRESET = Preset(
    default=_DEFAULT,  # what does well on `synthetic`
    published={"zhihu": _DREAMREC_FILES, "yc": _DREAMREC_FILES, "ks": _DREAMREC_FILES},
    fast={
        "default": Fast(
            model={"sampler.kind": "one_step", "sampler.steps": 0},
            measured="fast-dimerec-ml-100k.json",
        )
    },
    # The paper sweeps the two weights.
    search={
        "train.learning-rate": Range(1e-4, 1e-2, log=True),
        "model.recon-weight": Range(0.01, 10.0, log=True),
        "model.ssm-weight": Range(0.1, 10.0, log=True),
        "model.num-interests": Choice((1, 2, 4, 8)),
    },
    facts=Facts(
        figures(
            ("hr@20", "ndcg@20"),
            {"yc": (0.0533, 0.0386), "ks": (0.0417, 0.0364), "zhihu": (0.0206, 0.0078)},
            by="a re-run elsewhere",
        ),
        differs=(
            "No code was released: docstrings say which reading of the paper each default takes.",
        ),
        limits=(
            "Read literally, the forward process hardly hides the target, so the network can copy "
            "x_t in training; `dimerec_tuned` hides it.",
        ),
        choose="Several interests a user and a sampled softmax: the one to start from where the "
        "catalogue is large.",
    ),
)
