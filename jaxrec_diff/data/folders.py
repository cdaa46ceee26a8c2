"""Which files of a folder are its train, valid and test, or the parts of one table."""

import re
from pathlib import Path

from jaxrec_diff.data import decode, tables

_SPLIT_WORDS = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid",
    "dev": "valid", "test": "test",
}  # fmt: skip
_PART = re.compile(r"[-_]?\d{5}[-_]of[-_]\d{5}$")  # Hugging Face's train-00000-of-00001


def split_files(path: Path) -> dict[str, list[Path]]:
    """The files of each split of a folder, by their names.

    Raises:
      ValueError: if a split has several files that are no parts of one.
    """
    entries = [entry for entry in sorted(path.iterdir()) if entry.name[0] not in "._"]
    found: dict[str, list[Path]] = {}
    for entry in entries:
        split = _split_of(entry)
        if split is not None:
            inner = parquet_parts(entry) if entry.is_dir() else [entry]
            found.setdefault(split, []).extend(inner)
    if not found and [entry.name for entry in entries if entry.is_dir()] == ["data"]:
        return split_files(path / "data")  # as Hugging Face lays it out
    for split, files in found.items():
        parts = all(_PART.search(file.stem) or file.parent != path for file in files)
        if len(files) > 1 and not parts:
            raise ValueError(
                f"{path} holds {' and '.join(file.name for file in files[:3])} for {split}; keep "
                "one of them"
            )
    return {split: files for split, files in found.items() if files}


def _split_of(entry: Path) -> str | None:
    """The split that a name says: train.csv, ml.train.inter, train_list.npy, train_data.txt."""
    if not entry.is_dir() and not tables.readable(entry):
        return None
    stem = entry.name if entry.is_dir() else entry.name[: -len("".join(_endings(entry)))]
    words = re.split(r"[._-]", _PART.sub("", stem).lower())
    said = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return said.pop() if len(said) == 1 else None


def _endings(path: Path) -> list[str]:
    extra = decode.compressed(path)
    return [Path(path.stem).suffix, *extra] if extra else [path.suffix]


def parquet_parts(path: Path) -> list[Path]:
    """Parquet files anywhere below a folder, in the order of their names."""
    return [
        part
        for part in sorted(path.rglob("*"))
        if tables.readable(part)
        and decode.suffix(part) in (".parquet", ".pq")
        and not any(piece[0] in "._" for piece in part.relative_to(path).parts)
        and part.is_file()
    ]
