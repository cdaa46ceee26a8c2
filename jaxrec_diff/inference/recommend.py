"""Top lists by one Python call."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.inference import histories as inference_histories
from jaxrec_diff.inference import recommender
from jaxrec_diff.inference.types import Histories, Recommendation, Recommendations, Recommender


def recommend(
    workdir: str | Path | Recommender,
    *,
    users: Sequence | None = None,
    histories: Sequence[Sequence] | None = None,
    **options: Any,
) -> Recommendations:
    """Top lists for known users, or for histories of raw ids.

    Args:
      workdir: what `bin/train` left, or a `Recommender`.
      users: raw ids; all known users where neither is given. Unknown ones are left out, and are in
        `unknown` of the result.
      histories: sequences of raw item ids, oldest first. Ids that are no items are skipped, and are
        in `unknown` of their row.
      **options: of `load`, unless a `Recommender` is given.

    Raises:
      ValueError: if both are given, if one is no list, or on what `load` refuses.
    """
    import pyarrow as pa

    if users is not None and histories is not None:
        raise ValueError("give users or histories, not both")
    if isinstance(workdir, Recommender) and options:
        name, value = next(iter(options.items()))
        raise ValueError(
            f"{name}={value!r} cannot change a recommender that is loaded; give it to load"
        )
    users = None if users is None else _listed(users, "users", "ids of users")
    rows = None if histories is None else _rows(histories)
    asked_for = rows if rows is not None else users
    if asked_for is not None and "batch_size" not in options:
        options["batch_size"] = min(recommender.bucket(len(asked_for)), 1024)  # changes no list
    asked = workdir if isinstance(workdir, Recommender) else recommender.load(workdir, **options)
    skipped: list[list] | None = None
    if rows is not None:
        flat = [item for history in rows for item in history]
        offsets = np.append(0, np.cumsum([len(history) for history in rows])).astype(np.int64)
        raw = pa.array([str(item) for item in flat], pa.string())
        known = asked.vocabulary.encode(raw) > 0
        skipped = [
            [flat[at] for at in range(begin, end) if not known[at]]
            for begin, end in zip(offsets, offsets[1:], strict=False)
        ]
        names = pa.array(np.arange(len(rows)))
        stream: Iterable[Histories] = [inference_histories.encode(asked, names, raw, offsets)[0]]
        unknown = [item for each in skipped for item in each]
    else:
        numbers, _ = inference_histories.numbers(asked.dataset, users)
        stream = inference_histories.of_users(asked, numbers)
        unknown = inference_histories.strangers(asked.dataset, users or [])
    return Recommendations(_found(asked, stream, skipped), unknown)


def _found(
    asked: Recommender, stream: Iterable[Histories], skipped: list[list] | None
) -> list[Recommendation]:
    ids, titles = asked.dataset.item_ids, asked.dataset.titles
    found: list[Recommendation] = []
    for lists in recommender.ask(asked, stream):
        for row, name in enumerate(lists.names.to_pylist()):
            items = lists.items[row][lists.items[row] > 0] - 1
            found.append(
                Recommendation(
                    name,
                    ids[items].tolist(),
                    lists.scores[row][lists.items[row] > 0].tolist(),
                    None if lists.spread is None else float(lists.spread[row]),
                    bool(lists.fallback[row]),
                    skipped[len(found)] if skipped is not None else [],
                    None if titles is None else titles[items].tolist(),
                )
            )
    return found


def _listed(given: Any, name: str, of: str) -> list:
    """A list of what was given one after the other.

    Raises:
      ValueError: if that is a single value.
    """
    try:
        if isinstance(given, str | bytes):
            raise TypeError
        return list(given)
    except TypeError:
        raise ValueError(f"{name}={given!r} is no list of {of}; write {name}=[{given!r}]") from None


def _rows(given: Any) -> list[list]:
    """Histories as lists.

    Raises:
      ValueError: if one of them is a single value.
    """
    rows = []
    for place, each in enumerate(_listed(given, "histories", "histories")):
        try:
            if isinstance(each, str | bytes):
                raise TypeError
            rows.append(list(each))
        except TypeError:
            raise ValueError(
                f"histories[{place}]={each!r} is no list of item ids; a single history is written "
                f"histories=[[{each!r}, ...]]"
            ) from None
    return rows
