"""How a model is judged."""

import difflib
from dataclasses import dataclass
from typing import Literal

from jaxrec_diff import validation
from jaxrec_diff.evaluation import metrics
from jaxrec_diff.models.protocols import Protocol

Control = Literal[
    "item_knn", "asymmetric", "jaccard", "user_weighted", "p3alpha", "rp3beta", "family",
    "gfcf", "slim", "ease", "edlae", "ials",
]  # fmt: skip
LOSS = "loss"  # the objective of training, which no list has


def sign(metric: str) -> float:
    """1 for a validation metric that is better when higher, -1 for one better when lower."""
    return -1.0 if metric == LOSS else metrics.sign(metric)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a model is judged."""

    protocol: Protocol = "honest"
    """honest: items of the history and items never trained are no candidates, every row counts;
    official: as the system's released script does it."""
    metric: str = "hr@20"
    """Validation metric that picks the checkpoint. loss: the objective of training on held-out rows
    under draws that stay the same, lower is better; of models that generate items."""
    ks: tuple[int, ...] = (5, 10, 20, 50)
    """Cut-offs."""
    batch_size: int = 1024
    """Rows ranked at once; changes no number, but DiQDiff's under the official codes."""
    mask_seen: bool | None = None
    """Overrides the protocol: whether items of the history are candidates."""
    seeds: int = 1
    """Draws of the sampler's noise; figures are means over them."""
    track_test: bool = False
    """Log test metrics at every evaluation (never used to pick a checkpoint)."""
    candidates: int = 0
    """Rank each answer among so many drawn items too (100 in SASRec's protocol), and report users
    by the length of their history; 0 does neither. One answer a user only."""
    shuffles: int = 0
    """Draws of shuffled test histories that a trained model is ranked on too, to see how much of
    its figures needs order; of models that read histories."""
    diffuses: bool = False
    """Rank a trained diffusion model with its reverse process changed too: one call, without x_t,
    with another user's x_0 and with the true one shown, without guidance."""
    controls: tuple[Control, ...] = ()
    """Further controls at the end of a run, tuned on validation: neighbourhoods of items, linear
    models, a graph filter, matrix factors."""
    control_trials: int = 24
    """Settings that each control is tuned over at most, drawn from its grid."""
    control_minutes: float = 0.0
    """Time after which a control tries no further setting; 0 sets none."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"eval.ks must be positive cut-offs such as 5,10,20, got {self.ks}")
        validation.at_least("eval.batch-size", self.batch_size, 1)
        validation.at_least("eval.seeds", self.seeds, 1)
        validation.at_least("eval.shuffles", self.shuffles, 0)
        validation.at_least("eval.control-trials", self.control_trials, 1)
        validation.at_least("eval.candidates", self.candidates, 0)
        validation.at_least("eval.control-minutes", self.control_minutes, 0)
        known = metrics.names(self.ks)
        if self.metric not in (LOSS, *known):
            near = difflib.get_close_matches(self.metric, known, 1, 0.0)[0]
            raise ValueError(f"eval.metric={self.metric!r} is not computed; did you mean {near!r}?")
