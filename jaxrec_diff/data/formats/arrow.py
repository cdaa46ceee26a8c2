"""Parquet, Feather and Arrow files, and folders of parquet parts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from jaxrec_diff.data.columns import Want, by_place
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats.table import Table

_MOST_ROWS = 2**31 - 1  # places of rows are 32 bits wide


def read_parquet(path: Path, config: DataConfig, want: Want) -> Table:
    return read_parts([path], path, config, want)


def read_parts(paths: Sequence[Path], root: Path, config: DataConfig, want: Want) -> Table:
    """Parquet files that are one table, in the order of their names.

    A folder `key=value` above a part is a column of its rows.
    """
    first = _names(paths[0], root)
    names = by_place(first, str(paths[0]), config)
    wanted = want(names)
    stored = [first[names.index(name)] for name in wanted]
    tables = [_stored(path, root, stored) for path in paths]
    columns = {
        name: _joined([table.column(place) for table in tables], name, root)
        for place, name in enumerate(wanted)
    }
    notes = (f"{len(paths)} parts, in the order of their names",) if len(paths) > 1 else ()
    return Table(tuple(names), columns, notes)


def _names(path: Path, root: Path) -> list[str]:
    """Of the columns of a part, those of its folders last."""
    own = list(parquet_file(path).schema_arrow.names)
    return [*own, *(key for key in _hive(path, root) if key not in own)]


def _stored(path: Path, root: Path, names: Sequence[str]) -> Any:
    """Some columns of a part.

    Raises:
      ValueError: if it lacks one, or is damaged.
    """
    import pyarrow as pa

    file, hive = parquet_file(path), _hive(path, root)
    own, rows = set(file.schema_arrow.names), file.metadata.num_rows
    for name in names:
        if name not in own and name not in hive:
            raise ValueError(f"{path} has no column {name!r}, which the parts before it have")
    if rows > _MOST_ROWS:
        raise ValueError(f"{path} declares {rows:,} rows; at most {_MOST_ROWS:,} can be read")
    table = guarded(path, "parquet", lambda: file.read([n for n in names if n in own]))
    for key in names:
        if key not in own:
            table = table.append_column(key, pa.array([hive[key]] * rows, pa.string()))
    return table.select(list(names))


def read_feather(path: Path, config: DataConfig, want: Want) -> Table:
    """A file or a stream of arrow record batches; Feather is one."""
    import pyarrow as pa
    from pyarrow import feather, ipc

    def whole() -> Any:
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith(b"ARROW1"):
            with pa.OSFile(str(path)) as source:
                return ipc.open_file(source).read_all()
        if head.startswith(b"FEA1"):
            return feather.read_table(path, memory_map=False)
        with pa.OSFile(str(path)) as source:
            return ipc.open_stream(source).read_all()

    table = guarded(path, "arrow", whole)
    names = by_place(table.column_names, str(path), config)
    wanted = want(names)
    table = table.rename_columns(names)
    return Table(tuple(names), {name: table.column(name) for name in wanted})


def parquet_file(path: Path) -> Any:
    """An opened parquet file; `guarded` is for what is read from it.

    Raises:
      ValueError: if it is none.
    """
    import pyarrow.parquet as pq

    return guarded(path, "parquet", lambda: pq.ParquetFile(path, page_checksum_verification=True))


def guarded(path: Path, kind: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, checked in full if it is a table or a batch.

    Raises:
      ValueError: in one sentence, whatever `make` raises.
    """
    import pyarrow as pa

    try:
        made = make()
        if isinstance(made, pa.Table | pa.RecordBatch):
            made.validate(full=True)
        return made
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError,
            MemoryError, OverflowError, RuntimeError) as error:  # fmt: skip
        raise ValueError(f"{path} is not a readable {kind} file") from error


def _hive(path: Path, root: Path) -> dict[str, str]:
    if path == root:
        return {}
    folders = path.relative_to(root).parent.parts
    pairs = [unquote(part).partition("=") for part in folders if "=" in part]
    return {key: value for key, _, value in pairs if value != "__HIVE_DEFAULT_PARTITION__"}


def _joined(columns: list[Any], name: str, root: Path) -> Any:
    """Columns of several parts as one, so that what is one id in two parts stays one.

    Raises:
      ValueError: on floats beside text, or beside integers that no float can hold.
    """
    import pyarrow as pa

    if len({column.type for column in columns}) > 1:
        columns = [_plain(column) for column in columns]
    kinds = {column.type for column in columns}
    if len(kinds) > 1:
        schemas = [pa.schema([("x", kind)]) for kind in kinds]
        try:
            kind = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
            columns = [column.cast(kind) for column in columns]
        except pa.ArrowException:
            if any(pa.types.is_floating(kind) for kind in kinds):
                shown = " and ".join(sorted(map(str, kinds)))
                raise ValueError(
                    f"parts of {root} hold {name!r} as {shown}; write it as one type"
                ) from None
            columns = [column.cast(pa.large_string()) for column in columns]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pa.chunked_array(chunks, columns[0].type)


def _plain(column: Any) -> Any:
    """A column without its dictionary; floats that are whole numbers, to the digit, as such."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type) and not (
        pc.any(pc.greater_equal(pc.abs(column), 2.0**53)).as_py()
    ):
        try:
            return column.cast(pa.int64())
        except pa.ArrowException:
            return column
    return column
