"""Rows that lack a value: which they are, and how many a table may have."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats.table import Table


def missing(
    table: Table, needed: Iterable[str], where: str, config: DataConfig
) -> tuple[np.ndarray, dict[str, Any]]:
    """Rows that lack one of the columns.

    Raises:
      ValueError: if they are too many.
    """
    lacking = {name: lacks(table.columns[name]) for name in needed}
    rows = np.any(list(lacking.values()), axis=0)
    for name, absent in lacking.items():
        if absent.all():
            raise ValueError(f"column {name!r} of {where} holds no value in any of its rows")
    counts = {name: int(absent.sum()) for name, absent in lacking.items() if absent.any()}
    share = float(rows.mean())
    if share > config.max_missing:
        each = ", ".join(f"{name!r} in {count:,}" for name, count in counts.items())
        raise ValueError(
            f"{where} lacks a value in {share:.1%} of its {len(rows):,} rows ({each}) and "
            f"data.max-missing allows {config.max_missing:.1%}"
        )
    return rows, {"rows": len(rows), "left_out": int(rows.sum()), "by_column": counts}


def lacks(column: Any) -> np.ndarray:
    """Where an arrow column has no value: none at all, not a number, or blanks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return np.ones(len(column), bool)
    found = pc.is_null(column)
    if pa.types.is_floating(kind):
        found = pc.is_null(column, nan_is_null=True)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        blank = pc.fill_null(pc.match_substring_regex(column, r"^[\s\p{Z}]*$"), False)
        found = pc.or_(found, blank)
    return np.asarray(found)
