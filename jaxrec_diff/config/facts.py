"""What is known of a system beside its settings: published figures, and what to expect of it.

Every `configs/NAME.py` may hold some as its preset's `facts`. Documentation, model cards and the
parity column of leaderboards read them from there, and nothing else does.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Protocol = Literal["honest", "official"]

PAPER = "the paper"


class Figure(NamedTuple):
    """A figure of the test split that somebody published."""

    data: str  # the data set's name, as presets have it
    metric: str  # of `evaluation.metrics`
    value: float  # a share, never percent
    by: str = PAPER  # or who else: "a re-run of the released code", "the released weights"
    otherwise: str = ""  # what keeps it from being compared with a run of `data` here
    protocol: Protocol = "official"  # by whose rules it was ranked: those of the authors, or ours


class Facts(NamedTuple):
    """What a reader may want to know before choosing a system."""

    published: tuple[Figure, ...] = ()
    differs: tuple[str, ...] = ()  # what is done otherwise than in the paper or its code
    limits: tuple[str, ...] = ()
    choose: str = ""  # when to take it


def figures(
    metrics: tuple[str, ...],
    by_data: Mapping[str, tuple[float, ...]],
    *,
    by: str = PAPER,
    otherwise: str = "",
    protocol: Protocol = "official",
) -> tuple[Figure, ...]:
    """A table of figures: a row a data set, a column a metric.

    >>> figures(("hr@10", "ndcg@10"), {"toys": (0.07, 0.05)}, by="a re-run")[1][:4]
    ('toys', 'ndcg@10', 0.05, 'a re-run')
    """
    return tuple(
        Figure(data, metric, value, by, otherwise, protocol)
        for data, values in by_data.items()
        for metric, value in zip(metrics, values, strict=True)
    )
