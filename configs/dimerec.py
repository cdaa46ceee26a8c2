"""DimeRec (arXiv:2408.12153), the paper read literally on the data sets it names.

    bin/train --model=dimerec

No code was released. Independent re-runs report HR@20 / NDCG@20 in percent (DreamRec's protocol):
YooChoose 5.33 / 3.86, KuaiRec 4.17 / 3.64, Zhihu 2.06 / 0.78.
"""

from dataclasses import replace

from jaxrec_diff.config import Experiment
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluate import EvalConfig
from jaxrec_diff.models.dimerec import DimeRecConfig
from jaxrec_diff.training.config import TrainConfig

# The literal forward process leaves the target readable in x_t, and the denoiser then copies it
# instead of looking at the interests; more noise and a temperature make it look.
DEFAULT = Experiment(
    model=DimeRecConfig(forward="vp_norm", temperature=0.1, beta_stop=0.5, negatives="full"),
    data=DataConfig(max_len=20),
    train=TrainConfig(batch_size=256, learning_rate=1e-3, num_epochs=12, patience=3),
    eval=EvalConfig(metric="hr@20"),
)
_DREAMREC_FILES = replace(
    DEFAULT,
    model=DimeRecConfig(),
    data=DataConfig(max_len=10),
    train=replace(DEFAULT.train, num_epochs=1000, patience=10),
)
PUBLISHED = {"zhihu": _DREAMREC_FILES, "yc": _DREAMREC_FILES, "ks": _DREAMREC_FILES}


def config(dataset: str) -> Experiment:
    """Published settings where the data set is known, otherwise what does well on `synthetic`."""
    return PUBLISHED.get(dataset, DEFAULT)
