"""Tables in memory, of whatever library, as arrow tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def as_table(given: Any) -> Any:
    """An arrow table of plain columns.

    Raises:
      ValueError: if what was given has no columns, or columns of several lengths.
    """
    import pyarrow as pa

    if not hasattr(given, "__arrow_c_stream__") and callable(getattr(given, "collect", None)):
        given = given.collect()  # a LazyFrame
    if isinstance(given, pa.Table) or hasattr(given, "__arrow_c_stream__"):
        try:
            table = pa.table(given)
        except (pa.ArrowException, TypeError, ValueError):  # a column, not a table
            raise _no_table(given) from None
    else:
        if isinstance(given, Mapping):
            names = list(given)
        elif isinstance(given, np.ndarray):
            names = list(given.dtype.names or ())
        else:
            names = list(getattr(given, "columns", ()))
        if not names:
            raise _no_table(given)
        lists = {name: given[name] for name in names}
        columns = {name: _flat(values) for name, values in lists.items()}
        if len({len(column) for column in columns.values()}) > 1 or any(
            np.ndim(column) != 1 for column in columns.values()
        ):
            shapes = ", ".join(f"{n} {np.shape(c)}" for n, c in columns.items())
            raise ValueError(f"columns of interactions must be of one length, got {shapes}")
        table = pa.table({str(name): _arrow(str(name), c) for name, c in columns.items()})
    kept = [name for name in table.column_names if not name.startswith("__index_level_")]
    plain = table.select(kept).replace_schema_metadata(None)
    for place, column in enumerate(plain.columns):
        if pa.types.is_dictionary(column.type):
            decoded = column.cast(column.type.value_type)
            plain = plain.set_column(place, plain.column_names[place], decoded)
    return plain


def _no_table(given: Any) -> ValueError:
    return ValueError(
        f"interactions of type {type(given).__name__} have no named columns; give a file's "
        "path, a DataFrame, or a mapping such as {'user_id': [...], 'item_id': [...]}"
    )


def _flat(values: Any) -> Any:
    """A column as an array; a list of text and numbers keeps each as it is."""
    if isinstance(values, list | tuple):
        out = np.empty(len(values), object)
        for place, value in enumerate(values):
            out[place] = value
        return out
    return np.asarray(values)


def _arrow(name: str, column: Any) -> Any:
    """A column for arrow; text beside whole numbers makes all of it text.

    Raises:
      ValueError: if it holds anything else that is mixed.
    """
    import pyarrow as pa

    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass
    known = (str, int, np.integer)
    missing = [value is None or value != value for value in column]
    for value, absent in zip(column, missing, strict=True):
        if not absent and (not isinstance(value, known) or isinstance(value, bool)):
            raise ValueError(
                f"column {name!r} of the interactions mixes types: {value!r} is a "
                f"{type(value).__name__} beside text or numbers; make it one type"
            )
    words = [None if gone else str(v) for v, gone in zip(column, missing, strict=True)]
    return pa.array(words, pa.string())
