"""Files of histories in, files of lists out, a piece at a time.

Histories are read from

    .jsonl            a line each: [id, ...], or {"user": name, "history": [id, ...]}
    .parquet          a column `history` of lists, and `user` if there is one
    .csv, .tsv        a column `history` of ids between spaces, and `user` if there is one
    .txt              a line each, ids between spaces, tabs or commas

(the texts compressed, too: .jsonl.gz) and from any other table with a user and an item column (a
row an interaction), which is read whole because its rows have to be put in order. Lists are written
as .parquet and .jsonl, a row a user, or .csv, a row an item.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.data import columns as data_columns
from jaxrec_diff.data import decode, given, ids, sources, tables
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats import arrow, cells, delimited, json_objects, layout
from jaxrec_diff.data.missing import lacks
from jaxrec_diff.ops import files

_ROWS = 8192
_BETWEEN = re.compile(r"[ \t,]+")
OUTPUTS = (".parquet", ".csv", ".jsonl")


class Raw(NamedTuple):
    """Some histories in raw ids."""

    names: Any  # arrow array [N]
    ids: Any  # arrow array, one history after the other
    offsets: np.ndarray  # i64[N + 1]
    left_out: int = 0  # rows of a table that lack a user, an item or a time; said once a file


def read_histories(path: Path, config: DataConfig) -> Iterator[Raw]:
    """The histories of a file, in its order.

    Raises:
      ValueError: in one sentence, if the file is none of the above.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; name a file of histories")
    suffix = decode.suffix(path)
    if suffix in (".jsonl", ".json", ".ndjson"):
        return _json_lines(path)
    if suffix == ".txt":
        return _text(path)
    if suffix == ".parquet":
        return _parquet(path, config)
    if suffix in (".csv", ".tsv"):
        return _delimited(path, config)
    return _interactions(path, config)


def read_users(path: Path, config: DataConfig) -> Any:
    """An arrow array of raw user ids: a column of a table, or the lines of a text.

    Raises:
      ValueError: if the table has no column of users.
    """
    import pyarrow as pa

    if not path.is_file():
        raise ValueError(f"{path} does not exist; name a file of users, an id a line")
    ending = decode.suffix(path)
    if ending not in tables.FORMATS or tables.FORMATS[ending] is delimited.read:
        names = _one_a_line(path)
        if names is not None:
            return names

    def want(names: Sequence[str]) -> list[str]:
        found = data_columns.find(names, str(path), "user", config.user)
        if found is None:
            shown = ", ".join(map(repr, names))
            raise ValueError(f"{path} has no user column: found {shown}")
        return [found]

    (users,) = tables.read_table(path, config, want).columns.values()
    users = users.filter(pa.array(~lacks(users)))
    return ids.to_arrow(ids.settle([ids.code(users, str(path), "user")])[0])


def _one_a_line(path: Path) -> Any | None:
    """The ids of a text of one column; None if it has several."""
    import pyarrow as pa

    found = decode.encoding(path)
    lines = [line.strip(" \t") for line in decode.lines(path, found) if line.strip()]
    if lines and any(mark in lines[0] for mark in "\t,;|"):
        return None
    if lines and data_columns.normal(lines[0]) in data_columns.NAMES["user"]:
        lines = lines[1:]
    return pa.array(lines, pa.string())


def count_rows(path: Path) -> int | None:
    """How many histories a file has, where its format says so."""
    if path.suffix.lower() != ".parquet":
        return None
    return arrow.parquet_file(path).metadata.num_rows


@contextmanager
def writer(
    path: Path, item_ids: Any, titles: Any = None, *, csv_escape: bool = True
) -> Iterator[Callable[[Any], None]]:
    """Gives a function that appends `Lists` to a file, which gets its name when it is whole.

    Args:
      path: .parquet, .csv or .jsonl.
      item_ids: arrow array, raw id of item j + 1.
      titles: arrow array of text likewise, if it shall stand beside them.
      csv_escape: no text of a csv is a spreadsheet's formula (`cells`).

    Raises:
      ValueError: on another ending.
    """
    suffix = path.suffix.lower()
    if suffix not in OUTPUTS:
        raise ValueError(f"{path} ends in {suffix!r}; --output can be {', '.join(OUTPUTS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    ways: dict[str, Callable[..., Any]] = {
        ".parquet": _parquet_writer,
        ".csv": functools.partial(_csv_writer, escape=csv_escape),
        ".jsonl": _json_writer,
    }
    with files.replacing(path) as partial, ways[suffix](partial, item_ids, titles) as write:
        yield write


@contextmanager
def _parquet_writer(path: Path, item_ids: Any, titles: Any):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = None

    def write(lists: Any) -> None:
        nonlocal file
        real = lists.items > 0
        offsets = pa.array(np.append(0, np.cumsum(real.sum(axis=1))).astype(np.int32))
        place = pa.array(lists.items[real] - 1)
        columns = {
            "user": lists.names,
            "items": pa.ListArray.from_arrays(offsets, item_ids.take(place)),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(lists.scores[real])),
            "fallback": pa.array(lists.fallback),
            "unknown_ids": pa.array(lists.unknown),
        }
        if lists.spread is not None:
            columns["spread"] = pa.array(lists.spread)
        if titles is not None:
            columns["titles"] = pa.ListArray.from_arrays(offsets, titles.take(place))
        table = pa.table(columns)
        if file is None:
            file = pq.ParquetWriter(path, table.schema, compression="zstd")
        file.write_table(table.cast(file.schema) if table.schema != file.schema else table)

    try:
        yield write
    finally:
        if file is None:
            pq.write_table(pa.table({"user": pa.array([], pa.string())}), path)
        else:
            file.close()


@contextmanager
def _csv_writer(path: Path, item_ids: Any, titles: Any, escape: bool):
    import pyarrow as pa

    with cells.writer(path, escape=escape) as append:

        def write(lists: Any) -> None:
            row, place = np.nonzero(lists.items > 0)
            columns = {
                "user": lists.names.take(pa.array(row)),
                "rank": pa.array(place + 1),
                "item": item_ids.take(pa.array(lists.items[row, place] - 1)),
                "score": pa.array(lists.scores[row, place]),
                "fallback": pa.array(lists.fallback[row]),
            }
            if lists.spread is not None:
                columns["spread"] = pa.array(lists.spread[row])
            if titles is not None:
                columns["title"] = titles.take(pa.array(lists.items[row, place] - 1))
            append(pa.table(columns))

        yield write


@contextmanager
def _json_writer(path: Path, item_ids: Any, titles: Any):
    with path.open("w", encoding="utf-8") as file:
        yield lambda lists: file.writelines(
            line + "\n" for line in json_lines(lists, item_ids, titles)
        )


def json_lines(lists: Any, item_ids: Any, titles: Any = None) -> Iterator[str]:
    """A json line a user."""
    ids, names = item_ids.to_pylist(), lists.names.to_pylist()
    texts = None if titles is None else titles.to_pylist()
    for row, name in enumerate(names):
        real = lists.items[row] > 0
        entry = {
            "user": name,
            "items": [ids[item - 1] for item in lists.items[row][real]],
            "scores": [float(f"{score:.7g}") for score in lists.scores[row][real]],
            "fallback": bool(lists.fallback[row]),
            "unknown_ids": int(lists.unknown[row]),
        }
        if lists.spread is not None:
            entry["spread"] = round(float(lists.spread[row]), 6)
        if texts is not None:
            entry["titles"] = [texts[item - 1] for item in lists.items[row][real]]
        yield json.dumps(entry, ensure_ascii=False)


def _json_lines(path: Path) -> Iterator[Raw]:
    names: list = []
    rows: list[list] = []
    for number, line in enumerate(decode.lines(path, decode.encoding(path)), start=1):
        if not line.strip():
            continue
        value = json_objects.parse(line, f"{path} line {number}")
        named = isinstance(value, dict)
        history = value.get("history") if named else value
        if not isinstance(history, list):
            raise ValueError(
                f"{path} line {number} has no history: write [id, ...] or "
                '{"user": name, "history": [id, ...]}'
            )
        names.append(str(value.get("user", number)) if named else str(number))
        rows.append(history)
        if len(rows) == _ROWS:
            yield _flat(names, rows)
            names, rows = [], []
    if rows:
        yield _flat(names, rows)


def _text(path: Path) -> Iterator[Raw]:
    names: list = []
    rows: list[list] = []
    for number, line in enumerate(decode.lines(path, decode.encoding(path)), start=1):
        names.append(str(number))
        rows.append([word for word in _BETWEEN.split(line) if word])
        if len(rows) == _ROWS:
            yield _flat(names, rows)
            names, rows = [], []
    if rows:
        yield _flat(names, rows)


def _flat(names: list, rows: list[list]) -> Raw:
    import pyarrow as pa

    offsets = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64)
    flat = [None if item is None else str(item) for row in rows for item in row]
    return Raw(pa.array(names, pa.string()), pa.array(flat, pa.string()), offsets)


def _parquet(path: Path, config: DataConfig) -> Iterator[Raw]:
    import pyarrow as pa

    file = arrow.parquet_file(path)
    if "history" not in file.schema_arrow.names:
        yield from _interactions(path, config)
        return
    kind = file.schema_arrow.field("history").type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise ValueError(f"column history of {path} holds {kind}; it should hold lists of ids")
    user = _user_column(file.schema_arrow.names, config)
    first = 0
    batches = file.iter_batches(_ROWS, columns=["history", *([user] if user else [])])
    while (batch := arrow.guarded(path, "parquet", lambda: next(batches, None))) is not None:
        history = batch.column("history").fill_null([])
        lengths = np.asarray(history.value_lengths()).astype(np.int64)
        names = batch.column(user) if user else _numbered(first, len(lengths))
        first += len(lengths)
        yield Raw(names, history.flatten(), np.append(0, np.cumsum(lengths)))


def _delimited(path: Path, config: DataConfig) -> Iterator[Raw]:
    found = layout.layout(path, config)
    if "history" not in found.names:
        yield from _interactions(path, config)
        return
    user = _user_column(list(found.names), config)
    opened = delimited.Opened(path, found, layout.quotes(path, found))
    first = 0
    for batch in delimited.batches(opened, ["history", *([user] if user else [])]):
        history = given.of_text(batch["history"], str(path))
        lengths = np.asarray(history.value_lengths()).astype(np.int64)
        names = batch[user] if user else _numbered(first, len(lengths))
        first += len(lengths)
        yield Raw(names, history.flatten(), np.append(0, np.cumsum(lengths)))


def _interactions(path: Path, config: DataConfig) -> Iterator[Raw]:
    read = sources.read(str(path), config)
    columns, left_out = read.tables["all"], read.missing.get("all", {}).get("left_out", 0)
    order = np.arange(len(columns.users))
    if columns.times is not None:
        order = np.argsort(columns.times, kind="stable")
    names, owner = ids.unique(columns.users[order])
    by_user = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[by_user], np.arange(len(names) + 1))
    flat = columns.items[order][by_user]
    for begin in range(0, len(names), _ROWS):
        part = bounds[begin : begin + _ROWS + 1]
        yield Raw(
            ids.to_arrow(names[begin : begin + _ROWS]),
            ids.to_arrow(flat[part[0] : part[-1]]),
            part - part[0],
            left_out if begin == 0 else 0,
        )


def _user_column(names: list[str], config: DataConfig) -> str | None:
    known = [config.user] if config.user else data_columns.NAMES["user"]
    return next((n for n in names if data_columns.normal(n) in known or n == config.user), None)


def _numbered(first: int, count: int) -> Any:
    import pyarrow as pa

    return pa.array(np.arange(first + 1, first + count + 1).astype(str))
