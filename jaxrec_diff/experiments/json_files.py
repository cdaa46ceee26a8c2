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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, [] without one: whatever is no object with a whole `step` is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a line that a kill cut in two, or damage
        if isinstance(value, dict) and type(value.get("step")) is int:
            found.append(value)
    return found


def truncate_after(path: Path, step: int) -> int:
    """Drops lines of steps that a resumed run will make again, and what is no line of a log.

    Returns:
      How many lines of later steps there were.

    Raises:
      ValueError: if there is a folder in the file's place.
    """
    if not path.exists():
        return 0
    if not path.is_file():
        raise ValueError(f"{path} is no file; move it away, and the same command goes on")
    lines = read_lines(path)
    kept = [line for line in lines if line["step"] <= step]
    with files.replacing(path) as partial:
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return len(lines) - len(kept)
