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
    inside, beside, usual = (_runs(each) for each in (folder, folder.parent, Path("runs")))
    named = {each.name: each for each in (*usual, *beside)}
    near = [named[name] for name in difflib.get_close_matches(folder.name, named, 1, 0.5)]
    found = [*inside, *near]
    hint = f"did you mean {found[0]}?" if found else "name a workdir that bin/train made"
    raise ValueError(f"{folder} {lacks or 'does not exist'}; {hint}")


def _runs(parent: Path) -> list[Path]:
    """The folders in one that hold a run."""
    return sorted(each.parent for each in parent.glob(f"*/{CONFIG}"))
