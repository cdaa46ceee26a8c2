"""Interactions as a TensorFlow dataset, written and read without TensorFlow.

A record is a user: `user`, `items` in the order of time and, where there are some, `times` and
`ratings`. Only array_record files can be read without TensorFlow. Directories that hold a record an
interaction, as the MovieLens builders write them, are read too.
"""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.data import ids
from jaxrec_diff.data.columns import NAMES, Columns, normal

PREFIX = "tfds:"
_SPLIT = "interactions"  # the word `all` is reserved


def write(columns: Columns, folder: Path, name: str, version: str = "1.0.0") -> Path:
    """Writes a versioned data set, a record a user.

    Args:
      columns: raw interactions; a user's are put in the order of time.
      folder: where data sets are kept.
      name: of this one.
      version: MAJOR.MINOR.PATCH.

    Returns:
      FOLDER/NAME/VERSION, which `--data=tfds:` takes.

    Raises:
      ValueError: if that exists, or on a version of another form.
    """
    tfds = _library()
    if not all(part.isdigit() for part in version.split(".")) or version.count(".") != 2:
        raise ValueError(f"the version must be three numbers such as 1.0.0, got {version!r}")
    path = folder / name / version
    if path.exists():
        raise ValueError(f"{path} exists; write another version")
    of_text = {part: ids.is_text(getattr(columns, part)) for part in ("users", "items")}

    def many(kind: Any) -> Any:
        return tfds.features.Tensor(shape=(None,), dtype=kind)

    features: dict[str, Any] = {
        "user": tfds.features.Text() if of_text["users"] else np.int64,
        "items": tfds.features.Sequence(tfds.features.Text())
        if of_text["items"]
        else many(np.int64),
    }
    if columns.times is not None:
        features["times"] = many(columns.times.dtype.type)
    if columns.ratings is not None:
        features["ratings"] = many(columns.ratings.dtype.type)

    def info(self: Any) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Interactions, a record a user, oldest first.",
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(features),
        )

    # the name of the data set is the name of its class
    title = "".join(part.capitalize() for part in name.split("_"))
    made = type(
        title,
        (tfds.core.GeneratorBasedBuilder,),
        {
            "VERSION": tfds.core.Version(version),
            "name": name,
            "_info": info,
            "_split_generators": lambda self, _: {_SPLIT: _records(columns)},
            "_generate_examples": lambda self: None,
        },
    )
    with redirect_stdout(io.StringIO()):  # what it says of downloads is of none here
        made(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return path


def read(path: Path) -> Columns:
    """The interactions of a prepared directory, all its splits together.

    Raises:
      ValueError: if it holds no array_record files of a known layout.
    """
    tfds = _library()
    try:
        builder = tfds.builder_from_directory(str(path))
    except Exception as error:  # whatever the library raises on a folder that is none of its own
        raise ValueError(
            f"{path} is no prepared TFDS directory (it holds a dataset_info.json): {error}"
        ) from None
    if str(builder.info.file_format.value) != "array_record":
        raise ValueError(
            f"{path} holds {builder.info.file_format.value} files, which need TensorFlow to be "
            "read; prepare it with file_format='array_record'"
        )
    try:
        records = [
            record
            for split in builder.info.splits
            for record in builder.as_data_source(split=split)
        ]
    except Exception as error:  # as many kinds as the library has ways to meet damage
        said = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ValueError(f"{path} holds records that cannot be read: {said}") from None
    if not records:
        raise ValueError(f"{path} holds no records")
    first = records[0]
    if "items" in first and "user" in first:
        sizes = [len(record["items"]) for record in records]
        users = _ids([record["user"] for record in records], path, "user")
        items = _ids([item for record in records for item in record["items"]], path, "item")

        def joined(key: str) -> np.ndarray | None:
            return np.concatenate([r[key] for r in records]) if key in first else None

        return Columns(np.repeat(users, sizes), items, joined("ratings"), joined("times"))
    found = {kind: _key(first, kind) for kind in NAMES}
    if found["user"] is None or found["item"] is None:
        raise ValueError(
            f"{path} has records of {', '.join(first)}; known are user and items, or user_id and "
            "item_id (movie_id)"
        )

    def column(key: str | None) -> np.ndarray | None:
        return None if key is None else np.array([_plain(record[key]) for record in records])

    user, item = ([record[found[kind]] for record in records] for kind in ("user", "item"))
    return Columns(
        _ids(user, path, "user"),
        _ids(item, path, "item"),
        column(found["rating"]),
        column(found["timestamp"]),
    )


def _ids(values: list[Any], path: Path, kind: str) -> np.ndarray:
    """Ids of records; the builders of MovieLens keep numbers as text."""
    return ids.of_values([_plain(value) for value in values], str(path), kind)


def _library() -> Any:
    import tensorflow_datasets as tfds  # late: it takes a second

    tfds.disable_progress_bar()
    return tfds


def _records(columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    order = np.arange(len(columns.users))
    if columns.times is not None:
        order = np.argsort(columns.times, kind="stable")
    users, owner = ids.unique(columns.users[order])
    by_user = order[np.argsort(owner, kind="stable")]
    bounds = np.searchsorted(np.sort(owner), np.arange(len(users) + 1))
    for number, user in enumerate(users):
        mine = by_user[bounds[number] : bounds[number + 1]]
        items = columns.items[mine]
        record: dict[str, Any] = {
            "user": str(user) if ids.is_text(users) else int(user),
            "items": items.tolist() if ids.is_text(items) else items.astype(np.int64),
        }
        if columns.times is not None:
            record["times"] = columns.times[mine]
        if columns.ratings is not None:
            record["ratings"] = columns.ratings[mine]
        yield number, record


def _plain(value: Any) -> Any:
    """Text arrives as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _key(record: dict[str, Any], kind: str) -> str | None:
    known = (*NAMES[kind], f"user_{kind}") if kind == "rating" else NAMES[kind]
    return next((key for name in known for key in record if normal(key) == name), None)
