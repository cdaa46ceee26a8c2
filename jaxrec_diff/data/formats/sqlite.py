"""Tables and queries of a SQLite database, read only."""

import difflib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxrec_diff.data.columns import Want, by_place
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats.table import Table, of_parts

PREFIX = "sqlite:"
_ROWS = 65_536
_READS = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


def read(path: Path, config: DataConfig, want: Want) -> Table:
    """The columns of `data.table`, or of what `data.query` selects.

    Raises:
      ValueError: if the file is no database, holds no such table, or the query does not only read.
    """
    try:
        where = f"file:{quote(str(path.resolve()))}?mode=ro"
        with closing(sqlite3.connect(where, uri=True)) as database:
            database.text_factory = bytes
            query = config.query or f'select * from "{_table(database, path, config)}"'
            database.set_authorizer(_only_reads)
            return _rows(database, query, path, config, want)
    except (sqlite3.Error, UnicodeError, OverflowError, MemoryError) as error:
        damaged = isinstance(error, UnicodeError)  # as its names or its own messages may be
        said = "damaged" if damaged else (str(error) or type(error).__name__).splitlines()[0]
        if config.query:
            raise ValueError(f"data.query={config.query!r} on {path} fails: {said}") from None
        raise ValueError(f"{path} is no readable SQLite database: {said}") from None


def _only_reads(action: int, *_: Any) -> int:
    return sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY


def _table(database: sqlite3.Connection, path: Path, config: DataConfig) -> str:
    found = database.execute(
        "select name from sqlite_master where type in ('table', 'view') "
        "and name not like 'sqlite_%' order by name"
    )
    names = [name.decode("utf-8", "replace") for (name,) in found]
    wanted = config.table
    if not wanted and len(names) == 1:
        return names[0].replace('"', '""')
    shown = ", ".join(names[:12]) or "none"
    if not wanted:
        raise ValueError(f"{path} holds the tables {shown}; name one with --data.table=NAME")
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, 1, 0.0)
        hint = f"; did you mean {near[0]!r}?" if near else "; it holds none"
        raise ValueError(f"{path} has no table {wanted!r}{hint}")
    return wanted.replace('"', '""')


def _rows(
    database: sqlite3.Connection, query: str, path: Path, config: DataConfig, want: Want
) -> Table:
    import pyarrow as pa

    cursor = database.execute(query)
    if cursor.description is None:
        raise ValueError(f"data.query={query!r} selects nothing; write select ...")
    names = by_place([column[0] for column in cursor.description], str(path), config)
    wanted = want(names)
    places = [names.index(name) for name in wanted]
    parts, count = [], 0
    while rows := cursor.fetchmany(_ROWS):
        part = {}
        for name, place in zip(wanted, places, strict=True):
            values = [_text(row[place], path, name, count + i) for i, row in enumerate(rows)]
            part[name] = pa.array(values, pa.string())
        parts.append(part)
        count += len(rows)
    if not parts:
        raise ValueError(
            f"{path} gives no rows for {config.query or config.table or 'its table'!r}"
        )
    order = "of the query" if config.query else "of the table"
    return Table(tuple(names), of_parts(wanted, parts), (f"rows in the order {order}",))


def _text(value: Any, path: Path, name: str, row: int) -> str | None:
    """Values as text; whole numbers become such again where every one of them is."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"{path} holds bytes in {name!r} of row {row + 1} that are no UTF-8 text"
            ) from None
    if isinstance(value, float):
        return None if value != value else repr(value)
    return None if value is None else str(value)
