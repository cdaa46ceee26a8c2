"""Json: an object a line (Amazon, Yelp), or one list of objects.

Numbers keep the spelling they have in the file, so that an id of any length stays what it is.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrec_diff.data import decode
from jaxrec_diff.data.columns import Want
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats.table import Table, of_parts

_ROWS = 65_536
_SAMPLE = 100
_WHOLE = 2**29  # bytes of a file that is one list


def read(path: Path, config: DataConfig, want: Want) -> Table:
    """The wanted fields as text, lists of text in a list column."""
    if config.columns:
        raise ValueError(
            f"fields of {path} have names and no places; say --data.user=NAME in place of "
            "data.columns"
        )
    found = decode.encoding(path)
    names: dict[str, None] = {}
    for place, (_, record) in enumerate(_objects(path, found)):
        if place == _SAMPLE:
            break
        names |= dict.fromkeys(record)
    if not names:
        raise ValueError(f"{path} is empty")
    wanted = want(list(names))
    parts = list(_batches(path, found, wanted))
    notes = (found.note,) if found.note else ()
    return Table(tuple(names), of_parts(wanted, parts), notes, lambda row: _line(path, found, row))


def _batches(path: Path, found: decode.Encoding, wanted: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    lists = ("history",)
    kinds = {name: pa.list_(pa.string()) if name in lists else pa.string() for name in wanted}
    columns: dict[str, list] = {name: [] for name in wanted}
    for number, record in _objects(path, found):
        for name, column in columns.items():
            column.append(_value(record.get(name), path, number, name, name in lists))
        if len(columns[wanted[0]]) == _ROWS:
            yield {name: pa.array(column, kinds[name]) for name, column in columns.items()}
            columns = {name: [] for name in wanted}
    if columns[wanted[0]]:
        yield {name: pa.array(column, kinds[name]) for name, column in columns.items()}


def _value(value: Any, path: Path, number: int, name: str, listed: bool) -> Any:
    if value is None or isinstance(value, str):
        if listed and value is not None:
            raise ValueError(f"{path} line {number} holds text in {name!r}; it should be a list")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and listed:
        return [_value(one, path, number, name, False) for one in value]
    kind = "an object" if isinstance(value, dict) else "a list"
    raise ValueError(
        f"{path} line {number} holds {kind} in {name!r}; it should be text or a number"
    )


def _objects(path: Path, found: decode.Encoding) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, fields) of every record."""
    for number, line in enumerate(decode.lines(path, found), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        if number == 1 and stripped.startswith("["):
            yield from _one_list(path, found)
            return
        yield number, _record(parse(stripped, f"{path} line {number}"), path, number)


def _one_list(path: Path, found: decode.Encoding) -> Iterator[tuple[int, dict[str, Any]]]:
    parts, size = [], 0
    for block in decode.text(path, found):
        size += len(block)
        if size > _WHOLE:
            raise ValueError(
                f"{path} is one json list of more than {_WHOLE // 2**20} MiB; write an object a "
                "line (.jsonl)"
            )
        parts.append(block)
    whole = parse(b"".join(parts).decode(), str(path))
    if not isinstance(whole, list):
        raise ValueError(f"{path} is no list of json objects")
    for number, record in enumerate(whole, start=1):
        yield number, _record(record, path, number)


def _record(value: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} line {number} is no json object with named fields, such as "
            '{"user_id": "u1", "item_id": "i1"}'
        )
    return value


def parse(text: str, where: str) -> Any:
    """Json whose numbers stay text as they are written.

    Raises:
      ValueError: on anything else, and on two fields of one name.
    """

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            name = next(name for name in names if names.count(name) > 1)
            raise _Twice(name)
        return found

    try:
        return json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=lambda word: None if word == "NaN" else word,
            object_pairs_hook=fields,
        )
    except _Twice as twice:
        raise ValueError(f"{where} has two fields {twice.args[0]!r}") from None
    except (ValueError, RecursionError):
        shown = text[:40]
        raise ValueError(f"{where} is no json: {shown!r}") from None


class _Twice(Exception):
    pass


def _line(path: Path, found: decode.Encoding, row: int) -> str:
    number = next(
        (number for place, (number, _) in enumerate(_objects(path, found)) if place == row), 0
    )
    return f" (line {number})"
