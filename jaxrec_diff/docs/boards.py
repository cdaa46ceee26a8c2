"""Leaderboards as the documentation tells them, from `leaderboard-DATA.json` of results files."""

import json
from pathlib import Path

from jaxrec_diff.reporting import parity, records, standings
from jaxrec_diff.reporting.records import Told

_ABSENT = "(in a checkout)"  # an installed package has no results


def leaderboards(results: Path | None = None) -> str:
    """All of them in markdown: the best on each data set, then what each table says, and the table.

    Args:
      results: a folder of results files; by default that of the checkout.
    """
    folder = parity.results_folder() if results is None else results
    if folder is None:
        return _ABSENT
    kept = {
        path.stem.removeprefix("leaderboard-"): json.loads(path.read_text())
        for path in sorted(folder.glob("leaderboard-*.json"))
    }
    told = {name: records.read(each) for name, each in kept.items()}
    parts = [standings.table(*records.summary(told))] if told else []
    for name, each in told.items():
        parts += [f"## {name}", kept[name]["split_rule"], _sentences(each)]
        parts += [standings.markdown(*each).strip(), f"    {kept[name]['command']}"]
    return "\n\n".join(part for part in parts if part)


def _sentences(told: Told) -> str:
    return "\n".join(f"- {said}" for said in records.verdicts(told))
