"""The json files of a workdir: written whole, and lines that are added or taken back."""

import json
from pathlib import Path
from typing import Any

from jaxrec_diff.ops import files


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    with files.replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1, sort_keys=False) + "\n")


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Adds one json line."""
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")


def truncate_after(path: Path, step: int) -> None:
    """Drops lines of steps that a resumed run will make again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue  # the line that a kill cut in two
    path.write_text("".join(line + "\n" for line in kept))
