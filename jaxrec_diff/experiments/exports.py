"""Arrays that one phase hands to the next, in files of ours or of released codes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxrec_diff.data.formats.arrays import members
from jaxrec_diff.ops import files

# What DDRM's released MF, LightGCN and SGL call their tables.
_RELEASED = {
    f"{name}.weight": side
    for side, names in (
        ("users", ("user_emb", "embedding_user", "users_feature")),
        ("items", ("item_emb", "embedding_item", "items_feature")),
    )
    for name in names
}


def path(workdir: Path, phase: str) -> Path:
    """Where a workdir keeps what a phase exported."""
    return workdir / "stages" / phase / "export.npz"


def write(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(file) as partial, partial.open("wb") as whole:
        np.savez(whole, **arrays)  # type: ignore[arg-type]


def read(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, those with a released code's names under ours.

    Raises:
      ValueError: if there is no such file, or it holds anything but finite numbers.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist; it should hold arrays such as users and items")
    try:
        stored = members(file)
    except ValueError:
        raise ValueError(f"{file} cannot be read as npz without pickled objects") from None
    arrays = {_RELEASED.get(name, name): array.copy() for name, array in stored.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(
                f"{file} holds {name!r} of type {array.dtype} with values that are no finite "
                "numbers; only numbers can be used"
            )
    return arrays
