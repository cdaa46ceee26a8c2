"""Files of interactions as tables of columns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".dat", ".inter", ".parquet", ".npz")


def read_table(path: Path) -> dict[str, Any]:
    """Column name -> array of a file, masked where it has no value; lists stay arrow arrays."""
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], dict[str, Any]]] = {
        ".parquet": _parquet,
        ".npz": _npz,
        ".dat": _double_colon,
    }
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} has the ending {suffix!r}; readable are {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    table = readers.get(suffix, _delimited)(path)
    if not table or not len(next(iter(table.values()))):
        raise ValueError(f"{path} has a header and no rows")
    return table


def _parquet(path: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a readable parquet file") from error
    return {
        name: column.combine_chunks()
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        else _numpy(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _numpy(column: Any) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if not column.null_count:
        return column.to_numpy()
    # arrow would make floats of whole numbers, and lose digits of long ids
    known = column.drop_null().to_numpy()
    absent = column.is_null().to_numpy()
    values = np.zeros(len(absent), known.dtype)
    values[~absent] = known
    return np.ma.MaskedArray(values, absent)


def _npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable npz file of plain arrays") from error


def _double_colon(path: Path) -> dict[str, Any]:
    """MovieLens' `user::item::rating::timestamp`, without a header."""
    with path.open(errors="replace") as file:
        first = file.readline()
    if "::" not in first:
        return _delimited(path)
    width = first.count("::") + 1
    names = ["user_id", "item_id", "rating", "timestamp"][:width]
    if width < 2:
        raise ValueError(
            f"{path} has lines of {width} field; needed are user::item[::rating[::time]]"
        )
    spread = [part for name in names for part in (name, f"_{name}")][:-1]
    table = _csv(path, ":", spread)
    return {name: table[name] for name in names}


def _delimited(path: Path) -> dict[str, Any]:
    """csv, tsv, RecBole's .inter and MovieLens' u.data; the separator is what the header holds."""
    with path.open(errors="replace") as file:
        first = file.readline().rstrip("\r\n")
    separator = max("\t,;| ", key=first.count)
    if not first.count(separator):
        raise ValueError(f"{path} has one column, {first[:40]!r}; needed are a user and an item")
    fields = [name.strip() for name in first.split(separator)]
    if all(_is_number(name) for name in fields):
        names = ["user_id", "item_id", "rating", "timestamp"][: len(fields)]
        names += [f"_{i}" for i in range(len(names), len(fields))]
        return _csv(path, separator, names)
    return _csv(path, separator, None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _csv(path: Path, separator: str, names: list[str] | None) -> dict[str, Any]:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(column_names=names),
            parse_options=csv.ParseOptions(delimiter=separator),
            # nothing, NA, null and nan are no value, in a column of text as in one of numbers
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable table: {str(error).splitlines()[0]}") from error
    # RecBole writes `user_id:token`
    return {
        name.split(":")[0]: _numpy(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
