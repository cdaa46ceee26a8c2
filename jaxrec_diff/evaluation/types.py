"""What an evaluation is given and what it returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.batches.types import Group
from jaxrec_diff.models.protocols import Rules
from jaxrec_diff.ops.ragged import Ragged

LIST = 20  # length of the lists that coverage and the other diagnostics look at


class Evaluation(NamedTuple):
    """The figures of one split."""

    metrics: dict[str, float]
    per_user: dict[str, np.ndarray]  # f32[N] each
    diagnostics: dict[str, Any]
    missing: int = 0  # users without a row, who count with zeros


class Split(NamedTuple):
    """A split on the host and what is static about it; `shares` lays it on devices."""

    histories: Ragged  # whole, with their answers
    rows: Any  # what queries are cut from
    alone: Callable[[Any, np.ndarray], Any]  # `Batcher.alone`
    groups: tuple[Group, ...]  # together all rows, each with (rows, index i32[B]) -> query
    max_seen: int
    max_relevant: int
    num_rows: int


def missing_users(rules: Rules, num_users: int, num_rows: int) -> int:
    """How many users without a row the rules count."""
    return max(num_users - num_rows, 0) if rules.all_users else 0


def means(per_user: dict[str, np.ndarray], missing: int = 0) -> dict[str, float]:
    """Means over users, added up in float64; `missing` more have zeros."""
    return {
        name: float(np.sum(values, dtype=np.float64) / (len(values) + missing))
        for name, values in per_user.items()
    }
