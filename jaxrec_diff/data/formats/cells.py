"""Text cells that a spreadsheet would run as formulas: written inert, read as they were.

A text that begins with = + - @, a tab or a carriage return gets a ' ahead, and so does one that
begins with a ' itself. A file in which there is such a text has one more column, `jaxrec_escape`:
where it is, the readers take the ' off again, and a ' of any other file is its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxrec_diff.data import decode

MARK = "jaxrec_escape"
_STARTS = "=+-@\t\r'"
_START = r"\A([=+\-@\t\r'])"
_ESCAPED = r"\A'([=+\-@\t\r'])"


def inert(text: str) -> str:
    """A text that no spreadsheet runs.

    >>> inert("=1+1"), inert("shoe-12"), inert("'a")
    ("'=1+1", 'shoe-12', "''a")
    """
    return f"'{text}" if text[:1] and text[0] in _STARTS else text


def plain(column: Any) -> Any:
    """The cells of a marked file as they were before `writer` made them inert.

    Args:
      column: arrow array of text.
    """
    import pyarrow.compute as pc

    return pc.replace_substring_regex(column, _ESCAPED, r"\1", max_replacements=1)


@contextmanager
def writer(
    path: Path, *, separator: str = ",", escape: bool = True
) -> Iterator[Callable[[Any], None]]:
    """Gives a function that appends an arrow table to a text of rows with a header.

    Args:
      path: of the text.
      separator: "," quotes every text; a file of tabs knows no quotes.
      escape: text that begins like a formula is made inert; numbers stay as they are.
    """
    import pyarrow as pa
    from pyarrow import csv

    style = "needed" if separator == "," else "none"
    file, marked = path.open("wb"), False
    schema: Any = None  # of the first table

    def put(table: Any, header: bool) -> None:
        if marked:
            table = table.append_column(MARK, pa.array(["'"]).take(pa.array([0] * len(table))))
        options = csv.WriteOptions(include_header=header, delimiter=separator, quoting_style=style)
        csv.write_csv(table, file, options)

    def write(table: Any) -> None:
        nonlocal file, schema, marked
        table, found = _escaped(table) if escape else (table, False)
        if found and not marked:
            file.close()
            marked = True
            beside = path.with_name(path.name + ".marked")
            file = beside.open("wb")
            before = _parts(path, schema, separator) if schema else iter(())
            for count, part in enumerate(before):
                put(part, count == 0)
            file.close()
            beside.replace(path)
            file = path.open("ab")
        put(table, schema is None)
        schema = schema or table.schema

    try:
        yield write
    finally:
        file.close()


def _escaped(table: Any) -> tuple[Any, bool]:
    """The table with inert text, and whether any had to be made so."""
    import pyarrow as pa
    import pyarrow.compute as pc

    some = False
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        if pc.any(pc.match_substring_regex(column, _START)).as_py():
            some = True
            changed = pc.replace_substring_regex(column, _START, r"'\1", max_replacements=1)
            table = table.set_column(place, name, changed)
    return table, some


def _parts(path: Path, schema: Any, separator: str) -> Iterator[Any]:
    """What `writer` has written so far, a piece at a time."""
    import pyarrow as pa
    from pyarrow import csv

    quoted = separator == ","
    reader = csv.open_csv(
        str(path),
        csv.ReadOptions(
            use_threads=False, block_size=decode.LONGEST, column_names=schema.names, skip_rows=1
        ),
        csv.ParseOptions(
            delimiter=separator, quote_char='"' if quoted else False, newlines_in_values=quoted
        ),
        csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        yield pa.Table.from_batches([batch])
