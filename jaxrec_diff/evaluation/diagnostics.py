"""What the lists of a split are like beside how many answers they hold."""

from typing import Any

import numpy as np

from jaxrec_diff.evaluation import metrics
from jaxrec_diff.evaluation.types import LIST


def diagnostics(
    summed: dict[str, np.ndarray], table: np.ndarray, train_counts: np.ndarray, num_rows: int
) -> dict[str, Any]:
    popularity = np.pad(train_counts, (0, len(table) - len(train_counts)))
    known = popularity > 0
    exposure = summed["exposure"]
    counts = {
        "untrained_top20": float(summed["untrained_slots"] / (num_rows * LIST)),
        "hits_untrained": float(summed["untrained_hits"] / max(summed["hits"], 1.0)),
        "untrained_items": int((train_counts == 0).sum()),
        "distinct_items": int((exposure > 0).sum()),
        "coverage@20": float(metrics.coverage(exposure)),
        "gini@20": float(metrics.gini(exposure)),
        "average_popularity@20": metrics.average_popularity(exposure, popularity),
    }
    return counts | {k: float(v) for k, v in metrics.table_spread(table, known).items()}
