"""Whether a folder holds a run; without JAX, so that a command can ask before it starts."""

import difflib
from pathlib import Path

CONFIG = "config.json"


def check(folder: Path) -> None:
    """Refuses a folder that holds no run.

    Raises:
      ValueError: naming the nearest folder beside it that holds one.
    """
    if (folder / CONFIG).exists():
        return
    lacks = "holds no run" if folder.is_dir() else "is no folder" if folder.exists() else ""
    beside = {
        each.parent.name: each.parent
        for parent in (folder.parent, folder, Path("runs"))
        if parent.is_dir()
        for each in sorted(parent.glob(f"*/{CONFIG}"))
    }
    near = difflib.get_close_matches(folder.name, list(beside), 1, 0.5) or list(beside)[:1]
    hint = f"did you mean {beside[near[0]]}?" if near else "name a workdir that bin/train made"
    raise ValueError(f"{folder} {lacks or 'does not exist'}; {hint}")
