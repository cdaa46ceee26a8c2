"""What a recommender is asked and what it answers."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff import config
from jaxrec_diff.data import ids
from jaxrec_diff.data.dataset import Dataset

_SHOWN = 3  # of a list, where all are too many


class Histories(NamedTuple):
    """Histories as item numbers, on the host."""

    names: Any  # arrow array [N], what their owners are called
    items: np.ndarray  # i32[nnz] item ids 1..I, oldest first
    offsets: np.ndarray  # i64[N + 1]
    user: np.ndarray  # i32[N], number of the known user, or -1
    unknown: np.ndarray  # i32[N], ids that were skipped


class Lists(NamedTuple):
    """What is recommended to a batch."""

    names: Any  # arrow array [N]
    items: np.ndarray  # i32[N, k], 0 where there are fewer than k
    scores: np.ndarray  # f32[N, k]
    spread: np.ndarray | None  # f32[N], share of a draw's list that another draw's lacks
    fallback: np.ndarray  # bool[N], popular items of an unknown history; scores are their counts
    unknown: np.ndarray  # i32[N]


class Tally(NamedTuple):
    """What was met along the way."""

    histories: int = 0
    unknown_ids: int = 0
    touched: int = 0  # histories with an unknown id
    fallbacks: int = 0
    empty: int = 0  # lists without an item, as no candidate was left

    def add(self, lists: Lists) -> "Tally":
        return self._replace(
            histories=self.histories + len(lists.names),
            unknown_ids=self.unknown_ids + int(lists.unknown.sum()),
            touched=self.touched + int((lists.unknown > 0).sum()),
            fallbacks=self.fallbacks + int(lists.fallback.sum()),
            empty=self.empty + int((lists.items == 0).all(axis=1).sum()),
        )


class Recommendation(NamedTuple):
    """One row of the Python call."""

    user: Any  # raw id, or the place of the history
    items: list  # raw ids, best first
    scores: list[float]
    spread: float | None
    fallback: bool
    unknown: list = []  # ids of the history that are no items, as they were given
    titles: list[str] | None = None  # of the items, "" where one has none; None without titles

    def __repr__(self) -> str:
        shown = self.titles or self.items
        more = ", ..." if len(shown) > _SHOWN else ""
        marks = ", fallback" * self.fallback + f", unknown {self.unknown}" * bool(self.unknown)
        best = ", ".join(str(each) for each in shown[:_SHOWN])
        return f"<{len(shown)} items for {self.user!r}: {best}{more}{marks}>"


class Recommendations(list[Recommendation]):
    """Rows of the Python call, in the order of what was asked."""

    def __init__(self, rows: Iterable[Recommendation], unknown: list):
        super().__init__(rows)
        self.unknown = unknown
        """Ids of users or of items that are not known, as they were given."""

    def to_arrow(self) -> Any:
        """An arrow table, a row an item: user, rank from 1, item, score, and titles if any."""
        import pyarrow as pa

        each = [(row, place) for row in self for place in range(len(row.items))]
        columns = {
            "user": [row.user for row, _ in each],
            "rank": [place + 1 for _, place in each],
            "item": [row.items[place] for row, place in each],
            "score": [row.scores[place] for row, place in each],
        }
        if any(row.titles is not None for row in self):
            columns["title"] = [(row.titles or row.items)[place] for row, place in each]
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """The same as a DataFrame, where pandas is installed.

        Raises:
          ValueError: where it is not.
        """
        return as_frame(self.to_arrow())

    def __repr__(self) -> str:
        of = f", unknown {self.unknown[:_SHOWN]}" if self.unknown else ""
        rows = "".join(f"\n  {row!r}" for row in self[:_SHOWN])
        return f"<{len(self)} lists{of}>{rows}" + "\n  ..." * (len(self) > _SHOWN)


def as_frame(table: Any) -> Any:
    """An arrow table as a DataFrame.

    Raises:
      ValueError: where pandas is not installed.
    """
    try:
        import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore] # noqa: F401
    except ImportError:
        raise ValueError("a DataFrame needs pandas; to_arrow() gives a table without") from None
    return table.to_pandas()


class Vocabulary(NamedTuple):
    """Raw ids of the catalogue; item j + 1 is `ids[j]`."""

    ids: Any  # arrow array

    def encode(self, raw: Any) -> np.ndarray:
        """Arrow array of raw ids -> i32 item numbers, 0 where there is none."""
        import pyarrow.compute as pc

        found = pc.index_in(_as_type(raw, self.ids.type), self.ids)
        return pc.add(pc.fill_null(found, -1), 1).to_numpy(zero_copy_only=False).astype(np.int32)


class Owners(NamedTuple):
    """Who has what in training."""

    user: np.ndarray  # i32[M] users, one item's after the other's
    bounds: np.ndarray  # i64[I + 2] where each item's begin
    norm: np.ndarray  # f64[U] sqrt of the number of a user's distinct items


class Recommender(NamedTuple):
    """A trained workdir, ready to be asked."""

    dataset: Dataset
    experiment: config.Experiment
    vocabulary: Vocabulary
    size: int  # histories at once
    draws: int
    owners: Owners | None  # where the model knows users by number
    rank: Callable[..., list[tuple]]  # histories, first row -> device arrays of parts of a batch
    popular: np.ndarray  # i32[k]
    counts: np.ndarray  # f32[k], how often they were trained on


def _as_type(raw: Any, kind: Any) -> Any:
    """Arrow ids as whole numbers or as text; null where they cannot be.

    Text is a number only where it is spelled as the number is: `007` is nobody's 7.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if raw.type == kind:
        return raw
    if pa.types.is_null(raw.type):
        return pa.nulls(len(raw), kind)
    if pa.types.is_dictionary(raw.type):
        return _as_type(raw.cast(raw.type.value_type), kind)
    if pa.types.is_floating(raw.type):
        inside = pc.less(pc.abs(raw), 2.0**53)
        raw = pc.if_else(pc.and_(inside, pc.equal(pc.floor(raw), raw)), raw, None).cast(pa.int64())
    if pa.types.is_uint64(raw.type):
        raw = raw.cast(pa.string())
    if pa.types.is_integer(kind) and not pa.types.is_integer(raw.type):
        text = pc.utf8_trim_whitespace(raw.cast(pa.string()))
        return ids.each_integer(text).cast(kind)
    return raw.cast(kind)
