"""Sources of interactions as raw columns: a file, a database, a folder of tables or of parts."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff.data import columns as data_columns
from jaxrec_diff.data import decode, folders, given, ids, interactions, tables
from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats import arrow, sqlite
from jaxrec_diff.data.formats.table import Table
from jaxrec_diff.data.tables import SUFFIXES, Reader

_GENERIC = ("interactions", "ratings", "data", "train", "inter", "u")

SPLITS = ("train", "valid", "test")


class Source(NamedTuple):
    """What a path holds: one table, or tables that are already split."""

    kind: str  # "table" | "pairs" | "histories"
    format: str
    tables: dict[str, Any]  # {"all": Columns}, or by split Columns or Histories
    missing: dict[str, dict[str, Any]] = {}  # by table: `rows` in all, `left_out`, `by_column`
    unused: tuple[str, ...] = ()  # columns of a table that nothing was taken from
    notes: tuple[str, ...] = ()  # what was guessed, a line of the card each


def dataset_name(source: str) -> str:
    """`synthetic`, the folder's name, or the file's stem unless that says nothing.

    >>> dataset_name("data/ml-100k/ml-100k.inter"), dataset_name("amazon-beauty/ratings.csv.gz")
    ('ml-100k', 'amazon-beauty')
    """
    if source.startswith("tfds:"):  # DIR/NAME/VERSION
        return Path(source).parent.name
    if source.startswith(sqlite.PREFIX):
        return Path(source.removeprefix(sqlite.PREFIX)).stem
    path = Path(source)
    if decode.suffix(path) not in SUFFIXES:
        return path.name or path.resolve().name
    stem = path.name[: -len(path.suffix)]
    if path.suffix.lower() in decode.COMPRESSED:
        stem = Path(stem).stem
    if stem.lower() in _GENERIC:
        return path.resolve().parent.name
    return stem


def check(source: str) -> None:
    """Refuses a source where nothing is, before anything of it is read.

    Raises:
      ValueError: naming the nearest path.
    """
    if source != "synthetic":
        _existing(source.removeprefix(sqlite.PREFIX).removeprefix("tfds:"))


def read(source: str, config: DataConfig) -> Source:
    """Reads a file of interactions, a table of a database, or a folder.

    Raises:
      ValueError: if there is nothing usable at the path.
    """
    if source.startswith(sqlite.PREFIX):
        path = _existing(source.removeprefix(sqlite.PREFIX))
        if not path.is_file():
            raise ValueError(f"{path} is no file of a SQLite database")
        return _table(path, "sqlite", config, sqlite.read)
    if config.table or config.query:
        raise ValueError("data.table and data.query read a database: --data=sqlite:FILE")
    path = _existing(source)
    if path.is_dir():
        return _folder(path, config)
    return _table(path, _format(path), config, tables.read_table)


def _existing(source: str) -> Path:
    try:
        path = Path(source).expanduser()
        there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{source[:60]!r} is no path that can be read: {why}") from None
    if not there and path.is_symlink():
        raise ValueError(f"{source} is a link that leads nowhere")
    if not there:
        raise ValueError(f"{source} does not exist{_movielens(path) or _nearest(path)}")
    return path


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
    return "".join([decode.suffix(path), *decode.compressed(path)]).lstrip(".")


def _table(path: Path, form: str, config: DataConfig, reader: Reader) -> Source:
    where = str(path)
    table = reader(path, config, data_columns.wanted(where, config))
    if "history" in table.columns:
        raise ValueError(
            f"{path} holds histories; they are read from a folder of train, valid and test"
        )
    part = interactions.raw(table, where, config)
    users, items = ids.settle([part.users]), ids.settle([part.items])
    columns = Columns(users[0], items[0], *part.rest)
    return Source(
        "table", form, {"all": columns},
        {"all": part.missing} if part.missing["left_out"] else {},
        part.unused, (*part.notes, ids.words(columns.users, columns.items)),
    )  # fmt: skip


def _folder(path: Path, config: DataConfig) -> Source:
    found = folders.split_files(path)
    if not found:
        single = _single(path)
        if single is not None:
            return single(config)
        shown = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{path} lacks a table train (say train.parquet or train.csv); a folder must hold "
            f"train, valid and test, or parts of one parquet table, and it holds {shown}"
        )
    for split in ("train", "test"):
        if split not in found:
            raise ValueError(
                f"{path} lacks a table {split} (say {split}.parquet or {split}.csv); "
                "a folder must hold train, valid and test"
            )
    given.refuse_filters(path, config)
    ordered = {split: found[split] for split in SPLITS if split in found}
    read_ = {split: _part(files, path, config) for split, files in ordered.items()}
    form = _format(ordered["train"][0])
    if "history" in read_["train"].columns:
        if "valid" not in read_:
            raise ValueError(f"{path} lacks a table valid; a folder of histories must hold it")
        where = {split: str(files[0]) for split, files in ordered.items()}
        rows, missing, notes = given.histories(read_, where)
        return Source("histories", form, rows, missing, notes=notes)
    raw = {
        split: interactions.raw(table, str(ordered[split][0]), config)
        for split, table in read_.items()
    }
    users = ids.settle([part.users for part in raw.values()])
    items = ids.settle([part.items for part in raw.values()])
    pairs = {
        split: Columns(u, i, *part.rest)
        for (split, part), u, i in zip(raw.items(), users, items, strict=True)
    }
    lines = [note for part in raw.values() for note in part.notes]
    if "valid" not in pairs:
        pairs = given.with_validation(pairs)
        lines.append("valid: the last training item of each user, since the folder has no file")
    lines.append(ids.words(users[0], items[0]))
    missing = {split: part.missing for split, part in raw.items() if part.missing["left_out"]}
    return Source("pairs", form, pairs, missing, notes=tuple(dict.fromkeys(lines)))


def _single(path: Path) -> Callable[[DataConfig], Source] | None:
    """A folder that is one table: RecBole's NAME.inter, or parts in parquet."""
    inter = sorted(path.glob("*.inter*"))
    if len(inter) == 1 and tables.readable(inter[0]):
        return lambda config: _table(inter[0], _format(inter[0]), config, tables.read_table)
    parts = folders.parquet_parts(path)
    if not parts:
        return None

    def reader(path: Path, config: DataConfig, want: data_columns.Want) -> Table:
        return arrow.read_parts(parts, path, config, want)

    return lambda config: _table(path, "parquet", config, reader)


def _part(files: list[Path], root: Path, config: DataConfig) -> Table:
    """The table of one split."""
    want = data_columns.wanted(str(files[0]), config)
    if len(files) == 1:
        return tables.read_table(files[0], config, want)
    table = arrow.read_parts(files, root, config, want)
    if not len(next(iter(table.columns.values()))):
        raise ValueError(f"{files[0]} and its parts hold no rows")
    return table
