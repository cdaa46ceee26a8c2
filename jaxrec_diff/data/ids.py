"""Ids of users and items: text, which becomes whole numbers only where nothing is lost by it.

All of the ids that belong together, in every file of a folder, are judged together: they are int64
if each equals `str(int(id))` within int64, and text as it stands in the files if one does not. Text
is held once an id, however often it occurs and however long it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_CANONICAL = r"^(0|-?[1-9][0-9]{0,18})$"
_WIDE = 64 * 2**20  # bytes of fixed-width text that a npz file may hold


At = Callable[[int], str]


def by_row(row: int) -> str:
    """Where a row stands, if all that is known is its place."""
    return f"row {row + 1}"


class Coded(NamedTuple):
    """A column of ids as places in its different values."""

    codes: np.ndarray  # i32[N]
    values: Any  # arrow array of int64 or large_string

    def rows(self, rows: np.ndarray) -> "Coded":
        return Coded(self.codes[rows], self.values)


def code(column: Any, where: str, kind: str, at: At = by_row) -> Coded:
    """An arrow column without nulls as codes.

    Args:
      column: of whole numbers, text, or what can be written as text without a loss.
      where: the file, for messages.
      kind: "user" or "item".
      at: row -> where it stands, for messages.

    Raises:
      ValueError: on numbers that lost digits in the file, on bytes that are no text and on nests.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_floating(column.type):
        column = _whole(column, where, kind, at)
    if types.is_uint64(column.type):
        top = pc.max(column).as_py() if len(column) else 0
        column = column.cast(pa.int64() if (top or 0) < 2**63 else pa.large_string())
    if types.is_integer(column.type):
        column = column.cast(pa.int64())
    elif types.is_nested(column.type):
        raise ValueError(f"{where} has {kind} ids of type {column.type}; an id is text or a number")
    else:
        column = as_text(column, where, kind)
    if isinstance(column, pa.ChunkedArray):
        coded = column.dictionary_encode().unify_dictionaries()
        parts = [chunk.indices.to_numpy() for chunk in coded.chunks]
        codes = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        values = coded.chunk(0).dictionary if parts else pa.array([], column.type)
    else:
        one = column.dictionary_encode()
        codes, values = one.indices.to_numpy(), one.dictionary
    return Coded(codes.astype(np.int32, copy=False), values)


def as_text(column: Any, where: str, kind: str) -> Any:
    """An arrow column as text.

    Raises:
      ValueError: if it holds bytes that are not UTF-8.
    """
    import pyarrow as pa

    try:
        return column.cast(pa.large_string())
    except (pa.ArrowException, UnicodeDecodeError):
        raise ValueError(
            f"{where} has {kind} ids of type {column.type} that are no UTF-8 text"
        ) from None


def _whole(column: Any, where: str, kind: str, at: At) -> Any:
    """A column of floats as int64, if no digit can have been lost."""
    import pyarrow as pa

    values = column.cast(pa.float64()).to_numpy()
    for bad, what in (
        (~np.isfinite(values) | (values != np.floor(values)), "which is no whole number"),
        (np.abs(values) >= 2.0**53, "and floats of that size have lost digits"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"{where} holds the {kind} id {float(values[row])!r} in {at(row)}, {what}; "
                "write ids as text or as integers"
            )
    return pa.array(values.astype(np.int64))


def settle(columns: Sequence[Coded]) -> list[np.ndarray]:
    """The ids of columns that belong together, as int64 or as `str` objects, one type for all."""
    import pyarrow as pa

    if any(not pa.types.is_int64(column.values.type) for column in columns):
        texts = [column.values.cast(pa.large_string()) for column in columns]
        whole = [as_integers(text) for text in texts]
        values = texts if any(one is None for one in whole) else whole
    else:
        values = [column.values for column in columns]
    return [to_numpy(v)[column.codes] for v, column in zip(values, columns, strict=True)]


def as_integers(text: Any) -> Any | None:
    """Arrow text as int64 if every value is spelled as its number is; None otherwise."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(text):
        return text.cast(pa.int64())
    if not pc.all(pc.match_substring_regex(text, _CANONICAL)).as_py():
        return None
    try:
        return text.cast(pa.int64())
    except pa.ArrowInvalid:  # 19 digits beyond int64
        return None


def each_integer(text: Any) -> Any:
    """Arrow text as int64, null wherever a value is not spelled as its number is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    spelled = pc.if_else(pc.match_substring_regex(text, _CANONICAL), text, None)
    try:
        return spelled.cast(pa.int64())
    except pa.ArrowInvalid:  # some have 19 digits beyond int64
        most = len(str(2**63 - 1))
        digits = pc.utf8_length(pc.utf8_ltrim(spelled, "-"))
        return pc.if_else(pc.less(digits, most), spelled, None).cast(pa.int64())


def to_numpy(values: Any) -> np.ndarray:
    """Arrow ids as int64 or as an array of `str` objects."""
    return values.to_numpy(zero_copy_only=False)


def to_arrow(ids: np.ndarray) -> Any:
    """The way back: int64, or text of any length."""
    import pyarrow as pa

    if ids.dtype.kind in "iu":
        return pa.array(ids.astype(np.int64))
    return pa.array(ids if ids.dtype == object else ids.tolist(), pa.large_string())


def of_values(values: Sequence[Any], where: str, kind: str) -> np.ndarray:
    """Ids of a list of Python values."""
    import pyarrow as pa

    return settle([code(pa.array(values), where, kind)])[0]


def is_text(ids: np.ndarray) -> bool:
    return ids.dtype.kind not in "iu"


def unique(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values, place of each id in them); numbers in their order, text in that of its code points.

    >>> unique(np.array(["b", "a", "b"], object))
    (array(['a', 'b'], dtype=object), array([1, 0, 1]))
    """
    if not is_text(ids):
        return np.unique(ids, return_inverse=True)
    import pyarrow.compute as pc

    coded = to_arrow(ids).dictionary_encode()
    order = pc.sort_indices(coded.dictionary).to_numpy()  # UTF-8 sorts as its code points do
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return to_numpy(coded.dictionary)[order], rank[coded.indices.to_numpy()]


def places(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The place of each id among `values`, i64; -1 where it is not among them."""
    import pyarrow.compute as pc

    if is_text(values) != is_text(ids):
        return np.full(len(ids), -1)
    found = pc.index_in(to_arrow(ids), to_arrow(values))
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def words(users: np.ndarray, items: np.ndarray) -> str:
    """The types of ids in a line of the card."""
    kind = {True: "text", False: "whole numbers"}
    return f"ids: users are {kind[is_text(users)]}, items are {kind[is_text(items)]}"


def pack(name: str, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Ids as arrays for a npz file: `name` alone, unless fixed-width text would change them or be
    far larger than they are, then their UTF-8 as `name_utf8` and where each ends as `name_end`."""
    if not is_text(ids):
        return {name: ids}
    texts = ids.tolist()
    width = max(map(len, texts), default=0)
    if 4 * width * len(texts) <= _WIDE and not any(text.endswith("\0") for text in texts):
        return {name: np.array(texts, f"U{max(width, 1)}")}
    parts = [text.encode() for text in texts]
    return {
        f"{name}_utf8": np.frombuffer(b"".join(parts), np.uint8),
        f"{name}_end": np.cumsum([len(part) for part in parts], dtype=np.int64),
    }


def unpack(name: str, stored: Mapping[str, np.ndarray]) -> np.ndarray:
    """What `pack` was given.

    >>> unpack("id", pack("id", np.array(["a", "a\\0"], object))).tolist() == ["a", "a\\0"]
    True
    """
    if name in stored:
        ids = stored[name]
        return ids.astype(object) if ids.dtype.kind == "U" else ids
    data, ends = stored[f"{name}_utf8"].tobytes(), stored[f"{name}_end"].tolist()
    texts = [data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
    return np.array([*texts, None], object)[:-1]  # an object array whatever the texts are
