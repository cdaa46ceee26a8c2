"""Figures of pages, read from results files where they stand.

A page says `{{share: FILE > KEY > ...}}`: the keys lead through `benchmarks/results/FILE.json`, and
`name=value` picks the first part of a list that has such a field.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrec_diff.reporting import diffusion, parity

_PLACE = re.compile(r"\{\{(\w+):\s*([^{}]+?)\s*\}\}")
_ABSENT = "(in a checkout)"  # an installed package has no results

_FORMS: Mapping[str, Callable[[Any], str]] = {
    "share": lambda value: f"{value:.4f}".removeprefix("0"),
    "number": lambda value: f"{value:.4g}",
    "percent": lambda value: f"{100 * value:.2g} %",
    "rest": lambda value: f"{100 * (1 - value):.1f} %",
}


def filled(text: str, results: Path | None = None) -> str:
    """A text with its figures and commands.

    Args:
      text: markdown.
      results: a folder of results files; by default that of the checkout.

    Raises:
      ValueError: if a file holds no such figure.
    """
    folder = parity.results_folder() if results is None else results

    def told(place: re.Match[str]) -> str:
        kind, keys = place[1], re.split(r"\s+>\s+", place[2])
        if folder is None:
            return _ABSENT
        if kind == "command":
            return str(figure(folder, [*keys, "command"]))
        return _FORMS[kind](figure(folder, keys))

    return _PLACE.sub(told, text)


def figure(folder: Path, keys: list[str]) -> Any:
    """What the keys lead to, from the name of a file on.

    Raises:
      ValueError: if they lead nowhere.
    """
    path = folder / f"{keys[0]}.json"
    found: Any = json.loads(path.read_text()) if path.exists() else None
    for key in keys[1:] if found is not None else ():
        if isinstance(found, list):
            name, _, value = key.partition("=")
            found = next((part for part in found if str(part.get(name)) == value), None)
        else:
            found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        raise ValueError(f"{path} holds no {' > '.join(keys[1:]) or 'results'}")
    return found


def diffuses(results: Path | None = None) -> str:
    """What the diffusion of every system is worth, as a table in markdown."""
    folder = parity.results_folder() if results is None else results
    if folder is None:
        return _ABSENT
    systems = figure(folder, ["diffuses-ml-100k", "systems"])
    return diffusion.markdown({name: each["diffusion"] for name, each in systems.items()})
