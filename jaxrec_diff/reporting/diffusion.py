"""Whether the diffusion of a model matters to its lists: of one model, and of all side by side.

What is told was made by `experiments.diffusing`.
"""

from collections.abc import Mapping
from typing import Any

from jaxrec_diff.experiments.diffusing import (
    ANSWER,
    FAST,
    FULL,
    ONE_CALL,
    OWN,
    STRANGER,
    UNGUIDED,
    WITHOUT,
)
from jaxrec_diff.reporting import text

SAME = 0.05
"""Two figures that differ by less than this share of the first are called the same."""

ROWS = (OWN, FULL, ONE_CALL, FAST, WITHOUT, STRANGER, ANSWER, UNGUIDED)


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: a row a change, of what `diffusing.control` found."""
    metric, rows = found["metric"], found["rows"]
    own = rows[OWN][metric]
    head = ["does it diffuse?", metric, "of its own", "same top 10", "steps"]
    body = [
        [
            name,
            f"{row[metric]:.4f}",
            f"{row[metric] / own:.0%}" if own else "-",
            f"{row['overlap']:.0%}",
            str(row["steps"] or "-"),
        ]
        for name, row in rows.items()
    ]
    return head, [*body, ["two draws of its own", "", "", f"{found['draws']:.0%}", ""]]


def lines(results: Mapping[str, Any]) -> list[str]:
    """The same for a terminal, what could not be asked, and what it means; [] without it."""
    found = results.get("diffusion")
    if not found:
        return []
    head, body = table(found)
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    out = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in (head, *body)
    ]
    out += [f"no {name}: {why}" for name, why in found["left_out"].items()]
    return [*out, *([verdict(found)] if verdict(found) else [])]


BLIND, NEEDED = "blind", "needed"
_SEES = "its network reads x_t: the answer, shown as x_t, is told from nothing"
_SAID = {
    "": "",
    BLIND: "its network makes no use of x_t: even the answer, shown as x_t, changes little",
    "spare": f"{_SEES}; its chain's lists are as good without x_t: it adds nothing",
    "short": f"{_SEES}; one call is as good as its chain",
    NEEDED: f"{_SEES}, and its chain is better than one call and than none",
}


def verdict(found: Mapping[str, Any]) -> str:
    """What the rows say together, in a sentence; "" where a row is missing."""
    said = _SAID[outcome(found)]
    return (
        f"{said}; it recommends without a chain"
        if said and not found["rows"][OWN]["steps"]
        else said
    )


def outcome(found: Mapping[str, Any]) -> str:
    """The same in a word: `BLIND` to x_t, "spare" chain, "short" one, `NEEDED`; "" as there."""
    metric, rows = found["metric"], found["rows"]
    walked = OWN if rows[OWN]["steps"] else FULL
    if not {walked, ONE_CALL, WITHOUT, ANSWER} <= rows.keys():
        return ""
    chain, once, without, answer = (
        rows[name][metric] for name in (walked, ONE_CALL, WITHOUT, ANSWER)
    )
    if _same(without, answer):
        return BLIND
    if _same(chain, without) or without > chain:
        return "spare"
    if _same(chain, once) or once > chain:
        return "short"
    return NEEDED


def across(found: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: a row a system, a column a change, in the system's own metric.

    Args:
      found: what `diffusing.control` returned, by system.
    """
    head, body = ["system", "metric", "steps", *ROWS, "two draws' top 10"], []
    for name, each in found.items():
        rows, metric = each["rows"], each["metric"]
        cells = [f"{rows[row][metric]:.4f}" if row in rows else "-" for row in ROWS]
        full = rows.get(FULL, {}).get("steps")
        steps = str(rows[OWN]["steps"] or (f"none of {full}" if full else "-"))
        body.append([name, metric, steps, *cells, f"{each['draws']:.0%}"])
    return head, body


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The same for a README."""
    return text.table(*across(found)) + "\n"


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME * max(one, other)
