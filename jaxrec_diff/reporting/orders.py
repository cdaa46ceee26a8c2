"""Whether the order of histories matters to lists: of one model, and of all side by side.

What is told was made by `experiments.shuffling`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

HARDLY = 0.9
"""Where shuffled histories keep more than this share of a figure, their order hardly matters."""

SHOWN = ("real", "shuffled", "last_kept")
"""Histories as they are, in any order, and in any order but for the newest item."""


def lines(results: Mapping[str, Any]) -> list[str]:
    """How much of the figure that picked a run's checkpoint needs the order; [] without it."""
    order = results.get("order")
    if not order:
        return []
    found = mean([order], order["metric"])
    share = kept(found)
    out = [
        f"order: {found['metric']} {found['real']:.4f}, histories shuffled "
        f"{found['shuffled']:.4f} ({share:.0%}), all but the last item shuffled "
        f"{found['last_kept']:.4f}; {found['overlap']:.0%} of the top 10 stay"
    ]
    out += [
        f"{name} that follow each other as a rule: {each['real']}, shuffled {each['shuffled']:.1f}"
        for name, each in order["rules"].items()
    ]
    if share > HARDLY:
        out.append("order hardly matters here: compare with item_knn and ease")
    return out


def mean(found: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """What the control found for one metric, over seeds; {} where it was not asked.

    Args:
      found: what `shuffling.control` returned, a seed each.
      metric: to tell.
    """
    if not found:
        return {}

    def of(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    shown = {name: of([each[name][metric] for each in found]) for name in SHOWN}
    return {
        "metric": metric,
        **shown,
        "overlap": of([each["shuffled"]["overlap"] for each in found]),
    }


def kept(found: Mapping[str, Any]) -> float:
    """The share of a figure that shuffled histories keep; of nothing, all of it."""
    return found["shuffled"] / found["real"] if found["real"] else 1.0


def across(found: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: a row an entry.

    Args:
      found: from `mean`, by entry.
    """
    head = [
        "does order matter?", "metric", "histories as they are", "shuffled",
        "all but the last shuffled", "shuffled keeps", "same top 10",
    ]  # fmt: skip
    body = [
        [
            name,
            each["metric"],
            *(f"{each[shown]:.4f}" for shown in SHOWN),
            f"{kept(each):.0%}",
            f"{each['overlap']:.0%}",
        ]
        for name, each in found.items()
    ]
    return head, body
