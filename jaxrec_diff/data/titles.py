"""Titles of items, from any table with a column of ids and one of text.

Columns are found by their usual names. A text without a header holds an id and a title first, as
MovieLens' `u.item` and `movies.dat` do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.data import columns, decode, ids, tables
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.formats import layout

# fmt: off
NAMES = (
    "title", "movie_title", "item_title", "product_title", "book_title", "track_name", "name",
    "item_name", "product_name", "artist_name", "title_name", "headline", "text", "description",
)
# fmt: on
_IDS = (*columns.NAMES["item"], "id")
# What the settings of a text call the first two columns, so that a reader takes them by place.
_ID, _TITLE = columns.PLACES["item"], columns.PLACES["user"]


def attach(dataset: Dataset, config: DataConfig) -> Dataset:
    """A data set with the titles of the file that the settings name, and how many on its card.

    Raises:
      ValueError: if the file cannot be read, or has no title of any item.
    """
    if not config.titles:
        return dataset
    path = Path(config.titles).expanduser()
    given, texts = read(path, config)
    wanted = dataset.item_ids
    if ids.is_text(wanted) != ids.is_text(given):
        wanted, given = _spelled(wanted), _spelled(given)
    place = ids.places(given, wanted)
    if not len(place) or (place < 0).all():
        theirs, ours = (", ".join(str(each) for each in few[:3]) for few in (given, wanted))
        raise ValueError(
            f"{path} has titles of {theirs} ... and {dataset.name} has the items {ours} ...: no id "
            "is in both; name the titles of these items"
        )
    titles = np.full(len(wanted), "", object)
    titles[place >= 0] = texts[place[place >= 0]]
    without = int((titles == "").sum())
    card = dataset.card | {"titles": {"file": config.titles, "items_without": without}}
    return dataset._replace(titles=titles, card=card)


def read(path: Path, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """Ids, each once, and a title of each.

    Raises:
      ValueError: if the file has no column of ids or none of titles.
    """
    if not path.is_file():
        raise ValueError(f"data.titles={path} is no file; name a table of item ids and titles")
    where, names = str(path), list[str]()

    def want(there: Sequence[str]) -> list[str]:
        item = config.item if config.item in there else _first(there, _IDS)
        title = _first(there, NAMES)
        if by_place:
            item, title = _ID, _TITLE
        if item is None or title is None:
            shown = ", ".join(repr(name[:40]) for name in there[:12])
            lacks = "ids" if item is None else "titles"
            raise ValueError(
                f"{path} has no column of {lacks}: found {shown}, expected item_id and title"
            )
        names[:] = [item, title]
        return names

    how, by_place = DataConfig(), False
    if tables.readable(path) and decode.suffix(path) in tables.DELIMITED:
        first = layout.first_row(path)
        heads = [columns.normal(each) for each in first]
        by_place = not set(heads) & {*_IDS, *NAMES} and config.item not in first
        if by_place and len(first) > 1:
            how = DataConfig(columns=",".join(["item", "user", *["-"] * (len(first) - 2)]))
    table = tables.read_table(path, how, want)
    item, title = (table.columns[name] for name in names)
    there = ~(np.asarray(item.is_null()) | np.asarray(title.is_null()))
    item, title = (column.filter(_arrow(there)) for column in (item, title))
    found = ids.settle([ids.code(item, where, "item")])[0]
    text = ids.to_numpy(ids.as_text(title, where, "title"))
    text = np.array([*(" ".join(str(each).split()) for each in text), None], object)[:-1]
    every, place = ids.unique(found)
    titles = np.empty(len(every), object)
    titles[place[::-1]] = text[::-1]  # the first of an id that stands there twice
    return every, titles


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The column with the first of the usual names that there is."""
    spelled = {columns.normal(name): name for name in reversed(names)}
    return next((spelled[each] for each in known if each in spelled), None)


def _spelled(values: np.ndarray) -> np.ndarray:
    return np.array([*(str(value) for value in values.tolist()), None], object)[:-1]


def _arrow(mask: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(mask)
