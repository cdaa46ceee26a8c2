"""Files of interactions as tables of columns: which reader an ending has.

To add a format, write a function (path, settings, wanted columns) -> `Table` and give its endings a
line in `FORMATS`.
"""

from collections.abc import Callable
from pathlib import Path

from jaxrec_diff.data import decode
from jaxrec_diff.data.columns import Want
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats import arrays, arrow, delimited, json_objects
from jaxrec_diff.data.formats.table import Table

Reader = Callable[[Path, DataConfig, Want], Table]

DELIMITED = (".csv", ".tsv", ".txt", ".data", ".dat", ".inter", ".item")
TEXTS: dict[str, Reader] = {
    **dict.fromkeys(DELIMITED, delimited.read),
    **dict.fromkeys((".jsonl", ".json", ".ndjson"), json_objects.read),
}
FORMATS: dict[str, Reader] = {
    **TEXTS,
    **dict.fromkeys((".parquet", ".pq"), arrow.read_parquet),
    **dict.fromkeys((".feather", ".arrow", ".ipc"), arrow.read_feather),
    ".npz": arrays.read_npz,
    ".npy": arrays.read_npy,
}
SUFFIXES = tuple(FORMATS)
_PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".pt", ".pth", ".df")


def readable(path: Path) -> bool:
    """Whether a name has an ending that can be read."""
    ending = decode.suffix(path)
    return ending in (TEXTS if path.suffix.lower() in decode.COMPRESSED else FORMATS)


def read_table(path: Path, config: DataConfig, want: Want) -> Table:
    """The wanted columns of a file.

    Raises:
      ValueError: in one sentence that names the file.
    """
    ending = decode.suffix(path)
    if ending in _PICKLES:
        raise ValueError(
            f"{path} is a pickle, and opening one runs the code in it; where you trust it, write "
            "it once as parquet: pandas.read_pickle(path).to_parquet('clicks.parquet')"
        )
    if not readable(path):
        more = f", texts also compressed ({', '.join(decode.COMPRESSED)})"
        raise ValueError(
            f"{path} has the ending {path.suffix.lower()!r}; readable are "
            f"{', '.join(SUFFIXES)}{more}, and sqlite:FILE"
        )
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    try:
        table = FORMATS[ending](path, config, want)
    except UnicodeError:  # half of a pair of UTF-16, as json can hold
        raise ValueError(f"{path} holds text that cannot be written as UTF-8") from None
    if not table.columns or not len(next(iter(table.columns.values()))):
        raise ValueError(f"{path} has a header and no rows")
    return table
