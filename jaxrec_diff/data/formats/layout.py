"""How a text of rows is laid out: separator, header, quotes, what its columns are.

All of it is read off the first lines and the quotes of the whole file. What could be read in two
ways is refused with the flag that says which.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxrec_diff.data import columns, decode
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats import cells

SEPARATORS = ("\t", ",", ";", "|", "::")
QUOTING = (",", ";")  # elsewhere a quote is a letter like any other
_SAMPLE = 100
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"\t": "tab", " ": "blanks"}
_CLOCK = 1e8  # unix times are larger since 1973


class Layout(NamedTuple):
    """How to read a text."""

    encoding: decode.Encoding
    separator: str  # "\t", ",", ";", "|", "::" or " ", which stands for any run of blanks
    names: tuple[str, ...]
    skip: int  # lines before the first row
    spaced: bool  # a separator is followed by a space that is no part of the value
    sequences: bool  # a line is a user and its items, or items alone
    notes: tuple[str, ...]
    escaped: bool = False  # texts that begin like formulas have a ' ahead (`cells`)


def layout(path: Path, config: DataConfig) -> Layout:
    """Looks at the first lines of a text.

    Raises:
      ValueError: if they cannot be read, or in two ways.
    """
    found = decode.encoding(path)
    numbers, lines = _sample(path, found)
    if not lines:
        raise ValueError(f"{path} is empty")
    separator = _separator(lines)
    if separator is None and _unquoted(lines[0]) == "history":
        separator = "\t" if decode.suffix(path) == ".tsv" else ","
    places = config.columns.split(",") if config.columns else []
    if "items" in places:
        fields = split(lines[0], separator or " ")
        skip = numbers[0] if columns.known(fields, config) else 0
        return _lines(path, found, separator or " ", places, skip)
    if separator is None:
        raise ValueError(f"{path} has one column, {lines[0][:40]!r}; needed are a user and an item")
    rows = [split(line, separator) for line in lines]
    after = rows[1:] or rows
    spaced = separator in QUOTING + ("\t", "|") and all(
        all(field.startswith(" ") for field in row[1:]) and len(row) > 1 for row in after
    )
    if spaced:
        rows = [[field.removeprefix(" ") for field in row] for row in rows]
    header = _has_header(rows, separator, config)
    shown = _WORDS.get(separator, repr(separator))
    notes = [note for note in (found.note,) if note]
    if header:
        names = tuple(_unquoted(field) for field in rows[0])
    else:
        names = _headerless(path, separator, rows, lines[0], config)
        if names == ("user", "items"):
            return _lines(path, found, separator, ["user", "items"], 0)
    rest = "header in line 1" if header else "no header"
    notes.append(f"text: separated by {shown}, {rest if numbers[0] == 1 else 'blank lines first'}")
    if config.columns:
        names = tuple(columns.by_place(names, str(path), config))
    elif not header:
        notes.append(f"columns by place: {', '.join(names)}")
    skip, escaped = (numbers[0], cells.MARK in map(_unquoted, rows[0])) if header else (0, False)
    return Layout(found, separator, names, skip, spaced, False, tuple(notes), escaped)


def first_row(path: Path) -> list[str]:
    """The fields of the first line that is not blank, whatever they mean."""
    _, lines = _sample(path, decode.encoding(path))
    if not lines:
        raise ValueError(f"{path} is empty")
    return [_unquoted(field) for field in split(lines[0], _separator(lines) or " ")]


def split(line: str, separator: str) -> list[str]:
    """The fields of a line, a quote closed or not.

    >>> split('1,"a,b",2', ","), split(" 1   33 ", " ")
    (['1', 'a,b', '2'], ['1', '33'])
    """
    if separator == " ":
        return line.split()
    if separator in QUOTING and '"' in line:
        return next(csv.reader([line], delimiter=separator), [])
    return line.split(separator)


def _sample(path: Path, found: decode.Encoding) -> tuple[list[int], list[str]]:
    """The first lines that are not blank, and their numbers."""
    numbers, lines = [], []
    size = 0
    for number, line in enumerate(decode.lines(path, found), start=1):
        if line.strip():
            numbers.append(number)
            lines.append(line)
            size += len(line)
        if len(lines) == _SAMPLE or size > 2**20 or number > 10_000:
            break
    return numbers, lines


def _separator(lines: list[str]) -> str | None:
    """The one that gives most fields, the same number in every line, if one does."""
    there = [one for one in SEPARATORS if one in lines[0]]
    if not there:
        return " " if len(lines[0].split()) > 1 else None
    widths = {one: [len(split(line, one)) for line in lines] for one in there}
    even = [one for one in there if len(set(widths[one])) == 1]
    return max(even or there, key=lambda one: widths[one][0])


def _unquoted(field: str) -> str:
    return field.strip().removeprefix('"').removesuffix('"').strip()


def _is_number(field: str) -> bool:
    return _NUMBER.fullmatch(field.strip()) is not None


def _has_header(rows: list[list[str]], separator: str, config: DataConfig) -> bool:
    first = [_unquoted(field) for field in rows[0]]
    if columns.known(first, config):
        return True
    if separator == "::":  # MovieLens has none
        return False
    if not config.columns:
        given = [field for field in first if field]
        return not given or not all(_is_number(field) for field in given)
    for place, word in enumerate(config.columns.split(",")):
        if word in ("rating", "time") and place < len(first) and len(rows) > 1:
            later = rows[1][place] if place < len(rows[1]) else ""
            if not re.search(r"\d", first[place]) and re.search(r"\d", later):
                return True
    return False


def _headerless(
    path: Path, separator: str, rows: list[list[str]], line: str, config: DataConfig
) -> tuple[str, ...]:
    """What the columns of a table of numbers without a header are.

    Raises:
      ValueError: if several readings are as good.
    """
    widths = Counter(map(len, rows))
    width, share = widths.most_common(1)[0]
    if config.columns:
        return tuple(f"_{place}" for place in range(1, width + 1))
    blanks = separator in (" ", "\t")
    if blanks and share < 0.9 * len(rows) and all(_is_number(f) for row in rows for f in row):
        return "user", "items"
    if width == 2:
        return "user_id", "item_id"
    if separator == "::" and width == 4:
        return "user_id", "item_id", "rating", "timestamp"
    if share == len(rows) and all(_is_number(f) for row in rows for f in row[:4]):
        values = [[float(field) for field in row[:4]] for row in rows]
        if width == 3 and all(_CLOCK <= row[2] < 1e20 for row in values):
            return "user_id", "item_id", "timestamp"
        rated = all(abs(row[2]) <= 100 for row in values)
        if width >= 4 and rated and all(_CLOCK <= row[3] < 1e20 for row in values):
            more = tuple(f"_{place}" for place in range(5, width + 1))
            return "user_id", "item_id", "rating", "timestamp", *more
    ways = {3: "user,item,time, user,item,rating"}.get(width, "user,item,rating,time")
    raise ValueError(
        f"{path} has no header and lines such as {line.strip()[:60]!r}, whose columns may be "
        f"several things; say which: --data.columns={ways} or user,items (a line a user; - skips "
        "a column)"
    )


def _lines(
    path: Path, found: decode.Encoding, separator: str, places: list[str], skip: int
) -> Layout:
    if places not in (["user", "items"], ["items"]):
        raise ValueError(
            f"data.columns={','.join(places)} has items in a place of its own; lines of items are "
            "user,items or items"
        )
    ahead = "a user and then its items" if places[0] == "user" else "the items of a user"
    shown = _WORDS.get(separator, repr(separator))
    notes = (
        *((found.note,) if found.note else ()),
        f"text: a line is {ahead}, oldest first, separated by {shown}"
        + (f", header in line {skip}" if skip else ""),
    )
    return Layout(found, separator, tuple(places), skip, False, True, notes)


def quotes(path: Path, found: Layout) -> str:
    """ "none", "regular" (each opens and closes a whole field) or "odd" in the whole text."""
    if found.separator not in QUOTING:
        return "none"
    import numpy as np

    inside = False
    any_quote = False
    mark, separator = ord('"'), ord(found.separator)
    before = ord("\n")  # the byte before a block
    for block, after in _with_next(decode.text(path, found.encoding)):
        if b'"' not in block and not inside:
            before = block[-1]
            continue
        any_quote = True
        data = np.frombuffer(block, np.uint8)
        at = np.flatnonzero(data == mark)
        opens = (np.arange(len(at)) % 2 == 0) != inside
        left = np.where(at > 0, data[at - 1], before)
        right = np.where(at + 1 < len(data), data[np.minimum(at + 1, len(data) - 1)], after)
        edge = (separator, ord("\n"), ord("\r"), mark)
        if not np.isin(np.where(opens, left, right), edge).all():
            return "odd"
        inside = bool((inside + len(at)) % 2)
        before = block[-1]
    if inside:
        return "odd"
    return "regular" if any_quote else "none"


def _with_next(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Each block with the first byte of the next; a line's end after the last."""
    last = next(blocks, None)
    for block in blocks:
        assert last is not None
        yield last, block[0]
        last = block
    if last is not None:
        yield last, ord("\n")
