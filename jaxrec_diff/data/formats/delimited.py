"""Texts of rows: csv, tsv, RecBole's .inter, MovieLens' u.data and ratings.dat, lines of items."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff.data import decode
from jaxrec_diff.data.columns import Want
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats import cells, lines
from jaxrec_diff.data.formats.layout import Layout, layout, quotes
from jaxrec_diff.data.formats.table import Table, of_parts

# unquoted, they are no value
NULLS = ["", "NA", "N/A", "n/a", "#N/A", "#NA", "NULL", "null", "NaN", "nan", "-nan", "-NaN",
         "#N/A N/A", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "<NA>"]  # fmt: skip
_ROWS = 65_536
_UNIT = "\x1f"  # stands for a separator of two letters


class Opened(NamedTuple):
    """A text of rows, before its rows are read."""

    path: Path
    layout: Layout
    quotes: str


def read(path: Path, config: DataConfig, want: Want) -> Table:
    """The columns that are wanted of a text, as text."""
    found = layout(path, config)
    if found.sequences:
        return lines.read(path, found)
    opened = Opened(path, found, quotes(path, found))
    wanted = want(found.names)
    columns = of_parts(wanted, list(batches(opened, wanted)))
    return Table(found.names, columns, found.notes, lambda row: f" (line {_line(opened, row)})")


def batches(opened: Opened, wanted: list[str]) -> Iterator[dict[str, Any]]:
    """The wanted columns, a piece at a time.

    Raises:
      ValueError: naming the line that cannot be read.
    """
    rows = _by_hand if opened.quotes == "odd" else _by_arrow
    for batch in rows(opened, [opened.layout.names.index(name) for name in wanted]):
        if opened.layout.escaped:
            batch = [cells.plain(column) for column in batch]
        yield dict(zip(wanted, batch, strict=True))


def _by_arrow(opened: Opened, places: list[int]) -> Iterator[list[Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    path, found = opened.path, opened.layout
    names = [str(place) for place in range(len(found.names))]
    used = [names[place] for place in places]
    refused = []

    def refuse(row: Any) -> str:
        refused.append((row.actual_columns, row.text))
        return "error"

    quoted = opened.quotes == "regular"
    parse = arrow_csv.ParseOptions(
        delimiter=_UNIT if found.separator == "::" else found.separator,
        quote_char='"' if quoted else False,
        newlines_in_values=quoted,
        invalid_row_handler=refuse,
    )
    convert = arrow_csv.ConvertOptions(
        column_types={name: pa.string() for name in used},
        include_columns=list(dict.fromkeys(used)),
        null_values=NULLS,
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    skip = found.skip
    # a block at a time from memory: arrow's own stream reads ahead in a thread of its own, which
    # may still call Python when the interpreter ends
    for block in _whole_rows(path, _plain(path, found), quoted):
        read = arrow_csv.ReadOptions(column_names=names, skip_rows=skip, block_size=len(block) + 1)
        skip = 0
        try:
            table = arrow_csv.read_csv(pa.BufferReader(block), read, parse, convert)
        except pa.ArrowInvalid as error:
            if refused:
                raise _uneven(opened, *refused[0]) from None
            if "Empty CSV" in str(error):
                continue
            said = str(error).splitlines()[0]
            raise ValueError(f"{path} is not a readable table: {said}") from None
        columns = [table.column(name).combine_chunks() for name in used]
        yield [pc.utf8_ltrim(c, " ") for c in columns] if found.spaced else columns


def _whole_rows(path: Path, blocks: Iterator[bytes], quoted: bool) -> Iterator[bytes]:
    """Blocks that end with a row; a line's end inside quotes ends none."""
    rest = b""
    for block in blocks:
        block = rest + block
        cut = len(block)
        if quoted and block.count(b'"') % 2:  # the last quote opens a value
            cut = block.rfind(b"\n", 0, block.rfind(b'"')) + 1
        if len(block) - cut > decode.LONGEST:
            raise ValueError(
                f"{path} has a row of more than {decode.LONGEST // 2**20} MiB; is a quote unclosed?"
            )
        rest = block[cut:]
        if cut:
            yield block[:cut]
    if rest:
        yield rest


def _plain(path: Path, found: Layout) -> Iterator[bytes]:
    """The text with one byte between fields."""
    for block in decode.text(path, found.encoding):
        if found.separator == "::":
            block = block.replace(b"::", _UNIT.encode())
        elif found.separator == " ":
            block = re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", block)
            block = re.sub(rb"[ \t]+", b" ", block)
        yield block


def _records(opened: Opened) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of every row, quotes read strictly."""
    found = opened.layout
    csv.field_size_limit(decode.LONGEST)
    ended = (line + "\n" for line in decode.lines(opened.path, found.encoding))
    reader = csv.reader(
        ended, delimiter=found.separator, strict=True, skipinitialspace=found.spaced
    )
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error:
            raise ValueError(
                f"{opened.path} has a quote in line {first} that is not closed where its field "
                'ends; write a quote inside a quoted field as ""'
            ) from None
        if row is None:
            return
        if row and first > found.skip:
            yield first, row


def _by_hand(opened: Opened, places: list[int]) -> Iterator[list[Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    width = len(opened.layout.names)
    parts: list[list[str]] = [[] for _ in places]

    def made() -> list[Any]:
        arrays = [pa.array(part, pa.string()) for part in parts]
        none = [pc.is_in(array, pa.array(NULLS)) for array in arrays]
        return [pc.if_else(n, None, array) for n, array in zip(none, arrays, strict=True)]

    for number, row in _records(opened):
        if len(row) != width:
            raise _uneven(opened, len(row), opened.layout.separator.join(row), number)
        for part, place in zip(parts, places, strict=True):
            part.append(row[place])
        if len(parts[0]) == _ROWS:
            yield made()
            parts = [[] for _ in places]
    if parts[0]:
        yield made()


def _uneven(opened: Opened, width: int, text: str, number: int | None = None) -> ValueError:
    if number is None:
        number = next((at for at, line in _numbered(opened) if _same(opened, line, text)), 0)
    shown = text.replace(_UNIT, "::").strip()[:60]
    fields = "1 field" if width == 1 else f"{width} fields"
    return ValueError(
        f"{opened.path} line {number} has {fields}, {shown!r}, and the lines before "
        f"it {len(opened.layout.names)}"
    )


def _same(opened: Opened, line: str, text: str) -> bool:
    if opened.layout.separator == " ":
        return line.split() == text.split()
    return line == text.replace(_UNIT, "::").splitlines()[0] if text else False


def _numbered(opened: Opened) -> Iterator[tuple[int, str]]:
    lines_of = decode.lines(opened.path, opened.layout.encoding)
    for number, line in enumerate(lines_of, start=1):
        blank = line.strip() if opened.layout.separator == " " else line
        if number > opened.layout.skip and blank:
            yield number, line


def _line(opened: Opened, row: int) -> int:
    """The line in which a row begins; the text is read again up to it."""
    if opened.quotes == "none":
        stream: Iterator[tuple[int, Any]] = _numbered(opened)
    else:
        stream = _records(opened)
    return next((number for place, (number, _) in enumerate(stream) if place == row), 0)
