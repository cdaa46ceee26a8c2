"""Lines of items: `user i1 i2 ...`, or the items of a user alone."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.data import decode
from jaxrec_diff.data.formats.layout import Layout
from jaxrec_diff.data.formats.table import Table, of_parts


def read(path: Path, found: Layout) -> Table:
    """A row an item; the order of a line is that of time."""
    parts, first, skip = [], 0, found.skip
    for block in decode.text(path, found.encoding):
        if skip:
            block, skip = b"\n".join(_split(block)[skip:]), 0
        part, count = _block(block, first, found)
        parts.append(part)
        first += count
    names = ("user_id", "item_id")
    return Table(names, of_parts(names, parts), found.notes)


def _split(block: bytes) -> list[bytes]:
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def _block(block: bytes, first: int, found: Layout) -> tuple[dict[str, Any], int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.array(_split(block), pa.binary())
    trimmed = pc.utf8_trim(text.cast(pa.large_string()), " \t" + found.separator)
    trimmed = trimmed.filter(pc.not_equal(trimmed, ""))
    if found.separator in (" ", "\t"):
        fields = pc.split_pattern_regex(trimmed, r"[ \t]+")
    else:
        fields = pc.split_pattern(trimmed, found.separator)
    sizes = np.asarray(fields.value_lengths()).astype(np.int64)
    flat = fields.flatten()
    owner = np.repeat(np.arange(len(sizes)), sizes)
    if found.names[0] == "items":
        users = pa.array(first + owner).cast(pa.large_string())
        return {"user_id": users, "item_id": flat}, len(sizes)
    begins = np.cumsum(sizes) - sizes
    later = np.ones(len(flat), bool)
    later[begins] = False
    users = flat.take(pa.array(begins)).take(pa.array(owner[later]))
    return {"user_id": users, "item_id": flat.filter(pa.array(later))}, len(sizes)
