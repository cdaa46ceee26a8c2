"""numpy files without pickles: .npy of rows, .npz of columns, .npz of a sparse matrix of scipy.

What a header declares is compared with the bytes there are before any array is made.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.data.columns import Want, by_place
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats.table import Table

_FREE, _RATIO = 2**26, 32  # bytes that may come of a npz, and how many of each of its own
_PICKLED = (
    "holds pickled objects, and opening a pickle runs the code in it; where you trust it, write "
    "plain arrays once: np.save(path, np.load(old, allow_pickle=True).astype(np.int64))"
)
_BROKEN = (OSError, EOFError, KeyError, ValueError, SyntaxError, TypeError, AttributeError,
           NotImplementedError, OverflowError, MemoryError, RuntimeError, IndexError,
           zlib.error, zipfile.BadZipFile, RecursionError)  # fmt: skip


def read_npy(path: Path, config: DataConfig, want: Want) -> Table:
    """Rows [N, 2] of users and items, more columns by `data.columns`, or a structured array."""
    with path.open("rb") as file:
        array = _array(file, path, path.stat().st_size)
    if array.dtype.names:
        return _table({name: array[name] for name in array.dtype.names}, path, config, want)
    if array.ndim != 2 or not 2 <= array.shape[1] <= 64:
        raise ValueError(
            f"{path} holds an array of shape {_shape(array)}; it should be [rows, 2], a user and "
            "an item a row"
        )
    width = array.shape[1]
    if width > 2 and not config.columns:
        raise ValueError(
            f"{path} holds {width} columns without names; say --data.columns=user,item,time"
        )
    names = ["user_id", "item_id"] if width == 2 else [f"_{i}" for i in range(1, width + 1)]
    columns = {name: array[:, place] for place, name in enumerate(names)}
    notes = () if config.columns else ("columns by place: user_id, item_id",)
    return _table(columns, path, config, want, notes)


def read_npz(path: Path, config: DataConfig, want: Want) -> Table:
    """One-dimensional arrays of one length by name, `history` of two, or scipy's sparse matrix."""
    arrays = members(path)
    if "indptr" in arrays or {"row", "col", "shape"} <= set(arrays):
        return _sparse(arrays, path, config, want)
    return _table(arrays, path, config, want)


def members(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, read-only; their checksums are looked at.

    Raises:
      ValueError: if it is damaged, empty or holds pickles.
    """
    arrays: dict[str, np.ndarray] = {}
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            whole = sum(entry.file_size for entry in archive.infolist())
            if whole > max(_FREE, _RATIO * size):
                raise _Refused(
                    f"{path} has {size:,} bytes and declares arrays of {whole:,}; write it "
                    "without compression if that is meant"
                )
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name in arrays:
                    raise _Refused(f"{path} has two arrays {name!r}")
                with archive.open(entry) as file:
                    arrays[name] = _array(file, path, entry.file_size)
                    if file.read(1):  # a checksum is compared at the end
                        raise _Refused(f"{path} holds more of {name!r} than it declares")
    except _Refused:
        raise
    except _BROKEN as error:
        raise ValueError(f"{path} is not a readable npz file of plain arrays") from error
    if not arrays:
        raise ValueError(f"{path} is empty")
    return arrays


class _Refused(ValueError):
    """A sentence of its own, among errors that need one."""


def _array(file: Any, path: Path, size: int) -> np.ndarray:
    """An array of `size` bytes with its header."""
    try:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, fortran, dtype = readers.get(version, readers[2, 0])(file)
        if dtype.hasobject:
            raise _Refused(f"{path} {_PICKLED}")
        count = 1
        for length in shape:
            count *= length
        if min(shape, default=0) < 0 or count * dtype.itemsize > size:
            raise _Refused(
                f"{path} declares an array of {' x '.join(map(str, shape))} and has {size:,} bytes"
            )
        data = file.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise _Refused(f"{path} is cut short")
        flat = np.frombuffer(data, dtype, count)
        return flat.reshape(shape, order="F" if fortran else "C")
    except _Refused:
        raise
    except _BROKEN as error:
        raise ValueError(f"{path} is not a readable numpy file of plain arrays") from error


def _shape(array: np.ndarray) -> str:
    return f"[{', '.join(map(str, array.shape))}]"


def _table(
    arrays: dict[str, np.ndarray],
    path: Path,
    config: DataConfig,
    want: Want,
    notes: Sequence[str] = (),
) -> Table:
    names = by_place(list(arrays), str(path), config)
    named = dict(zip(names, arrays.values(), strict=True))
    wanted = want(names)
    for name in wanted:
        if named[name].ndim != (2 if name == "history" and named[name].ndim == 2 else 1):
            raise ValueError(
                f"{path} holds {name!r} of shape {_shape(named[name])}; it should be a row of "
                "values"
            )
    lengths = {name: len(named[name]) for name in wanted}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{path} holds columns of several lengths: {each}")
    columns = {name: to_arrow(named[name], str(path), name) for name in wanted}
    return Table(tuple(names), columns, tuple(notes))


def to_arrow(array: np.ndarray, where: str, name: str) -> Any:
    """A plain numpy array as an arrow array; two dimensions as lists.

    Raises:
      ValueError: on a type that holds neither numbers, text nor times.
    """
    import pyarrow as pa

    if array.ndim == 2:
        flat = to_arrow(np.ascontiguousarray(array).reshape(-1), where, name)
        ends = np.arange(len(array) + 1, dtype=np.int64) * array.shape[1]
        return pa.LargeListArray.from_arrays(pa.array(ends), flat)
    kind = array.dtype
    try:
        if kind.kind in "biu" or kind.kind == "f" and kind.itemsize in (4, 8):
            return pa.array(np.ascontiguousarray(array.astype(kind.newbyteorder("="))))
        if kind.kind == "f":
            return pa.array(array.astype(np.float32 if kind.itemsize == 2 else np.float64))
        if kind.kind == "U":
            return pa.array(array.tolist(), pa.large_string())
        if kind.kind == "S":
            return pa.array(array.tolist(), pa.large_binary())
        if kind.kind == "M":
            unit = np.datetime_data(kind)[0]
            fine = unit if unit in ("s", "ms", "us", "ns") else "s"
            return pa.array(array.astype(f"datetime64[{fine}]"))
    except (pa.ArrowException, UnicodeError, *_BROKEN):
        raise ValueError(f"{where} holds {name!r} of damaged {kind}") from None
    raise ValueError(f"{where} holds {name!r} of type {kind}; it should be numbers, text or times")


def _sparse(arrays: dict[str, np.ndarray], path: Path, config: DataConfig, want: Want) -> Table:
    """The stored values of a matrix of users by items that are not zero, row by row."""
    shape = [int(n) for n in arrays.get("shape", np.zeros(0, int)).reshape(-1)]
    form = arrays.get("format", np.array("csr"))
    kind = form.item() if form.ndim == 0 else ""
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    if kind not in ("csr", "csc", "coo") or len(shape) != 2:
        raise ValueError(f"{path} is no sparse matrix of scipy in the form csr, csc or coo")
    parts = ("row", "col") if kind == "coo" else ("indices", "indptr")
    data = arrays.get("data", np.zeros(0))
    if any(name not in arrays or arrays[name].dtype.kind not in "iu" for name in parts):
        raise ValueError(f"{path} lacks the {' and '.join(parts)} of a sparse matrix")
    if kind == "coo":
        users, items = (arrays[name].reshape(-1).astype(np.int64) for name in parts)
    else:
        inner, bounds = (arrays[name].reshape(-1).astype(np.int64) for name in parts)
        major = shape[0] if kind == "csr" else shape[1]
        sizes = np.diff(bounds)
        whole = len(bounds) == major + 1 and len(bounds) and bounds[0] == 0
        if not whole or (sizes < 0).any() or bounds[-1] != len(inner):
            raise ValueError(f"{path} holds an indptr that does not fit its indices")
        outer = np.repeat(np.arange(major), sizes)
        users, items = (outer, inner) if kind == "csr" else (inner, outer)
    for name, ids, most in (("row", users, shape[0]), ("column", items, shape[1])):
        if len(ids) and not 0 <= ids.min() <= ids.max() < most:
            raise ValueError(f"{path} has a {name} outside its shape {shape[0]} x {shape[1]}")
    if data.ndim != 1 or len(data) != len(users) or data.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {len(data.reshape(-1))} values for {len(users)} places")
    kept = data != 0
    columns = {"user_id": users[kept], "item_id": items[kept]}
    if len(np.unique(data[kept])) > 1:
        columns["rating"] = data[kept]
    note = f"sparse matrix of {shape[0]} users x {shape[1]} items; ids are rows and columns"
    return _table(columns, path, config, want, [note])
