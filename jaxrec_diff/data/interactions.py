"""A table of interactions as raw columns: whole rows, ids, ratings and times."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.data import columns as data_columns
from jaxrec_diff.data import given, ids, missing, times
from jaxrec_diff.data.columns import Roles
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats.table import Table


class Raw(NamedTuple):
    """A table of interactions before the type of its ids is settled."""

    users: ids.Coded
    items: ids.Coded
    rest: tuple[np.ndarray | None, ...]  # ratings, times, generated
    missing: dict[str, Any]
    unused: tuple[str, ...]
    notes: tuple[str, ...]


def raw(table: Table, where: str, config: DataConfig) -> Raw:
    """The rows of a table that have all they need."""
    import pyarrow as pa

    found = data_columns.roles(table.names, where, config)
    table = _exploded(table, found, where)
    needed = [found.user, found.item, *([found.timestamp] if found.timestamp else [])]
    if config.min_rating is not None and found.rating is not None:
        needed.append(found.rating)
    absent, counted = missing.missing(table, needed, where, config)
    rows = np.flatnonzero(~absent)
    kept = pa.array(~absent)

    def part(name: str) -> Any:
        column = table.columns[name]
        return column.filter(kept) if absent.any() else column

    def at(row: int) -> str:
        return f"{ids.by_row(int(rows[row]))}{table.line(int(rows[row]))}"

    ratings, note = _ratings(part, found, where, config, at)
    time = found.timestamp
    rest = (
        ratings,
        None if time is None else times.numbers(part(time), where, time, at),
        _flags(part(found.generated)) if found.generated else None,
    )
    return Raw(
        ids.code(part(found.user), where, "user", at),
        ids.code(part(found.item), where, "item", at),
        rest,
        counted,
        tuple(name for name in table.names if name not in found.taken()),
        (*table.notes, data_columns.words(found, config), *note),
    )


def _exploded(table: Table, found: Roles, where: str) -> Table:
    """A row an item where a row holds a list of items."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.columns[found.item]
    if not given.is_list(column.type):
        return table
    lists = given.as_lists(column)
    sizes = pc.fill_null(pc.list_value_length(lists), 0)
    owner = pa.array(np.repeat(np.arange(len(lists)), np.asarray(sizes)))
    columns = {}
    for name, one in table.columns.items():
        if not given.is_list(one.type):
            columns[name] = one.take(owner)
            continue
        one = given.as_lists(one)
        if not pc.fill_null(pc.list_value_length(one), 0).equals(sizes):
            raise ValueError(
                f"{where} holds lists of several lengths in {found.item!r} and {name!r}"
            )
        columns[name] = one.flatten()
    note = f"a row an item of each list in {found.item!r}"
    return table._replace(columns=columns, notes=(*table.notes, note))


def _ratings(
    part: Callable[[str], Any],
    found: Roles,
    where: str,
    config: DataConfig,
    at: ids.At,
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Ratings, nan where a row has none; nothing if nobody asked for what cannot be read."""
    import pyarrow as pa

    if found.rating is None:
        return None, ()
    column = part(found.rating)
    without = missing.lacks(column)
    try:
        there = column.filter(pa.array(~without)) if without.any() else column
        given_rows = np.flatnonzero(~without)
        values = times.numbers(
            there, where, found.rating, lambda row: at(int(given_rows[row])), dates=False
        )
    except ValueError as error:
        if config.min_rating is not None:
            raise
        said = str(error).removeprefix(f"column {found.rating!r} of {where} ")
        return None, (f"ratings {found.rating!r} are left alone: the column {said}",)
    if not without.any():
        return values, ()
    out = np.full(len(without), np.nan)
    out[~without] = values
    return out, ()


def _flags(column: Any) -> np.ndarray:
    """Which rows are generated: 1 or true."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_lower(column.cast(pa.string()))
    return np.asarray(pc.fill_null(pc.is_in(text, pa.array(["1", "true", "1.0"])), False))
