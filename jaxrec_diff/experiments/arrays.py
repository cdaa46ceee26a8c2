"""Arrays that a phase exports, in files of ours or of released codes."""

import zipfile
from pathlib import Path

import numpy as np

# What DDRM's released MF, LightGCN and SGL call their tables.
_RELEASED = {
    f"{name}.weight": side
    for side, names in (
        ("users", ("user_emb", "embedding_user", "users_feature")),
        ("items", ("item_emb", "embedding_item", "items_feature")),
    )
    for name in names
}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, those with a released code's names under ours."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; it should hold arrays such as users and items")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {_RELEASED.get(name, name): stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        raise ValueError(f"{path} cannot be read as npz without pickled objects") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(
                f"{path} holds {name!r} of type {array.dtype} with values that are no finite "
                "numbers; only numbers can be used"
            )
    return arrays
