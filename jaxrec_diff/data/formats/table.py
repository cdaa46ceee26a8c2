"""What every reader gives: the columns that were asked for, as arrow holds them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


def nowhere(row: int) -> str:
    """Where a row of a file without lines stands."""
    return ""


class Table(NamedTuple):
    """Some columns of a file."""

    names: tuple[str, ...]  # of all its columns
    columns: dict[str, Any]  # arrow arrays of those that were asked for, of one length
    notes: tuple[str, ...] = ()  # what was guessed, a line each
    line: Callable[[int], str] = nowhere  # row -> " (line 4)"


def of_parts(names: Sequence[str], parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Columns of a table that was read a piece at a time; text is held in large arrays."""
    import pyarrow as pa

    return {
        name: pa.chunked_array([part[name] for part in parts], parts[0][name].type)
        for name in names
        if parts
    }
