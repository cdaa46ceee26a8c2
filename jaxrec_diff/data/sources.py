"""Files to raw columns. Each refusal is one sentence that names the file and what is wrong."""

import difflib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.data import tables as data_tables
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.tables import SUFFIXES

# fmt: off
NAMES = {
    "user": (
        "user_id", "user", "uid", "userid", "user_idx", "session_id", "visitor_id", "visitorid",
        "customer_id", "reviewer_id", "reviewerid",
    ),
    "item": (
        "item_id", "item", "iid", "itemid", "item_idx", "movie_id", "movieid", "sid", "product_id",
        "productid", "sku", "article_id", "asin",
    ),
    "rating": ("rating", "ratings", "score", "stars"),
    "timestamp": (
        "timestamp", "time", "unix_time", "ts", "date", "datetime", "event_time", "created_at",
        "unixreviewtime",
    ),
}


# fmt: on
_GENERIC = ("interactions", "ratings", "data", "train", "inter", "u")


SPLITS = ("train", "valid", "test")


class Columns(NamedTuple):
    """Raw columns of a table of interactions."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray | None
    times: np.ndarray | None
    generated: np.ndarray | None = None  # bool, rows that nobody chose


class Missing(NamedTuple):
    """Rows that lack a value and are left out."""

    rows: np.ndarray  # bool[N]
    counts: dict[str, Any]  # `rows` in all, rows `left_out`, rows that lack a column `by_column`


class Histories(NamedTuple):
    """Rows of given histories and targets, flat."""

    items: np.ndarray  # raw ids: each row's history, oldest first, then its target
    offsets: np.ndarray  # i64[N + 1]


class Source(NamedTuple):
    """What a path holds: one table, or tables that are already split."""

    kind: str  # "table" | "pairs" | "histories"
    format: str
    tables: dict[str, Any]  # {"all": Columns}, or by split Columns or Histories
    missing: dict[str, dict[str, Any]] = {}  # by table what `Missing.counts` holds
    unused: tuple[str, ...] = ()  # columns of a table that nothing was taken from


def dataset_name(source: str) -> str:
    """`synthetic`, the folder's name, or the file's stem unless that says nothing.

    >>> dataset_name("data/ml-100k/ml-100k.inter"), dataset_name("amazon-beauty/ratings.csv")
    ('ml-100k', 'amazon-beauty')
    """
    if source.startswith("tfds:"):  # DIR/NAME/VERSION
        return Path(source).parent.name
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES:
        return path.name or path.resolve().name
    if path.stem.lower() in _GENERIC:
        return path.resolve().parent.name
    return path.stem


def read(source: str, config: DataConfig) -> Source:
    """Reads a file of interactions, or a folder of train, valid and test tables.

    Raises:
      ValueError: if there is nothing usable at the path.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source} does not exist{_movielens(path) or _nearest(path)}")
    if path.is_dir():
        return _folder(path, config)
    table = data_tables.read_table(path)
    columns, missing, unused = _columns(table, path, config)
    return Source("table", _format(path), {"all": columns}, _counted({"all": missing}), unused)


def _movielens(path: Path) -> str:
    """Where to get what the path seems to mean."""
    if not any(part.lower().startswith(("ml-", "movielens")) for part in path.parts):
        return ""
    return (
        "; MovieLens is at grouplens.org/datasets/movielens: unzip it and name its u.data, "
        "ratings.dat or ratings.csv"
    )


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return "; use synthetic, a file of interactions or a folder of tables"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], 1, 0.5)
    return f"; did you mean {folder / near[0]}?" if near else f"; {folder} has no such file"


def _format(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def _folder(path: Path, config: DataConfig) -> Source:
    found = {}
    for split in SPLITS:
        files = [entry for entry in sorted(path.glob(f"{split}.*")) if entry.suffix in SUFFIXES]
        if not files:
            raise ValueError(
                f"{path} lacks a table {split} (say {split}.parquet or {split}.csv); "
                "a folder must hold train, valid and test"
            )
        found[split] = files[0]
    tables = {split: data_tables.read_table(file) for split, file in found.items()}
    form = _format(found["train"])
    if "history" in tables["train"]:
        rows = {split: _histories(table, found[split]) for split, table in tables.items()}
        return Source("histories", form, rows)
    cut = {split: _columns(table, found[split], config) for split, table in tables.items()}
    pairs = {split: columns for split, (columns, _, _) in cut.items()}
    missing = _counted({split: lacking for split, (_, lacking, _) in cut.items()})
    return Source("pairs", form, pairs, missing)


def _counted(missing: dict[str, Missing]) -> dict[str, dict[str, Any]]:
    return {name: one.counts for name, one in missing.items() if one.rows.any()}


def _columns(
    table: dict[str, Any], path: Path, config: DataConfig
) -> tuple[Columns, Missing, tuple[str, ...]]:
    """The rows that have all they need, those that do not, and the columns left alone."""
    user, item = (column(table, path, kind, getattr(config, kind)) for kind in ("user", "item"))
    rating, time = (
        _find(table, path, kind, getattr(config, kind)) for kind in ("rating", "timestamp")
    )
    if config.min_rating is not None and rating is None:
        raise ValueError(
            f"data.min-rating needs a rating column and {path} has {', '.join(table)}; "
            "name it with --data.rating"
        )
    needed = [user, item, *([time] if time else [])]
    if config.min_rating is not None and rating is not None:
        needed.append(rating)
    missing = _missing(table, needed, path, config)
    taken = (user, item, rating, time, "generated")
    unused = tuple(name for name in table if name not in taken)

    def part(name: str) -> np.ndarray:
        return np.ma.getdata(table[name])[~missing.rows]

    ratings = None
    if rating is not None:
        ratings = _numbers(part(rating), path, rating, ~lacks(table[rating])[~missing.rows])
    columns = Columns(
        _ids(part(user), path, "user"),
        _ids(part(item), path, "item"),
        ratings,
        None if time is None else _numbers(part(time), path, time),
        part("generated") == 1 if "generated" in table else None,
    )
    return columns, missing, unused


def _missing(table: dict[str, Any], needed: list[str], path: Path, config: DataConfig) -> Missing:
    """Rows that lack one of the columns.

    Raises:
      ValueError: if they are too many.
    """
    lacking = {name: lacks(table[name]) for name in needed}
    rows = np.any(list(lacking.values()), axis=0)
    for name, absent in lacking.items():
        if absent.all():
            raise ValueError(f"column {name!r} of {path} holds no value in any of its rows")
    counts = {name: int(absent.sum()) for name, absent in lacking.items() if absent.any()}
    share = float(rows.mean())
    if share > config.max_missing:
        each = ", ".join(f"{name!r} in {count:,}" for name, count in counts.items())
        raise ValueError(
            f"{path} lacks a value in {share:.1%} of its {len(rows):,} rows ({each}) and "
            f"data.max-missing allows {config.max_missing:.1%}"
        )
    found = {"rows": len(rows), "left_out": int(rows.sum()), "by_column": counts}
    return Missing(rows, found)


def lacks(values: Any) -> np.ndarray:
    """Where a column has no value: none at all, not a number, or blanks."""
    absent = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    plain = np.ma.getdata(values)
    if plain.dtype.kind == "f":
        found = np.isnan(plain)
    elif plain.dtype.kind == "M":
        found = np.isnat(plain)
    elif plain.dtype.kind in "OU":
        found = np.array(
            [v is None or v != v or (isinstance(v, str) and not v.strip()) for v in plain], bool
        )
    else:
        found = np.zeros(len(plain), bool)
    return found if absent is None else found | absent


def _find(table: dict[str, Any], path: Path, kind: str, given: str | None) -> str | None:
    """The column of a kind: the one that was named, or the first of its usual names."""
    if given is not None:
        if given in table:
            return given
        near = difflib.get_close_matches(given, table, 1, 0.0)[0]
        raise ValueError(f"{path} has no column {given!r}; did you mean {near!r}?")
    names = {name.lower(): name for name in table}
    return next((names[name] for name in NAMES[kind] if name in names), None)


def column(table: dict[str, Any], path: Path, kind: str, given: str | None) -> str:
    found = _find(table, path, kind, given)
    if found is None:
        raise ValueError(
            f"{path} has no {kind} column: found {', '.join(map(repr, table))}, "
            f"expected {NAMES[kind][0]!r} or --data.{kind}=NAME"
        )
    return found


def _ids(values: Any, path: Path, kind: str) -> np.ndarray:
    """Ids as int64, or as text where they are no numbers."""
    values = np.asarray(values)
    if values.dtype.kind in "iu":
        _refuse_first(values < 0, values, path, f"a negative {kind} id", "ids start at 0")
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values) | (values != np.floor(values))
        _refuse_first(bad, values, path, f"a {kind} id that is no whole number", "ids are integers")
        _refuse_first(values < 0, values, path, f"a negative {kind} id", "ids start at 0")
        return values.astype(np.int64)
    return values.astype(str)


def _numbers(
    values: np.ndarray, path: Path, name: str, given: np.ndarray | None = None
) -> np.ndarray:
    """Numbers or seconds since epoch; nan where nothing is given."""
    if given is not None and not given.all():
        out = np.full(len(values), np.nan)
        out[given] = _numbers(values[given], path, name)
        return out
    if values.dtype.kind == "M":
        values = values.astype("datetime64[s]").astype(np.int64)
    if values.dtype.kind not in "iuf":
        text = values.astype(str)
        try:
            values = text.astype(np.float64)
        except ValueError:
            try:
                values = _seconds(text)
            except ValueError as error:
                raise ValueError(
                    f"column {name!r} of {path} holds {text[0]!r}, which is neither a number nor "
                    "a date such as 2024-01-31"
                ) from error
    bad = ~np.isfinite(values)
    _refuse_first(bad, values, path, f"{name}", "every row needs a finite one")
    return values


_ZONED = r"\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"


def _seconds(text: np.ndarray) -> np.ndarray:
    """Seconds since epoch of ISO 8601 texts; those without a zone are in UTC.

    Raises:
      ValueError: on a text of another form.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pa.array(text.tolist(), pa.string())
    zoned = np.asarray(pc.match_substring_regex(words, _ZONED))
    micro = np.zeros(len(text), np.int64)
    for mask, zone in ((zoned, "UTC"), (~zoned, None)):
        some = words.filter(pa.array(mask)).cast(pa.timestamp("us", zone))
        micro[mask] = some.cast(pa.int64()).to_numpy()
    whole = not (micro % 10**6).any()
    return micro // 10**6 if whole else micro / 1e6


def _refuse_first(bad: np.ndarray, values: np.ndarray, path: Path, what: str, hint: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{path} has {what} {values[row]!s} in row {row + 1}; {hint}")


def _histories(table: dict[str, Any], path: Path) -> Histories:
    if "target" not in table:
        raise ValueError(f"{path} has no column 'target': found {', '.join(map(repr, table))}")
    history = table["history"]
    lengths = np.diff(np.asarray(history.offsets))
    values = _ids(history.flatten().to_numpy(zero_copy_only=False), path, "history")
    targets = _ids(table["target"], path, "target")
    offsets = np.append(0, np.cumsum(lengths + 1))
    items = np.empty(offsets[-1], dtype=np.promote_types(values.dtype, targets.dtype))
    is_target = np.zeros(len(items), bool)
    is_target[offsets[1:] - 1] = True
    items[is_target], items[~is_target] = targets, values
    return Histories(items, offsets)
