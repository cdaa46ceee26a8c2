"""Columns of times and of ratings as numbers.

Times are numbers as they are, or seconds since 1970 of dates in the forms

    2024-01-31, 2024/01/31, 2024-01-31T12:00:05.25+02:00, 2024-01-31 12:00 UTC
    31/01/2024 12:00, 01/31/2024 9:05 PM, 31.01.2024
    Fri, 06 Nov 2020 21:47:00 +0000, 6 Nov 2020, November 6, 2020
    Tue Apr 03 18:00:09 +0000 2012, Tue Apr  3 18:00:09 2012

without a zone in UTC. Whether a day or a month stands first is read off the whole column.
"""

from typing import Any

import numpy as np

from jaxrec_diff.data.ids import At, by_row

_DATE = r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})"
_CLOCK = (
    r"(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_ZONE = r"\s*(?P<z>Z|z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?"
_WEEKDAY = r"(?:(?:[A-Za-z]{3,9}),?\s+)?"
_MONTH = r"(?P<b>[A-Za-z]{3,9})\.?"
_AFTER = rf"(?:[T\s]\s*{_CLOCK}{_ZONE})?"
_FORMS = (
    rf"^{_DATE}{_AFTER}$",
    rf"^{_WEEKDAY}(?P<d>\d{{1,2}})[\s-]+{_MONTH}[\s-]+(?P<y>\d{{4}}){_AFTER}$",
    rf"^{_WEEKDAY}{_MONTH}\s+(?P<d>\d{{1,2}}),?\s+(?P<y>\d{{4}}){_AFTER}$",
    rf"^{_WEEKDAY}{_MONTH}\s+(?P<d>\d{{1,2}})\s+{_CLOCK}{_ZONE}\s+(?P<y>\d{{4}})$",
)
# two numbers of which either may be the day
_EITHER = rf"^(?P<p>\d{{1,2}})[-/. ](?P<q>\d{{1,2}})(?:[-/.]|,?\s+)(?P<y>\d{{4}}){_AFTER}$"
_ROWS = 2**18  # dates at once
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()


def numbers(column: Any, where: str, name: str, at: At = by_row, dates: bool = True) -> np.ndarray:
    """An arrow column without nulls as finite numbers.

    Args:
      column: numbers, dates or text of either.
      where: the file.
      name: of the column.
      at: row -> where it stands, for messages.
      dates: whether text may be dates, too.

    Returns:
      i64 or f64. Dates of text are seconds (with microseconds as a fraction), or whole nanoseconds
      if they are finer; those of a type count in its unit.

    Raises:
      ValueError: naming the first value that is neither, and its row.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if types.is_timestamp(column.type) or types.is_date(column.type):
        if types.is_date(column.type):
            column = column.cast(pa.timestamp("s"))
        return column.cast(pa.int64()).to_numpy()
    if types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if types.is_decimal(column.type) or types.is_float16(column.type):
        column = column.cast(pa.float64())
    if types.is_integer(column.type) or types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype == np.uint64 and len(values) and values.max() < 2**63:
            values = values.astype(np.int64)
    elif _is_text(column.type):
        values = _of_text(column, where, name, at, dates)
    else:
        raise ValueError(f"column {name!r} of {where} holds {column.type}, not numbers or dates")
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{where} has {name} {values[row]!s} in {at(row)}; every row needs a finite one"
        )
    return values


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(kind) for check in (*text, *binary))


def _of_text(column: Any, where: str, name: str, at: At, dates: bool) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    except pa.ArrowException:
        raise ValueError(f"column {name!r} of {where} holds bytes that are no text") from None
    found = plain_numbers(text)
    if found is not None:
        return found
    if not dates:
        row = int(np.argmin(np.asarray(pc.match_substring_regex(text, NUMBER))))
        raise ValueError(
            f"column {name!r} of {where} holds {str(column[row])[:80]!r} in {at(row)}, which is no "
            "number"
        )
    counted = np.asarray(pc.match_substring_regex(text, NUMBER))
    dated, read = _fields(text, where, name)
    bad = ~counted if counted.sum() >= read.sum() else ~read
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"column {name!r} of {where} holds {str(column[row])[:80]!r} in {at(row)}"
            f", which is neither a number nor a date such as 2024-01-31"
        )
    return _seconds(*dated, text, where, name, at)


NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[iI][nN][fF](inity)?|[nN][aA][nN])$"


def plain_numbers(text: Any) -> np.ndarray | None:
    """Trimmed arrow text as int64, or float64; None if one is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.match_substring_regex(text, NUMBER)).as_py():
        return None
    unsigned = pc.replace_substring_regex(text, r"^\+", "")
    for kind in (pa.int64(), pa.float64()):
        try:
            return unsigned.cast(kind).to_numpy()
        except pa.ArrowInvalid:
            continue
    return np.array([float(one) for one in text.to_pylist()])  # `1.` and its like


def _fields(text: Any, where: str, name: str) -> tuple[tuple[dict, np.ndarray], np.ndarray]:
    """The parts of dates, i32 each by letter, and which rows hold one."""
    import pyarrow.compute as pc

    size = len(text)
    parts = {key: np.zeros(size, np.int32) for key in "ymdHMSfz"}
    read, either = np.zeros(size, bool), np.zeros(size, bool)
    for begin in range(0, size, _ROWS):
        block = text.slice(begin, _ROWS)
        for form in (*_FORMS, _EITHER):
            left = np.flatnonzero(~read[begin : begin + len(block)])
            if not len(left):
                break
            found = pc.extract_regex(block.take(left), form)
            fits = found.is_valid()
            rows = begin + left[np.asarray(fits)]
            if not len(rows):
                continue
            groups = {field.name: found.field(i).filter(fits) for i, field in enumerate(found.type)}
            good = _store(parts, rows, groups)
            read[rows[good]] = True
            if form is _EITHER:
                either[rows[good]] = True
    if either.any():
        _day_and_month(parts, either, text, where, name)
    return (parts, either), read


def _store(parts: dict, rows: np.ndarray, groups: dict) -> np.ndarray:
    """Writes the groups of some rows to `parts`; which of them make sense, bool."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def whole(values: Any) -> np.ndarray:
        return pc.if_else(pc.equal(values, ""), "0", values).cast(pa.int64()).to_numpy()

    good = np.ones(len(rows), bool)
    for key in "ymdHMS":
        if key in groups:
            parts[key][rows] = whole(groups[key])
    if "p" in groups:  # two numbers wait in the places of day and month
        parts["d"][rows], parts["m"][rows] = whole(groups["p"]), whole(groups["q"])
    if "b" in groups:
        short = pc.utf8_lower(pc.utf8_slice_codeunits(groups["b"], 0, 3))
        month = pc.fill_null(pc.index_in(short, pa.array(_MONTHS)), -1).to_numpy()
        parts["m"][rows] = month + 1
        good &= month >= 0
    parts["f"][rows] = whole(pc.utf8_rpad(groups["f"], 9, "0")) if "f" in groups else 0
    half = groups["half"]
    hour = parts["H"][rows]
    given = np.asarray(pc.not_equal(half, ""))
    good &= ~given | ((hour >= 1) & (hour <= 12))
    late = np.asarray(pc.equal(pc.utf8_lower(half), "p"))
    parts["H"][rows] = np.where(given, hour % 12 + 12 * late, hour)
    zone = groups["z"]
    named = np.asarray(pc.match_substring_regex(zone, r"^[A-Za-z]|^$"))
    digits = pc.replace_substring_regex(zone, r"[^0-9]", "")
    padded = pc.utf8_rpad(digits, 4, "0")
    clock = np.where(named, 0, whole(pc.if_else(pa.array(named), "0", padded)))
    sign = np.where(np.asarray(pc.starts_with(zone, "-")), -1, 1)
    parts["z"][rows] = sign * (clock // 100 * 3600 + clock % 100 * 60)
    return good


def _day_and_month(parts: dict, either: np.ndarray, text: Any, where: str, name: str) -> None:
    """Settles which of two numbers is the day by the rows that can be read in one way only."""
    first, second = parts["d"][either], parts["m"][either]
    day_first, month_first = (first > 12).any(), (second > 12).any()
    if day_first == month_first:
        shown = text[int(np.flatnonzero(either)[0])].as_py()
        why = "no row tells" if not day_first else "other rows hold both"
        d, m, y = int(first[0]), int(second[0]), int(parts["y"][either][0])
        raise ValueError(
            f"column {name!r} of {where} holds {shown!r}, which may be {y}-{m:02d}-{d:02d} (day "
            f"first) or {y}-{d:02d}-{m:02d} (month first), and {why}; write dates as 2024-01-31"
        )
    if month_first:
        parts["d"][either], parts["m"][either] = second, first


def _seconds(parts, either, text, where: str, name: str, at: At) -> np.ndarray:
    """Numbers of the parts of dates."""
    year, month, day = parts["y"], parts["m"], parts["d"]
    good = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (year >= 1)
    good &= (parts["H"] <= 23) & (parts["M"] <= 59) & (parts["S"] <= 60)
    months = (
        (np.where(good, year, 1970).astype(np.int64) - 1970) * 12 + np.where(good, month, 1) - 1
    )
    first = months.astype("datetime64[M]").astype("datetime64[D]")
    days = first.astype(np.int64) + day - 1
    ends = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    good &= days < ends
    if not good.all():
        row = int(np.argmax(~good))
        raise ValueError(
            f"column {name!r} of {where} holds {text[row].as_py()!r} in {at(row)}, "
            "a day or an hour that does not exist"
        )
    clock = parts["H"] * 3600 + parts["M"] * 60 + parts["S"] - parts["z"]
    whole, nano = days * 86400 + clock, parts["f"].astype(np.int64)
    if not nano.any():
        return whole
    if (nano % 1000).any() and np.abs(whole).max() < 9 * 10**9:
        return whole * 10**9 + nano
    return (whole * 10**6 + nano // 1000) / 1e6
