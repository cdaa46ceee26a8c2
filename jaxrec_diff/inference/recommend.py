"""Top lists by one Python call."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.inference import histories as inference_histories
from jaxrec_diff.inference import recommender
from jaxrec_diff.inference.types import Histories, Recommendation, Recommender


def recommend(
    workdir: str | Path | Recommender,
    *,
    users: Sequence | None = None,
    histories: Sequence[Sequence] | None = None,
    **options: Any,
) -> list[Recommendation]:
    """Top lists for known users, or for histories of raw ids.

    Args:
      workdir: what `bin/train` left, or a `Recommender`.
      users: raw ids; all known users where neither is given. Unknown ones are left out.
      histories: sequences of raw item ids, oldest first.
      **options: of `load`.

    Raises:
      ValueError: if both are given, or on what `load` refuses.
    """
    import pyarrow as pa

    if users is not None and histories is not None:
        raise ValueError("give users or histories, not both")
    rows = histories if histories is not None else users
    if rows is not None and "batch_size" not in options:
        options["batch_size"] = min(recommender.bucket(len(rows)), 1024)  # changes no list
    asked = workdir if isinstance(workdir, Recommender) else recommender.load(workdir, **options)
    if histories is not None:
        offsets = np.append(0, np.cumsum([len(history) for history in histories]))
        raw = pa.array([str(item) for history in histories for item in history], pa.string())
        names = pa.array(np.arange(len(histories)))
        stream: Iterable[Histories] = [
            inference_histories.encode(asked, names, raw, offsets.astype(np.int64))[0]
        ]
    else:
        stream = inference_histories.of_users(
            asked, inference_histories.numbers(asked.dataset, users)[0]
        )
    found = []
    for lists in recommender.ask(asked, stream):
        ids = asked.dataset.item_ids
        for row, name in enumerate(lists.names.to_pylist()):
            real = lists.items[row] > 0
            found.append(
                Recommendation(
                    name,
                    ids[lists.items[row][real] - 1].tolist(),
                    lists.scores[row][real].tolist(),
                    None if lists.spread is None else float(lists.spread[row]),
                    bool(lists.fallback[row]),
                )
            )
    return found
