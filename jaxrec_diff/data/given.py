"""Folders that are split already: histories with their targets, and tables of interactions."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.data import ids
from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats.table import Table
from jaxrec_diff.data.missing import lacks

_FILTERS = ("min_rating", "dedup", "dedup_adjacent", "user_core", "item_core", "recent")


class Histories(NamedTuple):
    """Rows of given histories and targets, flat."""

    items: np.ndarray  # raw ids: each row's history, oldest first, then its target
    offsets: np.ndarray  # i64[N + 1]


def refuse_filters(path: Path, config: DataConfig) -> None:
    """Refuses settings that a folder of train, valid and test has no use for.

    Raises:
      ValueError: naming the first of them.
    """
    defaults = {field.name: field.default for field in fields(DataConfig)}
    for name in _FILTERS:
        value = getattr(config, name)
        if value != defaults[name]:
            flag = name.replace("_", "-")
            raise ValueError(
                f"data.{flag}={value} filters interactions before they are split and {path} is "
                f"split already; leave out --data.{flag}, or join its files to one table"
            )
    if config.split not in (defaults["split"], "users"):
        raise ValueError(
            f"data.split={config.split} splits one table and {path} is split already; leave out "
            "--data.split"
        )


def with_validation(pairs: Mapping[str, Columns]) -> dict[str, Columns]:
    """Train and test with the last training item of every user of two or more for validation."""
    train = pairs["train"]
    order = np.arange(len(train.users))
    if train.times is not None:
        order = np.argsort(train.times, kind="stable")
    _, user = ids.unique(train.users)
    last = np.zeros(int(user.max(initial=0)) + 1, np.int64)
    last[user[order]] = order  # the latest row of a user is written last
    many = np.bincount(user, minlength=len(last)) > 1
    held = np.zeros(len(order), bool)
    held[last[many]] = True

    def take(keep: np.ndarray) -> Columns:
        return Columns(*(None if part is None else part[keep] for part in train))  # type: ignore[arg-type]

    return {"train": take(~held), "valid": take(held), "test": pairs["test"]}


def is_list(kind: Any) -> bool:
    """Whether an arrow type holds lists."""
    import pyarrow as pa

    types = pa.types
    checks = [types.is_list, types.is_large_list, types.is_fixed_size_list]
    checks += [getattr(types, name) for name in ("is_list_view", "is_large_list_view")]
    return any(check(kind) for check in checks)


def as_lists(column: Any) -> Any:
    """A column of lists of any kind as one array of large lists."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
    return column.cast(pa.large_list(column.type.value_type))


_BRACKETED = r"^(\[[^\[\]]*\]|\([^()]*\))$"
_LISTED = r"^\[[^\[\],]*,[^\[\]]*\]$"


def of_text(text: Any, where: str) -> Any:
    """Lists written as text: ids between blanks, commas or |, all in brackets or none.

    Where a row has none, `(` is a letter like any other: `(a b` holds the ids `(a` and `b`. Of
    such a column a row like `[4, 5]`, with a comma, is a list all the same.

    Raises:
      ValueError: on brackets that hold no list.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(text, pa.ChunkedArray):
        text = pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.string())
    text = pc.utf8_trim_whitespace(text.cast(pa.large_string()))
    if pc.any(pc.match_substring_regex(text, r"""^\[.*["']""")).as_py():
        rows = [_words(one, where) for one in text.to_pylist()]
        return pa.array(rows, pa.large_list(pa.large_string()))
    inside = pc.match_substring_regex(text, _BRACKETED)
    if not pc.all(pc.or_(inside, pc.equal(text, ""))).as_py():
        inside = pc.match_substring_regex(text, _LISTED)
    bare = pc.if_else(inside, pc.utf8_slice_codeunits(text, 1, -1), text)
    bare = pc.replace_substring_regex(bare, r"^[\s,|]+|[\s,|]+$", "")
    lists = pc.split_pattern_regex(bare, r"[\s,|]+")
    sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    sizes = np.nan_to_num(sizes).astype(np.int64)
    none = np.asarray(pc.fill_null(pc.equal(bare, ""), True))
    flat = lists.flatten()
    if none.any():  # a split of nothing is one empty text
        flat = flat.filter(pa.array(~np.repeat(none, sizes)))
        sizes = np.where(none, 0, sizes)
    ends = pa.array(np.append(0, np.cumsum(sizes)))
    return pa.LargeListArray.from_arrays(ends, flat.cast(pa.large_string()))


def _words(text: str | None, where: str) -> list[str | None]:
    """The ids of one history; between brackets they may be quoted, as Python or json does."""
    import ast
    import re

    if not text:
        return []
    if not text.startswith("[") or not set(text) & set("\"'"):
        bare = text[1:-1] if re.match(_BRACKETED, text) else text
        return [word for word in re.split(r"[\s,|]+", bare) if word]
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(found, list):
            return [None if one is None else str(one) for one in found]
    raise ValueError(f"{where} holds {text[:60]!r}, which is no list of ids")


def lists_of(column: Any, where: str) -> Any:
    """A column of histories as large lists.

    Raises:
      ValueError: if it holds neither lists nor text.
    """
    import pyarrow as pa

    if is_list(column.type):
        return as_lists(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return of_text(column, where)
    raise ValueError(
        f"column 'history' of {where} holds {column.type}; it should hold lists of ids"
    )


def histories(
    read: Mapping[str, Table], where: Mapping[str, str]
) -> tuple[dict[str, Histories], dict[str, dict[str, Any]], tuple[str, ...]]:
    """Rows of histories and targets by split, what they lacked, and lines for the card."""
    import pyarrow as pa

    parts, missing = {}, {}
    notes: list[str] = []
    for split, table in read.items():
        path = where[split]
        for name in ("history", "target"):
            if name not in table.columns:
                shown = ", ".join(map(repr, table.names))
                raise ValueError(f"{path} has no column {name!r}: found {shown}")
        lists = lists_of(table.columns["history"], path)
        targets = table.columns["target"]
        notes += table.notes
        absent = lacks(targets)
        if absent.all():
            raise ValueError(f"column 'target' of {path} holds no value in any of its rows")
        if absent.any():
            lists, targets = lists.filter(pa.array(~absent)), targets.filter(pa.array(~absent))
            missing[split] = {
                "rows": len(absent),
                "left_out": int(absent.sum()),
                "by_column": {"target": int(absent.sum())},
            }
        flat, sizes, dropped = _without_nulls(lists)
        if dropped:
            notes.append(f"{split}: left out {dropped:,} items of histories that are no value")
        parts[split] = (
            ids.code(flat, path, "history"), ids.code(targets, path, "target"), sizes
        )  # fmt: skip
    settled = ids.settle([coded for part in parts.values() for coded in part[:2]])
    rows = {}
    for place, (split, (_, _, sizes)) in enumerate(parts.items()):
        values, targets = settled[2 * place], settled[2 * place + 1]
        offsets = np.append(0, np.cumsum(sizes + 1))
        items = np.empty(offsets[-1], values.dtype)
        is_target = np.zeros(len(items), bool)
        is_target[offsets[1:] - 1] = True
        items[is_target], items[~is_target] = targets, values
        rows[split] = Histories(items, offsets)
    kind = "text" if ids.is_text(settled[0]) else "whole numbers"
    return rows, missing, tuple(dict.fromkeys([*notes, f"ids: items are {kind}"]))


def _without_nulls(lists: Any) -> tuple[Any, np.ndarray, int]:
    """The items of all histories, how many each has, and how many were no value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    sizes = sizes.astype(np.int64)
    flat = lists.flatten()
    absent = lacks(flat)
    if absent.any():
        owner = np.repeat(np.arange(len(sizes)), sizes)
        sizes = np.bincount(owner[~absent], minlength=len(sizes))
        flat = flat.filter(pa.array(~absent))
    return flat, sizes, int(absent.sum())
