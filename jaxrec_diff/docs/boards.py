"""Leaderboards as the documentation tells them, from `leaderboard-DATA.json` of results files."""

import json
from pathlib import Path
from typing import Any

from jaxrec_diff.reporting import parity, records, standings, text
from jaxrec_diff.reporting.records import Told
from jaxrec_diff.reporting.standings import Row

_ABSENT = "(in a checkout)"  # an installed package has no results


def leaderboards(results: Path | None = None) -> str:
    """All of them in markdown: the best on each data set, then what each table says, and the table.

    Args:
      results: a folder of results files; by default that of the checkout.
    """
    kept = _kept(results)
    if kept is None:
        return _ABSENT
    parts = [summary(results)]
    for name, each in kept.items():
        told = records.read(each)
        parts += [f"## {name}", each["split_rule"], _sentences(told)]
        parts += [standings.markdown(*told).strip(), f"    {each['command']}", _made(each)]
    return "\n\n".join(part for part in parts if part)


def summary(results: Path | None = None) -> str:
    """The best of each kind on each data set, with what they cost, in markdown."""
    told = {name: records.read(each) for name, each in (_kept(results) or {}).items()}
    return text.table(*records.summary(told)) if told else ""


def standing(name: str, results: Path | None = None) -> tuple[str, str, Row] | None:
    """Data, metric and row of a system in the first honest leaderboard that has it."""
    for data, kept in (_kept(results) or {}).items():
        told = records.read(kept)
        for row in told.rows if told.board.protocol == "honest" else ():
            if row.name == name and row.means:
                return data, told.board.metric, row
    return None


def _kept(results: Path | None) -> dict[str, dict[str, Any]] | None:
    folder = parity.results_folder() if results is None else results
    if folder is None:
        return None
    return {
        path.stem.removeprefix("leaderboard-"): json.loads(path.read_text())
        for path in sorted(folder.glob("leaderboard-*.json"), key=lambda path: path.stem)
    }


def _made(kept: dict[str, Any]) -> str:
    """On what a leaderboard was made, and by which versions of this library."""
    seeds = ", ".join(map(str, kept["seeds"]))
    classics = kept.get("commit_of_classics")
    beside = f"; classics: {classics}" if classics else ""
    return f"Seeds {seeds}, {kept['device']}, commits: {kept['commit']}{beside}."


def _sentences(told: Told) -> str:
    return "\n".join(f"- {said}" for said in records.verdicts(told))
