"""Vectors of items, given with the data: read, laid beside the items, centred, scaled or whitened.

A parquet file has a column of ids and one of lists, or a numeric column a coordinate; row r of a
npy file is the vector of the item whose id is r. Statistics are those of the data set's items, so
that vectors of others in the file change nothing.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxrec_diff.data import card as data_card
from jaxrec_diff.data import columns, ids
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.formats import arrow

HASH = "features_hash"
"""What the card calls the digest of the vectors."""
# Directions of less variance than this share of the largest hold rounding, which whitening would
# blow up: fewer items than coordinates leave many.
_LEAST_SHARE = 1e-6
_FLOOR = 1e-7  # added to variances, as the released code does


class Scaling(NamedTuple):
    """An affine map of vectors: (x - mean) basis."""

    mean: np.ndarray  # f32[F]
    basis: np.ndarray  # f32[F, R], or f32[] a factor

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """f32[N, F] -> f32[N, R]"""
        centred = vectors.astype(np.float32) - self.mean
        return centred * self.basis if self.basis.ndim == 0 else centred @ self.basis


class ItemVectors(NamedTuple):
    """The vectors of a data set's items as models are given them."""

    rows: np.ndarray  # f32[I, R]; row j is item j + 1
    scaling: Scaling  # how they were made of those in the file; new ones are made alike


def attach(dataset: Dataset, config: DataConfig) -> Dataset:
    """A data set with the vectors of the file that the settings name, and their digest on its card.

    Raises:
      ValueError: if the file cannot be read, lacks an item, or holds what is no number.
    """
    if not config.item_features:
        return dataset
    path = Path(config.item_features).expanduser()
    given, vectors = read(path, config)
    place = ids.places(*alike(given, dataset.item_ids))
    missing = np.flatnonzero(place < 0)
    if len(missing):
        raise ValueError(
            f"{path} has no vector of {len(missing):,} of the {dataset.num_items:,} items of "
            f"{dataset.name}, such as {_named(dataset.item_ids, missing[0])}; every item needs one"
        )
    own = _numbers(vectors[place], dataset.item_ids, path)
    scaling = fit(own, config.item_features_scaling)
    about = {
        "file": config.item_features,
        "width": own.shape[1],
        "scaling": config.item_features_scaling,
        "other_items": len(given) - dataset.num_items,
    }
    card = dataset.card | {"item_features": about, HASH: data_card.digest([own])}
    return dataset._replace(item_vectors=ItemVectors(scaling.apply(own), scaling), card=card)


def others(path: Path, config: DataConfig, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids and vectors f32[N, F] of a file's items that are not among some ids.

    A row of zeros of a npy file is no item, nor is its first one where ids are from 1 on.

    Raises:
      ValueError: if the file cannot be read, or holds no such item.
    """
    given, vectors = read(path, config)
    theirs, ours = alike(given, known)
    new = ids.places(ours, theirs) < 0
    if path.suffix.lower() == ".npy":  # it has rows of ids that are nobody's
        new &= vectors.any(axis=1)
        if not ids.is_text(known) and known.min() > 0:
            new &= given > 0
    if not new.any():
        raise ValueError(f"{path} holds vectors of known items only; there is nothing new in it")
    found = given[new] if ids.is_text(given) == ids.is_text(known) else theirs[new]
    return found, _numbers(vectors[new], found, path)


def fit(vectors: np.ndarray, scaling: Literal["centre", "scale", "whiten"]) -> Scaling:
    """The map that a kind of scaling is for some vectors, f32[N, F].

    centre: x - mean; scale: that, by one factor, so that coordinates have a mean square of 1;
    whiten: rotated to the directions of most variance first and divided by sqrt(variance + 1e-7),
    so that coordinates are uncorrelated and of variance 1. Directions of less than 1e-6 of the
    largest variance are left out.

    Raises:
      ValueError: if all vectors are the same.
    """
    exact = vectors.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean
    square = float(np.mean(np.square(centred)))
    if not square > 0:
        raise ValueError("the vectors of all items are the same, and say nothing of them")
    if scaling == "whiten":
        variance, directions = np.linalg.eigh(centred.T @ centred / len(centred))
        variance, directions = variance[::-1], directions[:, ::-1]
        kept = variance > _LEAST_SHARE * variance[0]
        basis = directions[:, kept] / np.sqrt(variance[kept] + _FLOOR)
    else:
        basis = np.array(1.0 if scaling == "centre" else square**-0.5)
    return Scaling(mean.astype(np.float32), basis.astype(np.float32))


def rows_for(rows: np.ndarray, config: DataConfig, width: int, deviation: float) -> np.ndarray:
    """Rows for a table `width` wide whose initial rows have a deviation, of `ItemVectors.rows`.

    Whitened vectors that are wider are cut to their leading directions. What has coordinates of
    about 1 gets the model's deviation; centred vectors keep their own length.

    Raises:
      ValueError: where the widths do not fit, naming one that does.
    """
    have, scaling = rows.shape[1], config.item_features_scaling
    if have < width or (have > width and scaling != "whiten"):
        wider = ", or take data.item-features-scaling=whiten" if have > width else ""
        what = "independent directions" if scaling == "whiten" else "coordinates"
        raise ValueError(
            f"the vectors of {config.item_features} have {have} {what} and model.width is {width}; "
            f"take model.width={have}{wider}"
        )
    return rows[:, :width] * np.float32(1.0 if scaling == "centre" else deviation)


def read(path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """Ids, each once, and a vector of each, [N, F] of numbers as the file has them.

    Raises:
      ValueError: in one sentence that names the file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file; name a .npy or .parquet file of vectors of items")
    readers = {".npy": _read_npy, ".parquet": _read_parquet, ".pq": _read_parquet}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{path} should hold vectors of items and end in {', '.join(readers)}, not "
            f"{path.suffix!r}"
        )
    given, vectors = readers[path.suffix.lower()](path, config)
    if not vectors.size:
        raise ValueError(f"{path} holds no vectors")
    every, place = ids.unique(given)
    if len(every) < len(given):
        twice = _named(every, int(np.argmax(np.bincount(place) > 1)))
        raise ValueError(f"{path} has two vectors of item {twice}; keep one")
    return given, vectors


def alike(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids of two sources, as text where one of them is."""
    if ids.is_text(one) == ids.is_text(other):
        return one, other
    spelled = (np.array([*map(str, each.tolist()), None], object)[:-1] for each in (one, other))
    first, second = spelled
    return first, second


def _read_npy(path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    del config
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # most rows may be of no item
    except (OSError, ValueError, EOFError):
        raise ValueError(f"{path} is not a readable npy file of plain numbers") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        shape = getattr(array, "shape", "several arrays")
        raise ValueError(
            f"{path} holds {shape} of {getattr(array, 'dtype', 'arrays')}; it should be numbers "
            "[rows, width], row r the vector of the item with id r"
        )
    return np.arange(len(array)), array


def _read_parquet(path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa

    file = arrow.parquet_file(path)
    table = arrow.guarded(path, "parquet", file.read).combine_chunks()
    names = table.column_names
    spelled = {columns.normal(name): name for name in reversed(names)}
    usual = (spelled[each] for each in (*columns.NAMES["item"], "id") if each in spelled)
    item = config.item if config.item in names else next(usual, None)
    if item is None:
        raise ValueError(
            f"{path} has no column of item ids: found {', '.join(map(repr, names[:12]))}, expected "
            "item_id"
        )
    if table.column(item).null_count:
        raise ValueError(f"{path} has rows without an item id; leave them out")
    given = ids.settle([ids.code(table.column(item), str(path), "item")])[0]
    lists, numbers = [], []
    for name in names:
        kind = table.schema.field(name).type
        if name == item:
            continue
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lists.append(name)
        elif pa.types.is_fixed_size_list(kind):
            lists.append(name)
        elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
            numbers.append(name)
    if len(lists) == 1:
        return given, _of_lists(table.column(lists[0]), path, lists[0], given)
    if lists or not numbers:
        found = f"{len(lists)} columns of lists" if lists else "no numbers beside its ids"
        raise ValueError(f"{path} has {found}; one column of lists, or a number a column, is read")
    parts = [table.column(name).to_numpy() for name in numbers]
    return given, np.stack(parts, axis=1)


def _of_lists(column: Any, path: Path, name: str, given: np.ndarray) -> np.ndarray:
    """[N, F] from an arrow column of lists of one length."""
    import pyarrow as pa
    import pyarrow.compute as pc

    length = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    other = np.flatnonzero(length != length[:1].max(initial=0))
    if len(other):
        raise ValueError(
            f"{path} has {name} of {length[0]} numbers for item {_named(given, 0)} and of "
            f"{length[other[0]]} for {_named(given, other[0])}; all vectors are of one width"
        )
    flat = pc.list_flatten(column)
    if not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
        raise ValueError(f"{path} has {name} of type {flat.type}; vectors are of numbers")
    values = flat.to_numpy()
    return values.reshape(len(length), -1) if len(length) else np.zeros((0, 0), np.float32)


def _numbers(vectors: np.ndarray, of: np.ndarray, path: Path) -> np.ndarray:
    """Vectors as f32[N, F]; what float32 cannot hold is refused as what is no number is."""
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32)
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        bad = int(np.argmin(good))
        value = vectors[bad][~np.isfinite(vectors[bad])][0]
        raise ValueError(
            f"{path} holds {value} in the vector of item {_named(of, bad)}; vectors are of finite "
            "numbers"
        )
    return vectors


def _named(of: np.ndarray, at: int) -> str:
    """An id as a person writes it in Python."""
    return repr(of[at : at + 1].tolist()[0])
